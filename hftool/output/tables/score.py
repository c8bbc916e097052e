"""The tables of `score`."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from hftool.output.tables.base import HEAT, barred, cell, counted, rendered, shown
from hftool.output.token_spans import scored_spans
from hftool.output.view import number
from hftool.terminal import one_line, visible

if TYPE_CHECKING:
    from hftool.generation.comparison import ModelComparison
    from hftool.generation.scored_tokens import Perplexity, ScoredToken
    from hftool.generation.scoring import TextScore

HEADER = ("tokens", "surprisal", "perplexity", "text")
WIDTHS = (6, 10, 11)
BITS_PER_STEP = 3.5  # of surprisal, for each colour of `HEAT`


def scores(records: Iterable["TextScore"], console: Console) -> Iterator[str]:
    """Render a line for each text as soon as it is scored."""
    head = "  ".join(name.rjust(width) for name, width in zip(HEADER, WIDTHS, strict=False))
    yield rendered(console, Text(f"{head}  {HEADER[-1]}", "dim"))
    for score in records:
        values = (score.tokens, score.surprisal, score.perplexity)
        cells = [_cell(value) for value in values]
        shown = "  ".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=True))
        text = Text(f"{shown}  {one_line(score.text)}")
        if score.error is not None:
            text.append(f"  {one_line(score.error)}", "red")
        yield rendered(console, text)


def comparison(records: Iterable["ModelComparison"], console: Console) -> Iterator[str]:
    """Render a line for each measure of how far a model is from another, with its standard
    error."""
    for c in records:
        ours, theirs = (
            f"{one_line(name)} ({precision})"
            for name, precision in ((c.model, c.precision), (c.against, c.against_precision))
        )
        counts = f"{counted(c.texts, 'text')}, {counted(c.tokens, 'token')}"
        yield rendered(console, Text(f"{ours} against {theirs}: {counts}"), Text())
        quantile = f"  99 % of the tokens: at most {number(c.divergence_quantile_99)}"
        difference = number(c.perplexity_difference)
        rows = (
            ("KL divergence", number(c.divergence), c.divergence_error, quantile),
            ("same best token", number(c.same_best), c.same_best_error, ""),
            ("perplexity", number(c.perplexity), c.perplexity_error, f"  {ours}"),
            ("", number(c.against_perplexity), c.against_perplexity_error, f"  {theirs}"),
            ("difference", difference, c.perplexity_difference_error, ""),
        )
        for name, value, error, remark in rows:
            text = Text(f"{name:<15}  {value:>10} ± {_spread(error):<10}")
            yield rendered(console, text.append(remark, "dim"))


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else number(value)


def _spread(error: float | None) -> str:
    return "?" if error is None else number(error)


def scored(records: Iterable["ScoredToken | Perplexity"], console: Console) -> Iterator[str]:
    """Render a row for each token of a text, with a bar for its surprisal, then the perplexity."""
    names = ("position", "id", "token", "prob", "rank", "surprisal", "entropy")
    tokens: list[ScoredToken] = []
    for record in records:
        if record.kind == "token":
            tokens.append(record)
            continue
        rows = [
            (
                *(cell(s.position), cell(s.id), Text(shown(s.token), "bold")),
                *map(cell, (s.prob, s.rank, s.surprisal, s.entropy)),
            )
            for s in tokens
        ]
        most = max((s.surprisal or 0.0 for s in tokens), default=0.0) or 1.0
        shares = [(s.surprisal or 0.0) / most for s in tokens]
        total = "-" if record.perplexity is None else number(record.perplexity)
        note = Text(f"perplexity {total} over {counted(record.tokens, 'token')}", "dim")
        if console.color_system is not None:
            yield rendered(console, _heated(tokens))
        drop = ("entropy", "rank", "id")
        yield rendered(console, barred(console, names, rows, shares, "yellow", drop=drop), note)
        tokens = []


def _heated(tokens: Sequence["ScoredToken"]) -> Text:
    """Return the text of tokens, each coloured by its surprisal."""
    text = Text()
    for span in scored_spans(tokens):
        surprisal = sum(tokens[i].surprisal or 0.0 for i in span.tokens)
        text.append(visible(span.text), HEAT[min(len(HEAT) - 1, int(surprisal / BITS_PER_STEP))])
    return text

"""The tables of `score`."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from hftool.output.tables.base import counted, rendered
from hftool.output.view import number
from hftool.terminal import one_line

if TYPE_CHECKING:
    from hftool.generation.comparison import ModelComparison
    from hftool.generation.scoring import TextScore

HEADER = ("tokens", "surprisal", "perplexity", "text")
WIDTHS = (6, 10, 11)


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

"""Tables of tokens: encodings, vocabularies, next tokens.

Each function takes records and a console, and yields rendered text.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby, pairwise, zip_longest
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console, Group
from rich.containers import Lines
from rich.style import Style
from rich.table import Table
from rich.text import Text

from hftool.output.tables.base import (
    HEAT,
    NO_BREAK,
    barred,
    cell,
    counted,
    entropies,
    fits,
    new_table,
    rendered,
    shown,
)
from hftool.output.token_spans import Span, encoded_spans, scored_spans
from hftool.output.view import marked, number
from hftool.terminal import one_line, visible

if TYPE_CHECKING:
    from hftool.generation.candidates import Candidate
    from hftool.generation.scored_tokens import Perplexity, ScoredToken
    from hftool.tokenization.records import ComparedCount, ComparedTotal, Encoded, RenderedDiff
    from hftool.tokenization.vocabulary import VocabularyStats

# These differ on light and on dark backgrounds; without colours, bars separate the tokens.
BITS_PER_STEP = 3.5  # of surprisal
TOKEN_STYLES = ("black on cyan", "black on yellow", "black on green", "black on magenta")


def text_field(records: Iterable[Any], console: Console) -> Iterator[str]:
    """Render the text of each record on a line."""
    for record in records:
        yield visible(record.text) + "\n"


def token_style(index: int) -> str:
    """Return the colours of the token at an index."""
    return TOKEN_STYLES[index % len(TOKEN_STYLES)]


def changed_text(records: Iterable["RenderedDiff"], console: Console) -> Iterator[str]:
    """Render the text of each record with what was added in green and what was removed in red;
    without colours, with marks."""
    styles = {"added": Style(color="green"), "removed": Style(color="red", strike=True)}
    for record in records:
        for part in record.parts:
            text = visible(part.text)
            style = styles.get(part.change, Style.null())
            if console.color_system is None:
                yield marked(part.change, text)
            else:
                yield style.render(text, color_system=ColorSystem.STANDARD)
        yield "\n"


def _edged_pieces(parts: Iterable[str], console: Console) -> Text:
    """Return parts of a text in alternating colours, or on a console without colours with a bar
    after each."""
    return edged((Span(part, range(i, i + 1)) for i, part in enumerate(parts)), console)


class _Edged(Text):
    """A text whose lines break at its tokens' `edges`, and inside a token only if it is longer than
    a line."""

    def __init__(self) -> None:
        super().__init__(overflow="fold")
        self.edges: list[int] = []

    def wrap(self, console: Console, width: int, **settings: Any) -> Lines:
        """Return the text's lines; rich calls this to render it."""
        plain, used, breaks = self.plain, 0, []
        for start, end in pairwise((0, *self.edges)):
            needed = cell_len(plain[start:end])
            if used and used + needed > width:
                breaks.append(start)
                used = 0
            used += needed
        lines = Lines()
        for line in self.divide(breaks):
            lines.extend(line.wrap(console, width, **settings))
        return lines


def edged(spans: Iterable[Span], console: Console) -> Text:
    """Do the same as `_edged_pieces` for spans.

    A span has the colours of its first token, underlined if several tokens share it; a span
    without tokens has no colour.
    """
    text = _Edged()
    for span in spans:
        style = token_style(span.tokens[0]) if span.tokens else ""
        text.append(shown(span.text), f"underline {style}" if len(span.tokens) > 1 else style)
        text.append("" if console.color_system else "|")
        text.edges.append(len(text))
    return text


def encoded(records: Iterable["Encoded"], console: Console) -> Iterator[str]:
    """Render each text in its tokens' colours, then a row for each token."""
    names = ("index", "id", "token", "piece", "start", "end")
    for record in records:
        rows = [
            (
                *(cell(i), cell(record.ids[i]), cell(token)),
                *(Text(shown(record.pieces[i]), token_style(i)), *map(cell, record.offsets[i])),
            )
            for i, token in enumerate(record.tokens)
        ]
        text = edged(encoded_spans(record), console)
        table = barred(console, names, rows, [], "", drop=("token",))
        count = Text(
            f"{counted(record.count, 'token')}, {counted(len(record.text), 'character')}", "dim"
        )
        yield rendered(console, Group(text), Text(), table, count)


def compared(records: Iterable[Any], console: Console) -> Iterator[str]:
    """Render a table for each text, with a row for each tokenizer; then one of the totals."""
    for (text, is_total), group in groupby(records, key=lambda r: (_text_of(r), _is_total(r))):
        if is_total:
            yield _totals(list(group), console)
            continue
        names = ("model", "tokens", "bytes/token", "pieces")
        rows = [
            (
                *(Text(one_line(c.model)), cell(c.count), cell(c.bytes_per_token)),
                _edged_pieces(c.pieces, console),
            )
            for c in group
        ]
        table = barred(console, names, rows, [], "", drop=("bytes/token",))
        yield rendered(console, Text(one_line(text), "dim"), table)


def compared_counts(records: Iterable[Any], console: Console) -> Iterator[str]:
    """Render a row for each text and tokenizer, then the totals."""
    counts: list[ComparedCount] = []
    totals: list[ComparedTotal] = []
    for record in records:
        (totals if _is_total(record) else counts).append(record)
    names = ("model", "tokens", "bytes/token", "unknown", "text")
    rows = [
        (
            *(Text(one_line(c.model)), cell(c.count), cell(c.bytes_per_token), cell(c.unknown)),
            Text(one_line(c.text)),
        )
        for c in counts
    ]
    yield rendered(console, barred(console, names, rows, [], ""))
    yield _totals(totals, console)


def _is_total(record: Any) -> bool:
    return getattr(record, "kind", None) == "total"


def _text_of(record: Any) -> str:
    return getattr(record, "text", "")


def _totals(totals: list["ComparedTotal"], console: Console) -> str:
    names = ("total", "texts", "tokens", "bytes/token", "unknown")
    rows = [
        (Text(one_line(t.model)), *map(cell, (t.texts, t.count, t.bytes_per_token, t.unknown)))
        for t in totals
    ]
    return rendered(console, barred(console, names, rows, [], ""))


def statistics(records: Iterable["VocabularyStats"], console: Console) -> Iterator[str]:
    """Render sizes and counts, with a bar for the share of each kind and script; then the longest
    and the special tokens."""
    for stats in records:
        sizes = {"own tokens": stats.vocab_size, "with added ones": stats.size}
        if stats.embedding_rows is not None:
            sizes["embedding rows"] = stats.embedding_rows
        groups = {"size": sizes, "kind": stats.kinds, "script": stats.scripts}
        rows, shares = [], []
        for group, counts in groups.items():
            for i, (name, count) in enumerate(counts.items()):
                head = Text("" if i else group, "dim")
                rows.append((head, Text(name), Text(f"{count:,}", justify="right")))
                shares.append(0.0 if group == "size" else count / sum(counts.values()))
        texts = [("" if i else "longest", shown(text)) for i, text in enumerate(stats.longest)]
        texts += [(role, shown(token)) for role, token in stats.special_tokens.items()]
        table = new_table(show_header=False)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in texts:
            table.add_row(name, Text(text))
        counts_table = barred(console, ("", "", "tokens"), rows, shares, "green")
        yield rendered(console, counts_table, Text(), table)


def candidates(records: Iterable["Candidate"], console: Console) -> Iterator[str]:
    """Render the candidates after each position, best first, with a bar for the probability; then a
    table for each continuation of several tokens."""
    for (_, target, _), group in groupby(records, key=lambda c: (c.index, c.target, c.mask)):
        if target is None:
            yield from _ranked(list(group), console)
        else:
            yield rendered(console, _continuation(list(group), console))


def _ranked(ranked: Sequence["Candidate"], console: Console) -> Iterator[str]:
    sampled = any(c.sampled_prob is not None for c in ranked)
    names = ("rank", "id", "token", "prob", *("sampled",) * sampled, "logprob", "cumulative")
    rows = [
        (
            *(cell(c.rank), cell(c.id), Text(shown(c.token), "bold"), cell(c.prob)),
            *((cell(c.sampled_prob),) * sampled),
            *(cell(c.logprob), cell(c.cumulative)),
        )
        for c in ranked
    ]
    shares = [c.prob for c in ranked]
    drop = ("cumulative", "logprob")
    yield rendered(console, barred(console, names, rows, shares, "green", drop=drop))
    place = "after" if ranked[0].mask is None else "mask at"
    notes = (f"{place} position {ranked[0].position}", entropies(ranked[0]))
    yield rendered(console, Text("; ".join(filter(None, notes)), "dim"))


def _continuation(records: Sequence["Candidate"], console: Console) -> Table:
    """Return a table of a continuation's tokens, one under the other, and of the whole."""
    names = ("after", "rank", "id", "token", "prob", "logprob", "sum")
    *parts, whole = records
    sums = accumulate(c.logprob for c in parts)
    rows = [
        (
            *(cell(c.position), cell(c.rank), cell(c.id), Text(shown(c.token), "bold")),
            *(cell(c.prob), cell(c.logprob), cell(total)),
        )
        for c, total in zip(parts, sums, strict=True)
    ]
    blank = Text()
    text = Text(shown(whole.token), "bold")
    rows.append((blank, blank, blank, text, cell(whole.prob), blank, cell(whole.logprob)))
    shares = [c.prob for c in records]
    return barred(console, names, rows, shares, "green", drop=("after", "logprob", "rank"))


def candidates_compared(records: Iterable["Candidate"], console: Console) -> Iterator[str]:
    """Render a table for each text, with the candidates of several models side by side by rank;
    then each model's table for each target that is not among them."""
    for _, of_text in groupby(sorted(records, key=lambda c: c.index or 0), key=lambda c: c.index):
        by_model = {
            model or "": list(group) for model, group in groupby(of_text, key=lambda c: c.model)
        }
        best = {
            model: [c for rank, c in enumerate(of_model, 1) if c.rank == rank and c.target is None]
            for model, of_model in by_model.items()
        }
        yield rendered(console, *_side_by_side(best, console))
        for model, of_model in by_model.items():
            others = of_model[len(best[model]) :]
            if others:
                yield rendered(console, Text(one_line(model), "dim"))
                yield from candidates(others, console)


def _side_by_side(ranked: dict[str, list["Candidate"]], console: Console) -> Iterator[Table]:
    """Yield a table of all models side by side, or several tables if one would be too wide."""
    names = ["rank"]
    for name in ranked:
        names += [one_line(name), "prob"]
    rows = []
    for row in zip_longest(*ranked.values()):
        cells = [cell(next(c.rank for c in row if c))]
        for c in row:
            cells += [Text(shown(c.token), "bold"), cell(c.prob)] if c else [Text(), Text()]
        rows.append(cells)
    if len(ranked) == 1 or fits(console, names, rows):
        yield barred(console, names, rows, [], "")
        return
    models = list(ranked)
    for half in (models[: len(models) // 2], models[len(models) // 2 :]):
        yield from _side_by_side({name: ranked[name] for name in half}, console)


def positions(records: Iterable["Candidate"], console: Console) -> Iterator[str]:
    """Render a row for each position: its token, then the candidates for the next one, of which
    that of the text is green."""
    for (_, model), group in groupby(records, key=lambda c: (c.index, c.model)):
        if model is not None:
            yield rendered(console, Text(one_line(model), "dim"))
        at = [list(candidates) for _, candidates in groupby(group, key=lambda c: c.position)]
        following = [c[0].after for c in at[1:]]
        rows = [
            (
                *(cell(some[0].position), Text(shown(some[0].after or ""), "bold")),
                Text("  ").join(_with_prob(c, token) for c in some),
            )
            for some, token in zip_longest(at, following)
        ]
        filtered = " after the filters" if at[0][0].sampled_prob is not None else ""
        names = ("position", "token", f"candidates for the next one{filtered}")
        table = barred(console, names, rows, [], "", drop=("position",))
        yield rendered(console, table).replace(NO_BREAK, " ")


def _with_prob(candidate: "Candidate", following: str | None) -> Text:
    """Return a candidate and its probability, which are not put on two lines."""
    style = "bold green" if candidate.token == following else "bold"
    prob = candidate.prob if candidate.sampled_prob is None else candidate.sampled_prob
    return Text.assemble((shown(candidate.token), style), f"{NO_BREAK}{number(prob)}")


def _heated(tokens: Sequence["ScoredToken"]) -> Text:
    """Return the text of tokens, each coloured by its surprisal."""
    text = Text()
    for span in scored_spans(tokens):
        surprisal = sum(tokens[i].surprisal or 0.0 for i in span.tokens)
        text.append(visible(span.text), HEAT[min(len(HEAT) - 1, int(surprisal / BITS_PER_STEP))])
    return text


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

"""What a person sees of each command's records: tables, bars and colours.

Each function takes the events of `hftool.output.formats` and a console, and yields rendered text.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise, zip_longest
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console, Group
from rich.containers import Lines
from rich.table import Table
from rich.text import Text

from hftool.output.tables.base import (
    barred,
    cell,
    counted,
    fits,
    new_table,
    number,
    rendered,
    shown,
)
from hftool.output.token_spans import Span, encoded_spans
from hftool.terminal import one_line, visible

if TYPE_CHECKING:
    from hftool.generation.next_token import Candidate, Perplexity, ScoredToken
    from hftool.tokenization.encode import Compared, Encoded
    from hftool.tokenization.vocabulary import VocabularyStats

# Told apart on a light and on a dark background alike, and without colour by the edges.
TOKEN_STYLES = ("black on cyan", "black on yellow", "black on green", "black on magenta")


def text_field(records: Iterable[Any], console: Console) -> Iterator[str]:
    """The text of each record, a line each."""
    for record in records:
        yield visible(record.text) + "\n"


def _edged_pieces(parts: Iterable[str], console: Console) -> Text:
    """Parts of a text with their edges: colours in turn, bars where there are none."""
    return edged((Span(part, range(i, i + 1)) for i, part in enumerate(parts)), console)


class _Edged(Text):
    """A text that is folded at its tokens' `edges`; only a token longer than a line is torn."""

    def __init__(self) -> None:
        super().__init__(overflow="fold")
        self.edges: list[int] = []

    def wrap(self, console: Console, width: int, **settings: Any) -> Lines:
        """The text's lines, as rich asks for them."""
        plain, used, folds = self.plain, 0, []
        for start, end in pairwise((0, *self.edges)):
            needed = cell_len(plain[start:end])
            if used and used + needed > width:
                folds.append(start)
                used = 0
            used += needed
        lines = Lines()
        for line in self.divide(folds):
            lines.extend(line.wrap(console, width, **settings))
        return lines


def edged(spans: Iterable[Span], console: Console) -> Text:
    """As `_edged_pieces`; what no token covers has no colour."""
    text = _Edged()
    turn = 0
    for span in spans:
        text.append(shown(span.text), TOKEN_STYLES[turn % len(TOKEN_STYLES)] if span.tokens else "")
        text.append("" if console.color_system else "|")
        text.edges.append(len(text))
        turn += bool(span.tokens)
    return text


def encoded(records: Iterable["Encoded"], console: Console) -> Iterator[str]:
    """The text in its tokens' colours, then a row a token."""
    for record in records:
        table = new_table()
        for name in ("index", "id"):
            table.add_column(name, justify="right")
        for name in ("token", "piece"):
            table.add_column(name, overflow="fold")
        for name in ("start", "end"):
            table.add_column(name, justify="right")
        for i, (token, piece) in enumerate(zip(record.tokens, record.pieces, strict=True)):
            colored = Text(shown(piece), TOKEN_STYLES[i % len(TOKEN_STYLES)])
            table.add_row(
                cell(i), cell(record.ids[i]), cell(token), colored, *map(cell, record.offsets[i])
            )
        text = edged(encoded_spans(record), console)
        count = Text(
            f"{counted(record.count, 'token')}, {counted(len(record.text), 'character')}", "dim"
        )
        yield rendered(console, Group(text), Text(), table, count)


def compared(records: Iterable["Compared"], console: Console) -> Iterator[str]:
    """Each text under each tokenizer."""
    for text, group in groupby(records, key=lambda record: record.text):
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


def statistics(records: Iterable["VocabularyStats"], console: Console) -> Iterator[str]:
    """Sizes and counts, with a bar for each kind's and script's share; then texts."""
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
        counted = barred(console, ("", "", "tokens"), rows, shares, "green")
        yield rendered(console, counted, Text(), table)


def candidates(records: Iterable["Candidate"], console: Console) -> Iterator[str]:
    """The tokens after each position, best first, with a bar for the probability."""
    for (_, position), group in groupby(records, key=lambda c: (c.index, c.position)):
        found = list(group)
        sampled = any(c.sampled_prob is not None for c in found)
        names = ("rank", "id", "token", "prob", *("sampled",) * sampled, "logprob", "cumulative")
        rows = [
            (
                *(cell(c.rank), cell(c.id), Text(shown(c.token), "bold"), cell(c.prob)),
                *((cell(c.sampled_prob),) * sampled),
                *(cell(c.logprob), cell(c.cumulative)),
            )
            for c in found
        ]
        shares = [c.prob for c in found]
        drop = ("cumulative", "logprob")
        yield rendered(console, barred(console, names, rows, shares, "green", drop=drop))
        if found[0].entropy is not None:
            note = f"after position {position}; entropy {number(found[0].entropy)} bits"
            yield rendered(console, Text(note, "dim"))


def candidates_compared(records: Iterable["Candidate"], console: Console) -> Iterator[str]:
    """The best tokens of several models side by side, by rank; a table for each text."""
    by_text: dict[int | None, dict[str, list[Candidate]]] = {}
    for c in records:
        by_text.setdefault(c.index, {}).setdefault(c.model or "", []).append(c)
    for ranked in by_text.values():
        yield rendered(console, *_side_by_side(ranked, console))


def _side_by_side(ranked: dict[str, list["Candidate"]], console: Console) -> Iterator[Table]:
    """The models beside each other; below each other those that don't fit."""
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


def scored(records: Iterable["ScoredToken | Perplexity"], console: Console) -> Iterator[str]:
    """A text's tokens with a bar for their surprisal, then its perplexity."""
    names = ("position", "id", "token", "prob", "rank", "surprisal", "entropy")
    found: list[ScoredToken] = []
    for record in records:
        if record.kind == "token":
            found.append(record)
            continue
        rows = [
            (
                *(cell(s.position), cell(s.id), Text(shown(s.token), "bold")),
                *map(cell, (s.prob, s.rank, s.surprisal, s.entropy)),
            )
            for s in found
        ]
        most = max((s.surprisal or 0.0 for s in found), default=0.0) or 1.0
        shares = [(s.surprisal or 0.0) / most for s in found]
        whose = "" if record.model is None else f"{one_line(record.model)}: "
        total = "-" if record.perplexity is None else number(record.perplexity)
        note = Text(f"{whose}perplexity {total} over {counted(record.tokens, 'token')}", "dim")
        drop = ("entropy", "rank", "id")
        yield rendered(console, barred(console, names, rows, shares, "yellow", drop=drop), note)
        found = []

"""Tables of texts in their tokens."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.color import ColorSystem
from rich.console import Console, Group
from rich.style import Style
from rich.text import Text

from hftool.output.tables.base import barred, cell, counted, rendered, shown
from hftool.output.tables.token_colors import colored_pieces, colored_spans, token_style
from hftool.output.token_spans import encoded_spans
from hftool.output.view import marked
from hftool.terminal import one_line, visible

if TYPE_CHECKING:
    from hftool.tokenization.records import ComparedCount, ComparedTotal, Encoded, RenderedDiff


def text_field(records: Iterable[Any], console: Console) -> Iterator[str]:
    """Render the text of each record on a line."""
    for record in records:
        yield visible(record.text) + "\n"


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
        text = colored_spans(encoded_spans(record), console)
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
                colored_pieces(c.pieces, console),
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

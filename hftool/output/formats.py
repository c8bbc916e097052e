"""Formats: functions from records to lines.

The input is a stream of events: records (dataclasses), and pieces of text that the next record
holds as a whole. `text` and `table` write pieces as they come; the other formats skip them.
"""

import csv
import io
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hftool.generation.records import Piece
from hftool.options.output import OutputOptions
from hftool.output.view import Row, View, cell_text, dumps, number
from hftool.terminal import is_terminal
from hftool.tsv import escape_cell

# Many programs take these for the end of a line. In JSON they only occur inside strings.
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}


def records_only(events: Iterable[Any]) -> Iterator[Any]:
    """Yield the events that are records."""
    return (event for event in events if not isinstance(event, Piece))


def text_lines(events: Iterable[Any], view: View) -> Iterator[str]:
    """Yield pieces as they come, and records in the view's text form.

    Where a record's pieces have been written, only its end follows. What a model thinks before its
    answer is left out.
    """
    pieces_written = False
    for event in events:
        if isinstance(event, Piece):
            if not event.is_reasoning:
                yield event.text
        else:
            yield view.end(event) if pieces_written else view.text(event)
        pieces_written = isinstance(event, Piece)


def json_lines(events: Iterable[Any], view: View) -> Iterator[str]:
    """Yield one line per record (JSON Lines)."""
    for record in records_only(events):
        yield dumps(view.record(record)).translate(_LINE_ENDS) + "\n"


def json_array(events: Iterable[Any], view: View) -> Iterator[str]:
    """Yield one JSON array of the records, a record per line."""
    opening = "[\n"
    for record in records_only(events):
        yield opening + dumps(view.record(record))
        opening = ",\n"
    yield "\n]\n" if opening == ",\n" else "[]\n"


def csv_lines(events: Iterable[Any], view: View) -> Iterator[str]:
    """Yield a header and one line per row, quoted where needed (RFC 4180, with Unix line ends)."""
    yield ("\ufeff" if view.bom else "") + _csv_line(view.header or view.columns)
    for record in records_only(events):
        for row in view.rows(record):
            yield _csv_line(_cells(row, view, "csv", cell_text))


def _csv_line(cells: Iterable[str]) -> str:
    buffer = io.StringIO()
    # The csv module quotes a cell with a character of the terminator: "\r" must be one of them.
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def tsv_lines(events: Iterable[Any], view: View) -> Iterator[str]:
    r"""Yield a header and one line per row; cells have \t, \n, \r and \\ as escapes."""
    yield "\t".join(map(escape_cell, view.header or view.columns)) + "\n"
    for record in records_only(events):
        for row in view.rows(record):
            yield "\t".join(_cells(row, view, "tsv", _tsv_cell)) + "\n"


def _tsv_cell(value: Any) -> str:
    return escape_cell(cell_text(value))


def _cells(row: Row, view: View, name: str, cell: Callable[[Any], str]) -> Iterator[str]:
    null = view.nulls.get(name, "")
    for column in view.columns:
        value = row.get(column)
        if value is None:
            yield null
        elif column in view.rounded and isinstance(value, float) and math.isfinite(value):
            yield number(value)
        else:
            yield cell(value)


FORMATS: dict[str, Callable[[Iterable[Any], View], Iterator[str]]] = {
    "text": text_lines,
    "json": json_array,
    "jsonl": json_lines,
    "csv": csv_lines,
    "tsv": tsv_lines,
}
HEADED = ("csv", "tsv")  # formats whose first line names the columns


def format_name(options: OutputOptions, view: View) -> str:
    """Return the format to write: the one asked for, else the one that the file's suffix names,
    else the view's default, else "table" on a terminal and "text" anywhere else."""
    terminal = options.output is None and is_terminal(sys.stdout)
    suffix = options.output.suffix.lower() if options.output else ""
    requested = "json" if options.json else options.format or options.by_suffix.get(suffix)
    return requested or view.default or ("table" if terminal else "text")

"""Formats: functions from records to lines.

What comes in is a stream of events: records (dataclasses), and texts (str) that a record to come
will hold whole. `text` and `table` show the texts as they come, the others wait for the record.
"""

import csv
import dataclasses
import io
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hftool.errors import UsageError
from hftool.options import Format, OutputOptions, PictureOptions
from hftool.output.files import STDOUT, atomic_file, write_error
from hftool.output.terminal import is_terminal, one_line, visible

if TYPE_CHECKING:
    from hftool.output.resume import Partial


Row = Mapping[str, Any]
Screen = Callable[[Iterable[Any], Any], Iterator[str]]  # events and a rich console, to text


def plain(value: Any) -> Any:
    """A record as JSON's own types, without the optional fields it does not have; what is no
    finite number becomes null."""
    if dataclasses.is_dataclass(value):
        fields = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
        kept = ((f, v) for f, v in fields if v is not None or not f.metadata.get("optional"))
        return {f.name: plain(v) for f, v in kept}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@dataclass(frozen=True)
class View:
    """How the records of one command are shown.

    Attributes:
        columns: of csv, tsv and table.
        text: the lines of a record in the text format, line breaks included.
        rows: a record's rows for csv, tsv and table; by default the record is one row.
        table: all events as a person reads them; by default a plain table of the rows.
        page: the records as an HTML page, for `--save`; by default it looks like the table.
        default: the format where none is asked for, instead of table or text.
        pieces: the columns with texts of tokens, whose spaces a table shows.
        drop: the columns that a narrow table leaves out, the first one first.
        private: a new file of these records is the user's alone to read.
        live: written as each record is known; otherwise when a buffer is full.
        at_once: how many lines are handed on together: many short ones take less time so, but what
            flushes what it has written itself must see each.
        record: a record for json and jsonl.
        schema: of the rows in Parquet (pyarrow), from the first of them; None where a view's
            records are not written in it.
    """

    columns: tuple[str, ...]
    text: Callable[[Any], str]
    rows: Callable[[Any], Iterable[Row]] = lambda record: [plain(record)]
    table: Screen | None = None
    page: Callable[[list[Any]], str] | None = None
    default: Format | None = None
    pieces: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    private: bool = False
    live: bool = True
    at_once: int = 1
    record: Callable[[Any], Any] = plain
    schema: Callable[[Sequence[Row]], Any] | None = None


def _dumps(value: Any) -> str:
    return json.dumps(plain(value), ensure_ascii=False, default=_string)


def _string(value: Any) -> str:
    """What a Parquet file has and JSON has no type for: bytes in hex, dates and the like."""
    return value.hex() if isinstance(value, bytes) else str(value)


def _records(events: Iterable[Any]) -> Iterator[Any]:
    return (event for event in events if not isinstance(event, str))


def text_lines(events: Iterable[Any], view: View) -> Iterator[str]:
    """Streamed texts as they are, records by their view."""
    for event in events:
        yield event if isinstance(event, str) else view.text(event)


def json_lines(events: Iterable[Any], view: View) -> Iterator[str]:
    """A line a record (JSON Lines)."""
    for record in _records(events):
        yield _dumps(view.record(record)) + "\n"


def json_array(events: Iterable[Any], view: View) -> Iterator[str]:
    """One array of records."""
    opening = "[\n"
    for record in _records(events):
        yield opening + _dumps(view.record(record))
        opening = ",\n"
    yield "\n]\n" if opening == ",\n" else "[]\n"


def csv_lines(events: Iterable[Any], view: View) -> Iterator[str]:
    """A header and a line a row, quoted where needed (RFC 4180, with plain line breaks)."""
    yield _csv_line(view.columns)
    for record in _records(events):
        for row in view.rows(record):
            yield _csv_line(_cell(row.get(name)) for name in view.columns)


def _csv_line(cells: Iterable[str]) -> str:
    buffer = io.StringIO()
    # A cell is quoted where it holds a character of the terminator: "\r" must be one of them.
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def tsv_lines(events: Iterable[Any], view: View) -> Iterator[str]:
    r"""A header and a line a row; tab, line break and backslash in a cell as \t, \n, \r and \\."""
    yield "\t".join(view.columns) + "\n"
    for record in _records(events):
        for row in view.rows(record):
            yield "\t".join(_tsv_cell(row.get(name)) for name in view.columns) + "\n"


_TSV_ESCAPES = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"})
_TSV_CHARACTERS = {"\\t": "\t", "\\n": "\n", "\\r": "\r", "\\\\": "\\"}


def tsv_cells(line: str) -> list[str]:
    """The cells of a line as `tsv_lines` writes it, as they were."""
    return [
        re.sub(r"\\[tnr\\]", lambda escape: _TSV_CHARACTERS[escape[0]], cell)
        for cell in line.removesuffix("\n").split("\t")
    ]


def _tsv_cell(value: Any) -> str:
    return _cell(value).translate(_TSV_ESCAPES)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    dumped = _dumps(value)
    if dumped == "null":
        return ""
    return _string(value) if dumped.startswith('"') else dumped


FORMATS: dict[str, Callable[[Iterable[Any], View], Iterator[str]]] = {
    "text": text_lines,
    "json": json_array,
    "jsonl": json_lines,
    "csv": csv_lines,
    "tsv": tsv_lines,
}
HEADED = ("csv", "tsv")  # their first line names the columns
LONGEST_CELL = 2**31 - 1  # characters; Python's csv module stops at 128 KiB by default


def format_name(options: OutputOptions, view: View) -> str:
    """The format asked for, else the view's own, else the one for where records go.

    Raises:
        UsageError: two formats were asked for.
    """
    if options.json and options.format not in (None, "json"):
        raise UsageError(f"--json and --format {options.format} exclude each other")
    terminal = options.output is None and is_terminal(sys.stdout)
    suffix = options.output.suffix.lower() if options.output else ""
    named = "json" if options.json else options.format or options.by_suffix.get(suffix)
    return named or view.default or ("table" if terminal else "text")


def write(
    events: Iterable[Any], view: View, options: OutputOptions, partial: "Partial | None" = None
) -> None:
    """Write events to stdout, or whole to the file of `--output`, or to its partial file; and a
    picture of them.

    Raises:
        UsageError: two formats were asked for.
    """
    name = format_name(options, view)
    if isinstance(options, PictureOptions) and options.save is not None:
        from hftool.output.pictures import saved

        events = saved(events, view, options.save)
    if partial is not None:
        partial.append(FORMATS[name](events, view), view.columns if name in HEADED else None)
        return
    if name == "parquet":
        from hftool.parquet import write_parquet

        write_parquet((row for event in events for row in view.rows(event)), view, options.output)
        return
    terminal = options.output is None and is_terminal(sys.stdout)
    to_file = options.output and atomic_file(options.output, private=view.private)
    with to_file or nullcontext(sys.stdout) as stream:
        if name == "table":
            from hftool.output.tables import plain_table, table_console

            console = table_console(options.color, terminal)
            chunks = (view.table or plain_table(view))(events, console)
        else:
            chunks = FORMATS[name](events, view)
            chunks = map(visible, chunks) if terminal else chunks
        if view.at_once > 1:
            chunks = _joined(chunks, view.at_once)
        _write_chunks(chunks, stream, view.live, options.output or STDOUT)


def _write_chunks(chunks: Iterable[str], stream: TextIO, live: bool, name: Path) -> None:
    for chunk in chunks:  # what makes them may raise an OSError of its own
        try:
            stream.write(chunk)
            if live:
                stream.flush()
        except OSError as error:
            raise write_error(name, error) from error


def _joined(chunks: Iterable[str], count: int) -> Iterator[str]:
    rest = iter(chunks)
    while some := list(islice(rest, count)):
        yield "".join(some)


def line(*cells: Any) -> str:
    """A line of the text format: cells separated by tabs, each without line breaks."""
    return "\t".join(cell if isinstance(cell, str) else _cell(cell) for cell in cells) + "\n"


def escaped(text: str) -> str:
    r"""A text in one line of the text format, so that it can be undone ("\n" as \\n)."""
    return one_line(text)

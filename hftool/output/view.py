"""Views: how the records of one command are shown."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hftool.options.output import Format
from hftool.terminal import one_line

Row = Mapping[str, Any]
Table = Callable[[Iterable[Any], Any], Iterator[str]]  # events and a rich console, to text


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
        text: a whole record in the text format, line breaks included.
        end: what the text format writes after a record's pieces, instead of the whole record.
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
    end: Callable[[Any], str] = lambda record: "\n"
    rows: Callable[[Any], Iterable[Row]] = lambda record: [plain(record)]
    table: Table | None = None
    page: Callable[[list[Any]], str] | None = None
    default: Format | None = None
    pieces: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    private: bool = False
    live: bool = True
    at_once: int = 1
    record: Callable[[Any], Any] = plain
    schema: Callable[[Sequence[Row]], Any] | None = None


def dumps(value: Any) -> str:
    return json.dumps(plain(value), ensure_ascii=False, default=string_of)


def string_of(value: Any) -> str:
    """What a Parquet file has and JSON has no type for: bytes in hex, dates and the like."""
    return value.hex() if isinstance(value, bytes) else str(value)


def cell_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    dumped = dumps(value)
    if dumped == "null":
        return ""
    return string_of(value) if dumped.startswith('"') else dumped


def line(*cells: Any) -> str:
    """A line of the text format: cells separated by tabs, each without line breaks."""
    return "\t".join(cell if isinstance(cell, str) else cell_text(cell) for cell in cells) + "\n"


def escaped(text: str) -> str:
    r"""A text in one line of the text format, so that it can be undone ("\n" as \\n)."""
    return one_line(text)

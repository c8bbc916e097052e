"""Views: how the records of one command are written."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hftool.options.output import Format
from hftool.terminal import one_line

Row = Mapping[str, Any]
Table = Callable[[Iterable[Any], Any], Iterator[str]]  # (events, rich.console.Console) to text


def plain(value: Any) -> Any:
    """Return a record as JSON's types.

    Optional fields that are None are left out; a number that is not finite becomes null.
    """
    if dataclasses.is_dataclass(value):
        fields = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
        present = ((f, v) for f, v in fields if v is not None or not f.metadata.get("optional"))
        return {f.name: plain(v) for f, v in present}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class Beside(Mapping[str, Any]):
    """A row with the columns of a record of the input, and others that a command adds to them.

    Attributes:
        given: the record, whose values are looked up only when they are needed.
        added: the columns beside it.
    """

    def __init__(
        self, given: Mapping[str, Any], names: Mapping[str, str], added: Mapping[str, Any]
    ) -> None:
        """Make a row; `names` has the names of the columns in the record, by those in the row."""
        self.given, self.added = given, added
        self._names = names

    def __getitem__(self, name: str) -> Any:
        return self.added[name] if name in self.added else self.given[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        yield from (new for new, name in self._names.items() if name in self.given)
        yield from self.added

    def __len__(self) -> int:
        return len(list(self))


@dataclass(frozen=True)
class View:
    """How the records of one command are written.

    Attributes:
        columns: the columns of csv, tsv and table.
        text: returns a whole record in the text format, line breaks included.
        end: returns what the text format writes after a record's pieces, instead of the record.
        rows: returns a record's rows for csv, tsv and table; by default the record is one row.
        table_columns: the columns of the plain table, if not all of them.
        table: renders all events for a person; by default a plain table of the rows.
        page: renders all records as an HTML page, for `--save`; by default the page looks like the
            table.
        default: the format to use if none is asked for; by default table or text.
        token_columns: the columns that hold tokens, whose spaces a table makes visible.
        rounded: the columns whose numbers csv and tsv show with four digits, as tables do.
        drop: the columns that a narrow table leaves out, in this order.
        private: whether a new file of these records is readable by the user only.
        live: whether each record is flushed as soon as it is known; otherwise the stream decides,
            and the command, which may call `flush_stdout`.
        lines_per_write: how many lines to write together. More are faster, but the stream gets
            them later.
        record: converts a record for json and jsonl.
        schema: returns the Parquet schema (`pyarrow.Schema`); None if the records are not written
            as Parquet.
        header: what csv and tsv call the columns, if not by the names in `columns`.
        nulls: what csv and tsv write for a missing value, by format; by default nothing.
        bom: whether csv begins with a byte-order mark.
    """

    columns: tuple[str, ...]
    text: Callable[[Any], str]
    end: Callable[[Any], str] = lambda record: "\n"
    rows: Callable[[Any], Iterable[Row]] = lambda record: [plain(record)]
    table_columns: tuple[str, ...] | None = None
    table: Table | None = None
    page: Callable[[list[Any]], str] | None = None
    default: Format | None = None
    token_columns: tuple[str, ...] = ()
    rounded: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    private: bool = False
    live: bool = True
    lines_per_write: int = 1
    record: Callable[[Any], Any] = plain
    schema: Callable[[], Any] | None = None
    header: tuple[str, ...] | None = None
    nulls: Mapping[str, str] = dataclasses.field(default_factory=dict)
    bom: bool = False


def number(value: float) -> str:
    """Format a number with four digits: 0.8231, 12.34, 3.1e-05."""
    return f"{value:.4f}" if value == 0 or 1e-4 <= abs(value) < 10 else f"{value:.4g}"


def has_failed(record: Any) -> bool:
    """Return whether a record holds an error instead of a result."""
    return getattr(record, "error", None) is not None


def dumps(value: Any) -> str:
    """Return a value as JSON on one line."""
    return json.dumps(plain(value), ensure_ascii=False, default=string_of)


def string_of(value: Any) -> str:
    """Return a string for a value of Parquet that JSON has no type for: bytes in hex, dates and
    the like."""
    return value.hex() if isinstance(value, bytes) else str(value)


def cell_text(value: Any) -> str:
    """Return a value as the text of a cell in csv, tsv or a line of text."""
    if isinstance(value, str):
        return value
    dumped = dumps(value)
    if dumped == "null":
        return ""
    return string_of(value) if dumped.startswith('"') else dumped


def line(*cells: Any) -> str:
    """Join cells, which have no line breaks, by tabs to a line of the text format."""
    return "\t".join(cell if isinstance(cell, str) else cell_text(cell) for cell in cells) + "\n"


def escaped(text: str) -> str:
    r"""Escape a text for a line of the text format ("\n" as \\n), so that it can be undone."""
    return one_line(text)


def marked(change: str, text: str) -> str:
    """Return a part of a text with the marks that `git diff --word-diff` has for a change."""
    return {"added": f"{{+{text}+}}", "removed": f"[-{text}-]"}.get(change, text)

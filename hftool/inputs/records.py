"""The records of CSV, TSV, JSON, Parquet and Excel files, and what all those of a file share."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hftool.arrow import ColumnTypes, pyarrow
from hftool.errors import HftoolError
from hftool.inputs.columns import TEXT

Columns = Mapping[str, Any]
# Each record, or why it can't be read, after its number.
NumberedRecords = Iterator[tuple[int, Columns | HftoolError]]


@dataclass(frozen=True)
class Shape:
    """What a table has in common for all its records.

    Attributes:
        header: the names of the columns in order, as the table has them; an empty one has none.
        names: the same names, each of them once.
        schema: returns the columns' types (`pyarrow.Schema`).
        types: the types of the values in JSON and Excel.
        nulls: how a missing value of this table is written, by format; elsewhere it is empty.
        encoding: the encoding of its text, as far as it is known.
        marked: whether it began with a byte-order mark.
        recognised: whether a row was taken for the header, and may be a record.
    """

    header: tuple[str, ...]
    names: tuple[str, ...]
    schema: Callable[[], Any]
    types: ColumnTypes | None = None
    nulls: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    marked: bool = False
    recognised: bool = False


@dataclass(frozen=True)
class Records:
    """The records of one file: what all have in common, and each after the number of its line (or
    other `unit`)."""

    shape: Shape
    records: NumberedRecords
    unit: str = "line"


def lines_shape() -> Shape:
    """Return the shape of lines that are a text each."""
    return Shape((TEXT,), (TEXT,), lambda: pyarrow().schema([(TEXT, pyarrow().string())]))

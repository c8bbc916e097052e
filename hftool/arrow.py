"""Arrow's columns: the types that records need, and rows that stay Arrow on their way through."""

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hftool.errors import HftoolError
from hftool.extras import import_extra

EXACT_FLOAT = 2**53  # up to here each integer is a float64
OTHER_FORMAT = "write another format: jsonl keeps each value as it is"
_WORDS = {
    bool: "booleans",
    int: "numbers",
    float: "numbers",
    str: "texts",
    bytes: "bytes",
    list: "lists",
    dict: "objects",
    datetime.datetime: "times",
    datetime.date: "dates",
    datetime.time: "times of day",
    datetime.timedelta: "durations",
}


def pyarrow() -> Any:
    """Import pyarrow.

    Raises:
        HftoolError: it is not installed.
    """
    return import_extra("pyarrow.parquet", needed_for="Parquet", extra="parquet")


@dataclass
class ColumnType:
    """The type that holds all values of a column, widened by each value.

    Attributes:
        kinds: the Python types of the values besides None, each with the place of the first one.
        least: the smallest integer.
        most: the largest integer.
        item: the type of the items, where values are lists.
        fields: the types of the fields, where values are objects.
    """

    kinds: dict[type, str] = field(default_factory=dict)
    least: int = 0
    most: int = 0
    item: "ColumnType | None" = None
    fields: dict[str, "ColumnType"] = field(default_factory=dict)

    def add(self, value: Any, place: str) -> None:
        """Widen the type to hold a value."""
        if value is None:
            return
        kind = type(value)
        self.kinds.setdefault(kind, place)
        if kind is int:
            self.least, self.most = min(self.least, value), max(self.most, value)
        elif kind is list:
            self.item = self.item or ColumnType()
            for item in value:
                self.item.add(item, place)
        elif kind is dict:
            for name, item in value.items():
                self.fields.setdefault(name, ColumnType()).add(item, place)

    def merge(self, other: "ColumnType") -> None:
        """Widen the type to hold what another one holds."""
        self.kinds = {
            **self.kinds,
            **{k: at for k, at in other.kinds.items() if k not in self.kinds},
        }
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)
        if other.item is not None:
            self.item = self.item or ColumnType()
            self.item.merge(other.item)
        for name, type_ in other.fields.items():
            self.fields.setdefault(name, ColumnType()).merge(type_)

    def arrow_type(self, name: str) -> Any:
        """Return the type as a `pyarrow.DataType`.

        Raises:
            HftoolError: no type of Parquet holds all values of the column `name` unchanged.
        """
        pa = pyarrow()
        kinds = set(self.kinds)
        if not kinds:
            return pa.null()
        if kinds == {int}:
            return self._integer_type(name)
        if kinds == {int, float}:
            if max(-self.least, self.most) > EXACT_FLOAT:
                raise HftoolError(
                    f"the column '{name}' has fractions and integers above 2^53, which no type of"
                    " Parquet holds unchanged",
                    OTHER_FORMAT,
                )
            return pa.float64()
        if len(kinds) > 1:
            places: dict[str, str] = {}
            for each, place in self.kinds.items():
                places.setdefault(_WORDS[each], place)
            found = " and ".join(f"{word} ({place})" for word, place in list(places.items())[:2])
            raise HftoolError(
                f"the column '{name}' has {found}, which a Parquet column can't hold together",
                OTHER_FORMAT,
            )
        [kind] = kinds
        if kind is list:
            return pa.list_((self.item or ColumnType()).arrow_type(f"{name}[]"))
        if kind is dict:
            if not self.fields:
                raise HftoolError(
                    f"the column '{name}' has only empty objects, which Parquet can't hold",
                    OTHER_FORMAT,
                )
            return pa.struct(
                [(key, t.arrow_type(f"{name}.{key}")) for key, t in self.fields.items()]
            )
        return {
            bool: pa.bool_(),
            float: pa.float64(),
            str: pa.string(),
            bytes: pa.binary(),
            datetime.datetime: pa.timestamp("us"),
            datetime.date: pa.date32(),
            datetime.time: pa.time64("us"),
            datetime.timedelta: pa.duration("us"),
        }[kind]

    def _integer_type(self, name: str) -> Any:
        pa = pyarrow()
        if -(2**63) <= self.least and self.most < 2**63:
            return pa.int64()
        if self.least >= 0 and self.most < 2**64:
            return pa.uint64()
        digits = max(len(str(abs(self.least))), len(str(self.most)))
        if digits > 76:
            raise HftoolError(
                f"the column '{name}' has an integer of {digits} digits; Parquet holds 76",
                OTHER_FORMAT,
            )
        return pa.decimal128(38) if digits <= 38 else pa.decimal256(76)


class ColumnTypes(dict[str, ColumnType]):
    """The types of all columns of a table's records, by name, in the order of appearance."""

    def add(self, record: Mapping[str, Any], place: str) -> None:
        """Widen the types to hold a record."""
        for name, value in record.items():
            if name not in self:
                self[name] = ColumnType()
            self[name].add(value, place)

    def merge(self, other: "ColumnTypes") -> None:
        """Widen the types to hold the records that other types hold."""
        for name, type_ in other.items():
            self.setdefault(name, ColumnType()).merge(type_)

    def schema(self) -> Any:
        """Return the types as a `pyarrow.Schema`; a column without a value has strings.

        Raises:
            HftoolError: a column has values that no type of Parquet holds, or pyarrow is not
                installed.
        """
        pa = pyarrow()
        types = {name: column.arrow_type(name) for name, column in self.items()}
        return pa.schema([(n, pa.string() if t == pa.null() else t) for n, t in types.items()])


class ArrowBatch:
    """Some rows of an Arrow table, whose columns become Python values only when they are asked for.

    Attributes:
        data: the rows (`pyarrow.RecordBatch`), with unique names.
    """

    def __init__(self, data: Any) -> None:
        self.data = data
        self._values: dict[str, list[Any]] = {}

    def __reduce__(self) -> Any:
        return ArrowBatch, (self.data,)

    def values(self, name: str) -> list[Any]:
        """Return a column's values; of a type that Python can't represent, as strings."""
        if name not in self._values:
            self._values[name] = python_values(self.data.column(name))
        return self._values[name]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self.data.schema.names)

    def rows(self) -> Iterator["ArrowRow"]:
        """Yield each row."""
        return (ArrowRow(self, index) for index in range(self.data.num_rows))


@dataclass(frozen=True, slots=True, eq=False)
class ArrowRow(Mapping[str, Any]):
    """A row of a batch, by column."""

    batch: ArrowBatch
    index: int

    def __getitem__(self, name: str) -> Any:
        if name not in self.batch.names:
            raise KeyError(name)
        return self.batch.values(name)[self.index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.batch.names)

    def __len__(self) -> int:
        return len(self.batch.names)


def python_values(array: Any) -> list[Any]:
    """Return the values of a `pyarrow.Array`.

    Times in nanoseconds, dates that Python lacks (before 1, after 9999), and times in a zone that
    this machine does not know become strings.
    """
    pa = pyarrow()
    if array.type == pa.duration("ns"):
        return [
            None if count is None else _duration(count)
            for count in array.cast(pa.int64()).to_pylist()
        ]
    if "[ns" not in str(array.type):
        try:
            values: list[Any] = array.to_pylist()
            return values
        except (ValueError, OverflowError, LookupError):  # pyarrow's errors derive from the first
            pass
    try:
        texts: list[Any] = array.cast(_with_text_for_times(array.type, pa)).to_pylist()
        if "<value out of range" not in str(texts):
            return texts
    except pa.ArrowInvalid:  # an unknown time zone
        pass
    if not pa.types.is_timestamp(array.type):
        raise HftoolError(f"values of the type {array.type} can't be written as text")
    return _far_times(array)


def _duration(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.timedelta(seconds=seconds)}.{rest:09}"


def _far_times(array: Any) -> list[str | None]:
    """Return timestamps of any year in UTC, in ISO 8601."""
    import numpy as np

    counts, zone = array.cast(pyarrow().int64()).to_pylist(), "Z" if array.type.tz else ""
    times = (count if count is None else np.datetime64(count, array.type.unit) for count in counts)
    return [None if time is None else str(time).replace("T", " ") + zone for time in times]


def _with_text_for_times(type_: Any, pa: Any) -> Any:
    """Return a type with strings in place of dates and times, at any depth."""
    if pa.types.is_temporal(type_):
        return pa.string()
    if pa.types.is_struct(type_):
        return pa.struct([f.with_type(_with_text_for_times(f.type, pa)) for f in type_])
    if pa.types.is_map(type_):
        return pa.map_(type_.key_type, _with_text_for_times(type_.item_type, pa))
    if pa.types.is_dictionary(type_):
        return _with_text_for_times(type_.value_type, pa)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return pa.list_(_with_text_for_times(type_.value_type, pa))
    return type_


def joined(rows: Sequence[ArrowRow]) -> Any:
    """Return consecutive rows as a `pyarrow.Table`, without a detour through Python."""
    pa = pyarrow()
    slices: list[Any] = []
    start = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or rows[end].batch is not rows[start].batch:
            first = rows[start]
            slices.append(first.batch.data.slice(first.index, end - start))
            start = end
    return pa.Table.from_batches(slices)


def renamed_schema(schema: Any, names: Mapping[str, str]) -> Any:
    """Return a `pyarrow.Schema` with other names for its columns, also in the metadata in which
    pandas keeps its index and Hugging Face's datasets their features."""
    fields = [f.with_name(names.get(f.name, f.name)) for f in schema]
    metadata = dict(schema.metadata or {})
    if b"pandas" in metadata:
        metadata[b"pandas"] = _renamed_pandas(metadata[b"pandas"], names)
    if b"huggingface" in metadata:
        metadata[b"huggingface"] = _renamed_features(metadata[b"huggingface"], names)
    return pyarrow().schema(fields, metadata=metadata or None)


def _renamed_pandas(data: bytes, names: Mapping[str, str]) -> bytes:
    try:
        known = json.loads(data)
        known["index_columns"] = [
            names.get(column, column) if isinstance(column, str) else column
            for column in known["index_columns"]
        ]
        for column in known["columns"]:
            for key in ("name", "field_name"):
                column[key] = names.get(column[key], column[key])
    except (ValueError, LookupError, TypeError, AttributeError):  # not as pandas writes it
        return data
    return json.dumps(known).encode()


def _renamed_features(data: bytes, names: Mapping[str, str]) -> bytes:
    try:
        known = json.loads(data)
        features = known["info"]["features"]
        known["info"]["features"] = {names.get(n, n): feature for n, feature in features.items()}
    except (ValueError, LookupError, TypeError, AttributeError):  # not as datasets writes it
        return data
    return json.dumps(known).encode()

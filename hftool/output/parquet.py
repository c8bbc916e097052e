"""Write Parquet files, with the extra `hftool-cli[parquet]`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hftool.arrow import ArrowRow, joined, pyarrow, renamed_schema
from hftool.atomic_files import atomic_path
from hftool.errors import HftoolError, UsageError
from hftool.output.view import Beside, Row, View

ROW_GROUP = 16_384  # rows of a row group
ROW_GROUP_BYTES = 16_000_000  # or fewer, once they take more than this


def write_parquet(rows: Iterable[Row], view: View, path: Path | None) -> None:
    """Write rows to a file, which appears when it is complete.

    Memory holds one row group at a time. The types are known before the first row is asked for.

    Raises:
        UsageError: `path` is None (stdout), or the view has no schema.
        HftoolError: the file can't be written, a row does not fit the schema, or pyarrow is not
            installed.
    """
    if path is None:
        raise UsageError("Parquet is written to a file, not to stdout", "name it with -o/--output")
    if view.schema is None:
        raise UsageError("these records can't be written as Parquet", "use another --format")
    pa = pyarrow()
    schema = view.schema()
    try:
        with atomic_path(path) as beside, pa.parquet.ParquetWriter(beside, schema) as writer:
            for group in _groups(rows):
                writer.write_table(_table(group, schema, pa))
    except (pa.ArrowException, OverflowError) as error:
        raise HftoolError(f"cannot write {path}: {error}") from None


def _table(group: Sequence[Row], schema: Any, pa: Any) -> Any:
    """Return rows as a `pyarrow.Table`. Columns that came in Arrow stay as they are."""
    columns: dict[str, Any] = {}
    first = group[0]
    if isinstance(first, Beside) and isinstance(first.given, ArrowRow):
        given = joined([row.given for row in group])  # type: ignore[attr-defined]
        columns = dict(zip(first, given.columns, strict=False))
    arrays = []
    for field in schema:
        if field.name in columns:
            array = columns[field.name]
            arrays.append(array if array.type == field.type else array.cast(field.type))
        else:
            arrays.append(pa.array([row.get(field.name) for row in group], field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield rows in groups that are large enough for Parquet and small enough for memory."""
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += _size(row)
        if len(group) == ROW_GROUP or size > ROW_GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _size(row: Row) -> int:
    """Return about how many bytes a row takes."""
    if isinstance(row, Beside) and isinstance(row.given, ArrowRow):
        data = row.given.batch.data
        return int(data.nbytes // max(1, data.num_rows))
    return sum(len(value) for value in row.values() if isinstance(value, str | bytes))


TEXTS, COUNTS = ("label", "error"), ("index", "tokens")


def results_schema(input_schema: Any, names: Mapping[str, str], results: Sequence[str]) -> Any:
    """Return the schema (`pyarrow.Schema`) of the records of `sentiment` and `score`: the input's
    columns, then the results, which are numbers but for those in `TEXTS` and `COUNTS`.

    Args:
        input_schema: the columns of the input with their types.
        names: the names of the input's columns in the records, by those in the input.
        results: the names of the other columns.
    """
    pa = pyarrow()
    types = dict.fromkeys(TEXTS, pa.string()) | dict.fromkeys(COUNTS, pa.int64())
    given = renamed_schema(input_schema, names)
    result_fields = [pa.field(name, types.get(name, pa.float64())) for name in results]
    return pa.schema([*given, *result_fields], metadata=given.metadata)

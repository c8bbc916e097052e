"""Write Parquet files, with the extra `hftool-cli[parquet]`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hftool.atomic_files import atomic_path
from hftool.errors import HftoolError, UsageError
from hftool.extras import import_extra
from hftool.output.view import Row, View

ROW_GROUP = 16_384  # rows of a row group
ROW_GROUP_BYTES = 16_000_000  # or fewer, once their texts exceed this


def _pyarrow() -> Any:
    return import_extra("pyarrow.parquet", needed_for="Parquet", extra="parquet")


def write_parquet(rows: Iterable[Row], view: View, path: Path | None) -> None:
    """Write rows to a file, which appears when it is complete.

    Memory holds one row group at a time.

    Raises:
        UsageError: `path` is None (stdout), or the view has no schema.
        HftoolError: the file can't be written, a row does not fit the schema, or pyarrow is not
            installed.
    """
    if path is None:
        raise UsageError("Parquet is written to a file, not to stdout", "name it with -o/--output")
    if view.schema is None:
        raise UsageError("these records can't be written as Parquet", "use another --format")
    pyarrow = _pyarrow()
    groups = _groups(rows)
    group = next(groups, [])
    try:
        schema = view.schema(group)
        with atomic_path(path) as beside, pyarrow.parquet.ParquetWriter(beside, schema) as writer:
            while group:
                writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))
                group = next(groups, [])
    except pyarrow.ArrowException as error:
        raise HftoolError(f"cannot write {path}: {error}") from None


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield rows in groups that are large enough for Parquet and small enough for memory."""
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(len(value) for value in row.values() if isinstance(value, str | bytes))
        if len(group) == ROW_GROUP or size > ROW_GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def schema_of(rows: Sequence[Row], names: Sequence[str]) -> Any:
    """Return the schema (`pyarrow.Schema`) that fits these columns of rows.

    Raises:
        HftoolError: a column has values of different types, or pyarrow is not installed.
    """
    pyarrow = _pyarrow()
    try:
        return pyarrow.table({name: [row.get(name) for row in rows] for name in names}).schema
    except pyarrow.ArrowException as error:
        raise HftoolError(f"a column has values of different types: {error}") from None


def classification_schema(
    rows: Sequence[Row], names: Mapping[str, str], input_schema: Any, results: Sequence[str]
) -> Any:
    """Return the schema (`pyarrow.Schema`) of `sentiment`'s records: the input's columns, then the
    label, its scores, and perhaps the error.

    Args:
        rows: the first rows, which determine the columns' types if the input had no schema.
        names: the names of the input's columns in the records, by those in the input.
        input_schema: the schema of an input in Parquet, else None.
        results: the names of the other columns.
    """
    pyarrow = _pyarrow()
    if input_schema is None:
        input_schema = schema_of(rows, [*names.values()])
    null, text, number = pyarrow.null(), pyarrow.string(), pyarrow.float64()
    input_fields = [
        field.with_name(name).with_type(text if field.type == null else field.type)
        for field, name in zip(input_schema, names.values(), strict=True)
    ]
    result_fields = [
        pyarrow.field(name, text if name in ("label", "error") else number) for name in results
    ]
    return pyarrow.schema([*input_fields, *result_fields], metadata=input_schema.metadata)

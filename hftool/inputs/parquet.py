"""Read Parquet files, with the extra `hftool-cli[parquet]`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hftool.arrow import ArrowBatch, ArrowRow, pyarrow
from hftool.errors import HftoolError

BATCH_ROWS = 1024  # rows to read together
BATCH_BYTES = 16_000_000  # or fewer rows, if they take more than this
COLUMN_BUFFER = 1 << 20  # bytes of each column to read from the file together


def open_parquet(path: Path) -> Any:
    """Open a file to read; returns a `pyarrow.parquet.ParquetFile`.

    Raises:
        HftoolError: the file can't be read or is not Parquet, or pyarrow is not installed.
    """
    pa = pyarrow()
    try:
        path.open("rb").close()  # for its short error message: pyarrow's is long
        # By default pyarrow keeps everything that it has read of the file in memory.
        return pa.parquet.ParquetFile(path, pre_buffer=False, buffer_size=COLUMN_BUFFER)
    except OSError as error:
        raise HftoolError(f"cannot read {path}: {error.strerror or error}") from None
    except pa.ArrowException as error:
        raise HftoolError(f"cannot read {path}: {error}") from None


def read_batches(file: Any, path: Path, names: tuple[str, ...]) -> Iterator[ArrowBatch]:
    """Yield the rows of a `pyarrow.parquet.ParquetFile` in batches, in constant memory.

    Args:
        names: what to call the columns, in the file's order.

    Raises:
        HftoolError: the file is damaged.
    """
    metadata = file.metadata
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    rows = max(1, min(BATCH_ROWS, BATCH_BYTES * metadata.num_rows // max(1, size)))
    try:
        for batch in file.iter_batches(batch_size=rows):
            yield ArrowBatch(batch.rename_columns(list(names)))
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these
        raise HftoolError(f"cannot read {path}: {error}") from None


def merged_schema(schemas: Sequence[Any], sources: Sequence[str]) -> Any:
    """Return the one `pyarrow.Schema` that files with the same columns can be cast to unchanged.

    Raises:
        HftoolError: a column has types that none holds together.
    """
    pa = pyarrow()
    merged = schemas[0]
    for schema, source in zip(schemas[1:], sources[1:], strict=True):
        for i, field in enumerate(merged):
            other = schema.field(field.name).type
            if other != field.type:
                merged = merged.set(i, field.with_type(_common_type(field, other, source, pa)))
    return merged


def _common_type(field: Any, other: Any, source: str, pa: Any) -> Any:
    try:
        fields = [pa.schema([(field.name, type_)]) for type_ in (field.type, other)]
        common = pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except pa.ArrowException:
        common = None
    # An integer of 64 bits may be none of a float64's values.
    wide = [t for t in (field.type, other) if pa.types.is_integer(t) and t.bit_width > 32]
    if common is None or (pa.types.is_floating(common) and wide):
        raise HftoolError(
            f"{source}: the column '{field.name}' is of type {other}, in another file {field.type}",
            "label files with different types one by one",
        )
    return common


def cast_rows(records: Iterator[tuple[int, Any]], schema: Any) -> Iterator[tuple[int, ArrowRow]]:
    """Yield rows (`ArrowRow`) with the columns of a schema, in its order and types."""
    before: ArrowBatch | None = None
    cast: ArrowBatch | None = None
    for number, row in records:
        if cast is None or row.batch is not before:
            before = row.batch
            cast = ArrowBatch(before.data.select(schema.names).cast(schema))
        yield number, ArrowRow(cast, row.index)

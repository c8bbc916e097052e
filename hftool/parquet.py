"""Parquet files, with the extra `hftool-cli[parquet]`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError, UsageError
from hftool.output.files import atomic_path
from hftool.output.formats import Row, View

ROW_GROUP = 16_384  # rows written at once
READ_ROWS = 1024  # at once
MOST_BYTES = 16_000_000  # of fewer rows, written or read
PAGES = 1 << 20  # bytes of each column read from the file at once


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise HftoolError(
            "Parquet needs pyarrow, which is not installed", "pip install 'hftool-cli[parquet]'"
        ) from None
    return pyarrow


def open_parquet(path: Path) -> Any:
    """A file to read (`pyarrow.parquet.ParquetFile`).

    Raises:
        HftoolError: it can't be read, is no Parquet, or pyarrow is not installed.
    """
    pyarrow = _pyarrow()
    try:
        path.open("rb").close()  # says in a word what pyarrow says in many
        # By default pyarrow keeps all of a file that it has read.
        return pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=PAGES)
    except OSError as error:
        raise HftoolError(f"cannot read {path}: {error.strerror or error}") from None
    except pyarrow.ArrowException as error:
        raise HftoolError(f"cannot read {path}: {error}") from None


def read_records(file: Any, path: Path) -> Iterator[Row]:
    """The records of a file (`pyarrow.parquet.ParquetFile`) by column, in constant memory.

    Raises:
        HftoolError: what it holds is broken, or has no counterpart in Python (a date past 9999).
    """
    known = file.metadata
    size = sum(known.row_group(i).total_byte_size for i in range(known.num_row_groups))
    rows = max(1, min(READ_ROWS, MOST_BYTES * known.num_rows // max(1, size)))
    try:
        for batch in file.iter_batches(batch_size=rows):
            yield from batch.to_pylist()
    except (OSError, ValueError, OverflowError) as error:  # pyarrow's own are of these
        raise HftoolError(f"cannot read {path}: {error}") from None


def write_parquet(rows: Iterable[Row], view: View, path: Path | None) -> None:
    """Write rows row group by row group, the file whole or not at all.

    Raises:
        UsageError: there is no file to write to, or the view has no schema.
        HftoolError: it can't be written, or a row does not fit the schema.
    """
    if path is None:
        raise UsageError("Parquet is written to a file, not to stdout", "name it with -o/--output")
    if view.schema is None:
        raise UsageError("this is not written as Parquet", "use another --format")
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
    """Rows in groups that are large enough for Parquet, and no larger than the memory should be."""
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(len(value) for value in row.values() if isinstance(value, str | bytes))
        if len(group) == ROW_GROUP or size > MOST_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def schema_of(rows: Sequence[Row], names: Sequence[str]) -> Any:
    """The schema (`pyarrow.Schema`) that fits these columns of rows.

    Raises:
        HftoolError: there is none, or pyarrow is not installed.
    """
    pyarrow = _pyarrow()
    try:
        return pyarrow.table({name: [row.get(name) for row in rows] for name in names}).schema
    except pyarrow.ArrowException as error:
        raise HftoolError(f"the columns are not alike in all records: {error}") from None


def judged_schema(
    group: Sequence[Row],
    names: Mapping[str, str],
    given: Any,
    labels: Sequence[str],
    *,
    all_scores: bool,
) -> Any:
    """The schema of `sentiment`'s records: the input's (`given`, where it was Parquet; else found
    from the first rows) under the `names` of the records, then the label and its scores."""
    pyarrow = _pyarrow()
    if given is None:
        given = schema_of(group, [*names.values()])
    null, text, number = pyarrow.null(), pyarrow.string(), pyarrow.float64()
    kept = [
        field.with_name(name).with_type(text if field.type == null else field.type)
        for field, name in zip(given, names.values(), strict=True)
    ]
    each = [(label, number) for label in labels]
    scores = (
        [pyarrow.field(f"score_{label}", number) for label in labels]
        if all_scores
        else [pyarrow.field("scores", pyarrow.struct(each))]
    )
    judged = [pyarrow.field("label", text), pyarrow.field("score", number), *scores]
    return pyarrow.schema([*kept, *judged], metadata=given.metadata)

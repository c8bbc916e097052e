"""Write Parquet files, with the extra `hftool-cli[parquet]`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hftool.atomic_files import atomic_path
from hftool.errors import HftoolError, UsageError
from hftool.output.view import Row, View

ROW_GROUP = 16_384  # rows written at once
MOST_BYTES = 16_000_000  # of fewer rows, written or read


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise HftoolError(
            "Parquet needs pyarrow, which is not installed", "pip install 'hftool-cli[parquet]'"
        ) from None
    return pyarrow


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

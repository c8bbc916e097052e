"""Open a table of any format, and merge the shapes of several."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, zip_longest
from pathlib import Path

from hftool.arrow import ColumnType, ColumnTypes, pyarrow
from hftool.errors import HftoolError, UsageError
from hftool.inputs.columns import unique_names
from hftool.inputs.delimited import Dialect, layout_of, require_header
from hftool.inputs.delimited_table import delimited_records, header_of
from hftool.inputs.json_table import json_file_records
from hftool.inputs.records import NumberedRecords, Records, Shape, lines_shape
from hftool.inputs.streams import STDIN, open_stream, require_data
from hftool.inputs.texts import HEAD_LINES
from hftool.options.inputs import InputFormat, TableInputOptions


def open_shape(file: Path, format_: InputFormat, options: TableInputOptions) -> Shape:
    """Return what all records of a file have in common.

    Raises:
        HftoolError: the file can't be read.
    """
    if format_ == "lines":
        return lines_shape()
    return open_records(file, format_, options).shape


def open_records(
    file: Path | None, format_: InputFormat, options: TableInputOptions, *, whole: bool = False
) -> Records:
    """Open a table of one format, and read what all its records have in common.

    Args:
        whole: as in `read_table`.

    Raises:
        HftoolError: the file can't be read.
    """
    if format_ == "parquet":
        return _parquet(file)
    if format_ == "xlsx":
        return _workbook(file, options)
    if format_ in ("json", "jsonl"):
        return json_file_records(file, format_, options, whole=whole)
    return delimited_records(file, options, tsv=format_ == "tsv")


def merged_shape(shapes: Sequence[Shape], sources: Sequence[str], format_: InputFormat) -> Shape:
    """Return the shape of several files of one format.

    Raises:
        HftoolError: the files have different columns, or types that no column can hold.
    """
    first = shapes[0]
    filled = [(shape, source) for shape, source in zip(shapes, sources, strict=True) if shape.names]
    if not filled:
        return first
    first = filled[0][0]
    if format_ in ("json", "jsonl"):
        types = ColumnTypes()
        for shape in shapes:
            types.merge(shape.types or ColumnTypes())
        return replace(first, header=(*types,), names=(*types,), types=types, schema=types.schema)
    for shape, source in filled:
        if {*shape.names} != {*first.names}:
            names, others = ", ".join(shape.names), ", ".join(first.names)
            raise HftoolError(
                f"{source}: its columns are {names}; those of the first file are {others}"
            )
    if format_ == "xlsx":
        types = ColumnTypes()
        for shape in shapes:
            types.merge(shape.types or ColumnTypes())
        return replace(first, types=types, schema=types.schema)
    if format_ == "parquet":
        from hftool.inputs.parquet import merged_schema

        schema = merged_schema([shape.schema() for shape, _ in filled], [s for _, s in filled])
        return replace(first, schema=lambda: schema)
    return first


def _workbook(file: Path | None, options: TableInputOptions) -> Records:
    """Return the records of a workbook's first sheet, which is read twice: first for the types."""
    from hftool.inputs.spreadsheet import read_cells, report_unread

    path = _required_file(file, "an Excel workbook")
    report_unread(path)
    first = [
        [None if cell is None else str(cell) for cell in row]
        for _, row in islice(read_cells(path), HEAD_LINES)
    ]
    layout = layout_of(first, Dialect("\t"), options)
    require_header(layout, options, str(path))
    header = header_of(layout)
    names = unique_names(header)

    def records() -> NumberedRecords:
        rows = islice(read_cells(path), layout.skipped + layout.named + layout.below, None)
        for number, cells in rows:
            if len(cells) > len(names):
                cause = f"{len(cells)} cells, where the header has {len(names)}"
                yield number, HftoolError(cause)
                continue
            values = [None if cell == options.null else cell for cell in cells]
            yield number, dict(zip_longest(names, values))

    types = ColumnTypes()
    for number, record in records():
        if not isinstance(record, HftoolError):
            types.add(record, f"{path.name}: row {number}")
    for name in names:
        types.setdefault(name, ColumnType())
    ordered = ColumnTypes({name: types[name] for name in names})
    recognised = layout.named and options.header is None
    shape = Shape(header, names, ordered.schema, ordered, recognised=recognised)
    return Records(shape, records(), "row")


def _parquet(file: Path | None) -> Records:
    from hftool.inputs.parquet import open_parquet, read_batches

    path = _required_file(file, "Parquet")
    opened = open_parquet(path)
    schema = opened.schema_arrow
    header = tuple(schema.names)
    names = unique_names(header)
    batches = read_batches(opened, path, names)
    rows = enumerate((row for batch in batches for row in batch.rows()), 1)
    fields = [field.with_name(name) for field, name in zip(schema, names, strict=True)]
    return Records(
        Shape(header, names, lambda: pyarrow().schema(fields, metadata=schema.metadata)),
        rows,
        "row",
    )


def _required_file(file: Path | None, what: str) -> Path:
    if file is None or file == STDIN:
        raise UsageError(f"{what} is read from a file, not from stdin", "name it with -f/--file")
    with open_stream(file) as stream:
        require_data(stream.peek(), str(file))
    return file

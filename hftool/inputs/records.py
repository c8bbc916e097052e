"""The records of CSV, TSV, JSON, Parquet and Excel files, and what all those of a file share."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

from hftool.arrow import ColumnType, ColumnTypes, pyarrow
from hftool.errors import HftoolError, UsageError
from hftool.inputs.columns import TEXT, is_path, is_text_name, unique_names
from hftool.inputs.delimited import (
    Dialect,
    Layout,
    Row,
    fits,
    is_blank,
    layout_of,
    read_rows,
    recognise,
    require_header,
    separator_line,
)
from hftool.inputs.json_records import is_array, json_lines, json_values
from hftool.inputs.streams import STDIN, is_live, open_stream, require_data, source_name
from hftool.inputs.texts import HEAD_LINES, LineSource, require_data_lines
from hftool.options.inputs import InputFormat, TableInputOptions
from hftool.tsv import NULL

log = logging.getLogger("hftool")

OPEN_ENDED = "Open-Ended Response"  # below a question, in a second header of SurveyMonkey

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


def delimited_records(
    file: Path | None, options: TableInputOptions, *, tsv: bool, source: LineSource | None = None
) -> Records:
    source = source or LineSource(file, options)
    head, complete = source.head(least=2)
    require_data_lines(head, source.name)
    lines = iter(source)
    before = 0
    if head and (delimiter := separator_line(head[0])):
        next(lines)
        head, before = head[1:], 1
        options = replace(options, delimiter=options.delimiter or delimiter)
    layout = recognise(head, options, complete=complete, tsv=tsv, name=source.name)
    rows = ((n + before, row) for n, row in read_rows(lines, layout.dialect, source.name))
    header = _header(layout)
    names = unique_names(header)
    escaped = layout.dialect.quoting == "escapes"
    nulls = {"tsv": NULL} if escaped else {}
    if options.null is not None:
        nulls = {"csv": options.null, "tsv": options.null}
    shape = Shape(
        header,
        names,
        lambda: pyarrow().schema([(name, pyarrow().string()) for name in names]),
        nulls=nulls,
        encoding=source.encoding,
        marked=source.marked,
        recognised=layout.named and options.header is None,
    )
    return Records(shape, _records_under_header(rows, layout, names, options.null, source.name))


def _header(layout: Layout) -> tuple[str, ...]:
    """Return the names of the columns; those without names are numbered, but a single one holds the
    texts."""
    if layout.named:
        return layout.header
    width = len(layout.header)
    return (TEXT,) if width == 1 else tuple(f"column_{i}" for i in range(1, width + 1))


def _records_under_header(
    rows: Iterator[tuple[int, Row]],
    layout: Layout,
    names: Sequence[str],
    null: str | None,
    source: str,
) -> NumberedRecords:
    """Yield the records in numbered rows of cells, after those before the header and the header."""
    width, skip, first = len(names), layout.skipped + layout.named, layout.named
    for number, cells in rows:
        if is_blank(cells) and (width > 1 or skip):
            continue
        if skip:
            skip -= 1
            if skip >= layout.named:
                log.info("line %d of %s is before the header: '%s'", number, source, cells[0])
            continue
        if first and OPEN_ENDED in cells:
            log.info("line %d of %s has more names, as SurveyMonkey writes them", number, source)
            first = False
            continue
        first = False
        if not fits(cells, width):
            cause = f"expected {width} cell{'s' * (width != 1)} as in the header, got {len(cells)}"
            way = "a cell with a delimiter in it must be quoted; --delimiter names another one"
            yield number, HftoolError(cause, way)
            continue
        if layout.named and width > 1 and cells == [*layout.header]:
            log.warning("line %d of %s is the header again; -f can be repeated", number, source)
        if null is not None:
            cells = [None if cell == null else cell for cell in cells]
        yield number, dict(zip(names, cells, strict=False))


def json_file_records(
    file: Path | None,
    format_: InputFormat,
    options: TableInputOptions,
    *,
    whole: bool,
    source: LineSource | None = None,
) -> Records:
    if whole and is_live(file):
        return _json_of_copy(file, format_, options)
    source = source or LineSource(file, options)
    records, unit = _json_records(source, format_, options)
    types, short_name = ColumnTypes(), Path(source.name).name
    if is_live(file):
        begun: list[tuple[int, Columns | HftoolError]] = []
        for number, record in records:
            begun.append((number, record))
            if not isinstance(record, HftoolError):
                types.add(record, f"{short_name}: {unit} {number}")
                break
        records = chain(begun, records)
    else:
        for number, record in records:
            if not isinstance(record, HftoolError):
                types.add(record, f"{short_name}: {unit} {number}")
        # The encoding that was recognised is logged only once.
        known = replace(options, encoding=source.encoding or options.encoding)
        records, _ = _json_records(LineSource(file, known, source.name), format_, options)
    names = tuple(types)
    shape = Shape(names, names, types.schema, types, encoding=source.encoding)
    return Records(shape, records, unit)


def _json_records(
    source: LineSource, format_: InputFormat, options: TableInputOptions
) -> tuple[NumberedRecords, str]:
    """Return the records of a file, and what their numbers count."""
    head, _ = source.head(least=1)
    require_data_lines(head, source.name)
    if format_ == "json" or is_array(head):
        records = json_values(source, options.errors, source.name)
        return _require_bare(records, options, source.name), "record"
    return json_lines(source, options.errors), "line"


def _require_bare(
    records: NumberedRecords, options: TableInputOptions, name: str
) -> NumberedRecords:
    """Yield the same records, but raise where the only one is an object around the records.

    Raises:
        HftoolError: with the way to take them out.
    """
    first = next(records, None)
    if first is None:
        return
    key = _wrapping_key(first[1], options)
    second = next(records, None) if key is not None else None
    if key is not None and second is None:
        raise HftoolError(
            f"{name} is one object, with the records in its '{key}'",
            f"take them out: jq '.\"{key}\"' FILE | hftool … -f - --input-format json",
        )
    yield first
    if second is not None:
        yield second
    yield from records


def _wrapping_key(record: Columns | HftoolError, options: TableInputOptions) -> str | None:
    """Return the key under which an object without a text has a list of objects."""
    if isinstance(record, HftoolError):
        return None
    asked = options.column
    if any(is_text_name(key) or key == asked for key in record):
        return None
    if asked is not None and is_path([*record], asked):
        return None
    lists = ((key, value) for key, value in record.items() if isinstance(value, list))
    return next((key for key, value in lists if value and isinstance(value[0], dict)), None)


def _json_of_copy(file: Path | None, format_: InputFormat, options: TableInputOptions) -> Records:
    """Copy stdin to a file, so that it can be read twice; the file is removed after that."""
    copy = tempfile.NamedTemporaryFile(prefix="hftool-")
    with open_stream(file) as stream:
        shutil.copyfileobj(stream, copy)
    copy.flush()
    path = Path(copy.name)
    source = LineSource(path, options, source_name(file))
    records = json_file_records(path, format_, options, whole=False, source=source)

    def kept() -> NumberedRecords:
        with copy:
            yield from records.records

    return replace(records, records=kept())


def _workbook(file: Path | None, options: TableInputOptions) -> Records:
    from hftool.inputs.spreadsheet import read_cells

    path = _required_file(file, "an Excel workbook")
    first = [
        [None if cell is None else str(cell) for cell in row]
        for _, row in islice(read_cells(path), HEAD_LINES)
    ]
    layout = layout_of(first, Dialect("\t"), options)
    require_header(layout, options, str(path))
    header = _header(layout)
    names = unique_names(header)

    def records() -> NumberedRecords:
        rows = islice(read_cells(path), layout.skipped + layout.named, None)
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

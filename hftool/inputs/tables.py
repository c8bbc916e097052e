"""Texts with the columns they came with, from lines, CSV, TSV, JSON, Parquet and Excel."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from hftool.errors import HftoolError, UsageError
from hftool.inputs.columns import MISSING, TEXT, is_path, is_text_name, text_column, value_in
from hftool.inputs.delimited import looks_like_table
from hftool.inputs.delimited_table import delimited_records
from hftool.inputs.files import format_by_suffix, input_files, is_table_name, one_format
from hftool.inputs.json_records import begins_with_record, kind
from hftool.inputs.json_table import json_file_records
from hftool.inputs.other_kinds import PRINTED, is_fixed_width, text_kind
from hftool.inputs.records import Columns, Records, Shape, lines_shape
from hftool.inputs.spreadsheet import ERRORS
from hftool.inputs.streams import STDIN, is_live, source_name
from hftool.inputs.table_files import merged_shape, open_records
from hftool.inputs.texts import LineSource, each_argument, require_data_lines
from hftool.options.inputs import InputFormat, TableInputOptions

log = logging.getLogger("hftool")

LOOKED_AT = 10  # lines of plain text that must not look like a table


@dataclass(frozen=True, slots=True)
class TextRow:
    """A text, and all columns of its record by name, including the text's own.

    Attributes:
        place: where it comes from, as in errors ("reviews.csv: line 3"); "" for a lone argument.
        error: why the record has no usable text, None if it has one. Rows after it can be read.
    """

    text: str
    columns: Columns
    place: str = ""
    error: HftoolError | None = None

    def located(self, error: HftoolError, hint: str | None = None) -> HftoolError:
        """Return an error with the row's place, and the hint if the error has none."""
        message = f"{self.place}: {error.message}" if self.place else error.message
        return HftoolError(message, error.hint or hint)


@dataclass(frozen=True)
class TextTable:
    """A table's rows as they arrive.

    Attributes:
        shape: what all rows have in common.
        column: the name of the column that holds the text, or the text's path inside a column.
        rows: the rows, which can be read only once.
    """

    shape: Shape
    column: str
    rows: Iterator[TextRow]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns in order."""
        return self.shape.names

    def __iter__(self) -> Iterator[TextRow]:
        return self.rows


def read_table(
    arguments: Sequence[str] | None, options: TableInputOptions, *, whole: bool = False
) -> TextTable:
    """Read the arguments; else the lines of the files or of stdin, or the records of tables.

    Args:
        whole: whether the columns of JSON from stdin must be those of all records, so that stdin
            is read to its end first; otherwise they are those of the first record.

    Raises:
        UsageError: no text was given, or the options don't fit the input.
        HftoolError: the input can't be read or lacks the column, raised by the call itself; or a
            file is broken, raised by the rows when they get there.
    """
    if arguments:
        _require_texts(arguments, options)
        texts = each_argument(arguments)
        places = [f"text {number}" for number in range(1, len(texts) + 1)] if texts[1:] else [""]
        rows = (TextRow(text, {TEXT: text}, at) for text, at in zip(texts, places, strict=True))
        return TextTable(lines_shape(), TEXT, rows)
    files: list[Path | None] = [*input_files(options.files or [], options.input_format)] or [None]
    if files[0] in (None, STDIN) and options.input_format is None and _needs_table(options):
        return _table_of_stdin(files[0], options, whole=whole)
    format_ = _format(files, options)
    if format_ == "lines":
        return TextTable(lines_shape(), TEXT, chain.from_iterable(_line_rows(files, options)))
    if len(files) == 1:
        records = open_records(files[0], format_, options, whole=whole)
        column = shape_column(records.shape, options, source_name(files[0]))
        return TextTable(records.shape, column, _text_rows(records, column, files[0], options))
    shapes = [open_records(file, format_, options).shape for file in files]
    shape = merged_shape(shapes, [source_name(file) for file in files], format_)
    column = shape_column(shape, options, source_name(files[0]))
    known = [replace(options, encoding=each.encoding or options.encoding) for each in shapes]
    each_files = (
        text_rows(file, format_, inputs, shape, column)
        for file, inputs in zip(files, known, strict=True)
    )
    return TextTable(shape, column, chain.from_iterable(each_files))


def _require_texts(arguments: Sequence[str], options: TableInputOptions) -> None:
    """Raise where the arguments are not meant as texts.

    Raises:
        UsageError: with the way to say what is meant.
    """
    if options.files:
        raise UsageError("a text was given twice: as an argument and with --file")
    for option in ("column", "input_format", "delimiter", "header", "null"):
        if getattr(options, option) is not None:
            name = {"header": "--header", "input_format": "--input-format"}.get(option)
            raise UsageError(
                f"{name or '--' + option} needs a table, but the input is arguments",
                "name a file with -f, as in -f reviews.csv",
            )
    for argument in arguments:
        if is_table_name(argument):
            raise UsageError(
                f"'{argument}' is the name of a file, not a text",
                f"-f '{argument}' reads the file; to label the name itself, pipe it into stdin",
            )
        if " " not in argument and format_by_suffix(Path(argument)) != "lines":
            log.warning("'%s' is taken for a text; there is no file of this name", argument)


def _needs_table(options: TableInputOptions) -> bool:
    given = (options.column, options.delimiter, options.header, options.null)
    return any(value is not None for value in given)


def _table_of_stdin(file: Path | None, options: TableInputOptions, *, whole: bool) -> TextTable:
    """Read stdin as JSON Lines or as CSV, whichever it looks like."""
    source = LineSource(file, options)
    head, _ = source.head(least=1)
    if begins_with_record(head):
        records = json_file_records(file, "jsonl", options, whole=whole, source=source)
    else:
        records = delimited_records(file, options, tsv=False, source=source)
    column = shape_column(records.shape, options, source.name)
    return TextTable(records.shape, column, _text_rows(records, column, file, options))


def _format(files: Sequence[Path | None], options: TableInputOptions) -> InputFormat:
    """Return the format of the input. Where neither its name nor its first bytes say it, and an
    option needs a table, it is JSON Lines or CSV.

    Raises:
        UsageError: the files have several formats, or are plain lines where a table is needed.
    """
    named = [file for file in files if file is not None and file != STDIN]
    format_ = one_format(named, options.input_format) if named else options.input_format or "lines"
    if format_ != "lines" or not _needs_table(options):
        return format_
    if options.input_format == "lines":
        raise UsageError(
            "--column needs a table, but the input is plain lines",
            "leave out --input-format, or name another one",
        )
    head, _ = LineSource(named[0], options).head()
    return "jsonl" if begins_with_record(head) else "csv"


def _line_rows(
    files: Sequence[Path | None], options: TableInputOptions
) -> Iterator[Iterator[TextRow]]:
    """Return the rows of each file; the first is opened by the call itself."""
    sources = [LineSource(files[0], options)]
    if not is_live(files[0]):
        _require_plain_lines(sources[0].head()[0][:LOOKED_AT], sources[0].name, options)
    rest = (LineSource(file, options) for file in files[1:])
    return (_rows_of_lines(source, options) for source in chain(sources, rest))


def _rows_of_lines(source: LineSource, options: TableInputOptions) -> Iterator[TextRow]:
    seen, first = source.head()[0][:LOOKED_AT], ""
    _require_plain_lines(seen, source.name, options)
    for number, line in enumerate(source, 1):
        if len(seen) < number <= LOOKED_AT:
            seen.append(line)
            _require_plain_lines(seen, source.name, options)
        text = line.removesuffix("\n").removesuffix("\r")
        if number == 2 and is_text_name(first) and options.input_format is None:
            way = "--input-format csv reads it so"
            log.warning("line 1 of %s looks like the name of a column; %s", source.name, way)
        first = text if number == 1 else first
        yield TextRow(text, {TEXT: text}, f"{source.name}: line {number}")


def _require_plain_lines(head: Sequence[str], name: str, options: TableInputOptions) -> None:
    """Raise where lines look like a table, whose header and other columns nobody wants labelled."""
    if options.input_format == "lines":
        return
    require_data_lines(head, name)
    if other := text_kind(head):
        found, way = other, "save it as CSV or JSON Lines"
    elif begins_with_record(head):
        found, way = "JSON", "--input-format json reads it so"
    elif layout := looks_like_table(head, options, complete=False):
        names = ", ".join(f"'{cell}'" for cell in layout.header[:5])
        found, way = f"a table with the columns {names}", "--input-format csv reads it so"
    elif is_fixed_width(head):
        found, way = PRINTED, "save it as CSV or JSON Lines"
    else:
        return
    raise HftoolError(
        f"{name} looks like {found}, not like a text on each line",
        f"{way}; --input-format lines labels each line",
    )


def shape_column(shape: Shape, options: TableInputOptions, source: str) -> str:
    """Return the name of the column with the texts, as `text_column`, or their path inside it."""
    header, asked = shape.header, options.column
    if not shape.names:
        return asked or TEXT
    if asked is not None and is_path(shape.names, asked):
        return asked
    return shape.names[text_column(header, asked, source, recognised=shape.recognised)]


def text_rows(
    file: Path | None, format_: InputFormat, options: TableInputOptions, shape: Shape, column: str
) -> Iterator[TextRow]:
    """Yield the rows of one of several files, with the types that the columns have in all."""
    if format_ == "lines":
        yield from _rows_of_lines(LineSource(file, options), options)
        return
    records = open_records(file, format_, options)
    if format_ == "parquet":
        from hftool.inputs.parquet import cast_rows

        records = replace(records, records=cast_rows(records.records, shape.schema()))
    yield from _text_rows(records, column, file, options)


def _text_rows(
    records: Records, column: str, file: Path | None, options: TableInputOptions
) -> Iterator[TextRow]:
    """Yield a row for each numbered record; a missing value is an empty text."""
    for number, record in records.records:
        place = f"{source_name(file)}: {records.unit} {number}"
        if isinstance(record, HftoolError):
            yield TextRow("", {}, place, record)
            continue
        found = value_in(record, column)
        is_cell = records.unit == "row" and records.shape.types  # of a workbook: "10" is a number
        if isinstance(found, bytes):  # Impala and old versions of Spark write texts so
            found = _text_of_bytes(found, options)
        elif is_cell and isinstance(found, int | float):
            found = str(found)
        elif is_cell and found in ERRORS and found != options.null:
            way = f"--null '{found}' reads it as a missing value"
            found = HftoolError(f"'{column}' has the error {found}", way)
        if isinstance(found, str | None):
            yield TextRow(found if found and found != options.null else "", record, place)
            continue
        if not isinstance(found, HftoolError):
            cause = "is missing" if found is MISSING else f"is {kind(found)}, not text"
            found = HftoolError(f"'{column}' {cause}", _way_inside(column, found))
        yield TextRow("", record, place, found)


def _way_inside(column: str, value: object) -> str | None:
    """Return a hint at a text inside an object, None if there is none."""
    texts = value.items() if isinstance(value, dict) else ()
    key = next((key for key, item in texts if isinstance(item, str)), None)
    return None if key is None else f"a text inside it: --column {column}.{key}"


def _text_of_bytes(data: bytes, options: TableInputOptions) -> str | HftoolError:
    encoding = options.encoding or "utf-8"
    try:
        return data.decode(encoding, options.errors)
    except UnicodeDecodeError as error:
        return HftoolError(
            f"byte {error.start + 1} of the text is not {encoding}",
            "name the encoding with --encoding, or use --errors replace",
        )

"""Texts with the columns they came with, from lines, CSV, TSV, JSON Lines and Parquet."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError, UsageError
from hftool.inputs.texts import STDIN, decoded_lines, each_text, source_name
from hftool.options.inputs import InputFormat, TableInputOptions
from hftool.tsv import LONGEST_CELL, tsv_cells

SUFFIXES: dict[str, InputFormat] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
TEXT = "text"  # the column that is read where no other is named
MISSING = object()

Columns = Mapping[str, Any]


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
        names: the columns in order; in JSON Lines those of the first record.
        column: the column that holds the text.
        rows: the rows, which can be read only once.
        schema: a Parquet file's schema (`pyarrow.Schema`), None for other formats.
    """

    names: tuple[str, ...]
    column: str
    rows: Iterator[TextRow]
    schema: Any = None

    def __iter__(self) -> Iterator[TextRow]:
        return self.rows


def read_table(arguments: Sequence[str] | None, options: TableInputOptions) -> TextTable:
    """Read the arguments; else the lines of the file or of stdin, or the records of a table.

    Raises:
        UsageError: no text was given, or the options don't fit the input.
        HftoolError: the input can't be read or lacks the column, raised by the call itself; or a
            file is broken, raised by the rows when they get there.
    """
    name = options.input_format or format_by_suffix(options.file)
    if arguments or name == "lines":
        _require_no_table_options(arguments, options)
        rows = (
            TextRow(text, {TEXT: text}, _place(number, arguments, options))
            for number, text in enumerate(each_text(arguments, options), 1)
        )
        return TextTable((TEXT,), TEXT, rows)
    if name == "parquet":
        return _parquet_table(options)
    names, records = _READERS[name](options)
    column = _text_column(names, options)
    return TextTable(names, column, _text_rows(records, column, options))


def _place(number: int, arguments: Sequence[str] | None, options: TableInputOptions) -> str:
    if arguments:
        return f"text {number}" if len(arguments) > 1 else ""
    return f"{source_name(options)}: line {number}"


def format_by_suffix(file: Path | None) -> InputFormat:
    """Return the format that a file's suffix names; "lines" where it names none."""
    return "lines" if file is None else SUFFIXES.get(file.suffix.lower(), "lines")


def _require_no_table_options(arguments: Sequence[str] | None, options: TableInputOptions) -> None:
    if options.column is None and not (arguments and options.input_format):
        return
    option = "--column" if options.column is not None else "--input-format"
    given = "arguments" if arguments else "plain lines"
    raise UsageError(
        f"{option} needs a table, but the input is {given}",
        "give a file such as -f reviews.csv, or name the format: --input-format csv",
    )


def _text_column(names: Sequence[str], options: TableInputOptions) -> str:
    """Return the column of `--column`, else the only column, else `text`.

    Raises:
        HftoolError: the table has columns, but not this one.
    """
    if not names:
        return options.column or TEXT
    column = options.column or (names[0] if len(names) == 1 else TEXT)
    if column not in names:
        raise HftoolError(
            f"{source_name(options)}: no column '{column}'; the columns are {', '.join(names)}",
            "choose the column that holds the texts with --column",
        )
    return column


def _text_rows(
    records: "Iterable[NumberedRecord]",
    column: str,
    options: TableInputOptions,
    unit: str = "line",
) -> Iterator[TextRow]:
    """Yield a row for each numbered record; a null is an empty text."""
    source = source_name(options)
    for number, record in records:
        place = f"{source}: {unit} {number}"
        if isinstance(record, HftoolError):
            yield TextRow("", {}, place, record)
            continue
        text = record.get(column, MISSING)
        if not isinstance(text, str | None):
            cause = "is missing" if text is MISSING else f"is {_kind(text)}, not text"
            yield TextRow("", record, place, HftoolError(f"'{column}' {cause}"))
            continue
        yield TextRow(text or "", record, place)


def _kind(value: Any) -> str:
    name = type(value).__name__
    numbers = dict.fromkeys(("int", "float", "Decimal"), "a number")
    kinds = {"NoneType": "null", "dict": "an object", "list": "a list", "bool": "a boolean"}
    return (kinds | numbers).get(name, f"of type {name}")


def _broken(options: TableInputOptions, line: int, cause: str) -> HftoolError:
    return HftoolError(f"{source_name(options)}: line {line}: {cause}")


# A record or why it can't be read, with the number of its line.
NumberedRecord = tuple[int, Columns | HftoolError]
# The names of the columns, and the records.
NumberedRecords = tuple[tuple[str, ...], Iterator[NumberedRecord]]


def _csv_records(options: TableInputOptions) -> NumberedRecords:
    csv.field_size_limit(LONGEST_CELL)
    # Strict: otherwise a quote that is never closed makes one text of the rest of the file.
    reader = csv.reader(decoded_lines(options), strict=True)

    def cells() -> Iterator[tuple[int, list[str]]]:
        try:
            yield from ((reader.line_num, row) for row in reader if row)
        except csv.Error as error:
            raise _broken(options, reader.line_num, f"not valid CSV: {error}") from None

    return _records_under_header(cells(), options)


def _tsv_records(options: TableInputOptions) -> NumberedRecords:
    rows = (
        (number, tsv_cells(line.removesuffix("\n").removesuffix("\r")))
        for number, line in enumerate(decoded_lines(options), 1)
    )
    return _records_under_header(rows, options)


def _records_under_header(
    rows: Iterator[tuple[int, list[str]]], options: TableInputOptions
) -> NumberedRecords:
    """Return the records in numbered rows of cells, the first of which names the columns."""
    _, names = next(rows, (0, []))
    _require_distinct(names, options)

    def records() -> Iterator[NumberedRecord]:
        for number, cells in rows:
            if len(cells) == len(names):
                yield number, dict(zip(names, cells, strict=True))
            else:
                cause = f"expected {len(names)} cells as in the header, got {len(cells)}"
                yield number, HftoolError(cause)

    return tuple(names), records()


def _json_records(options: TableInputOptions) -> NumberedRecords:
    def records() -> Iterator[NumberedRecord]:
        for number, line in enumerate(decoded_lines(options), 1):
            if not line.isspace():
                yield number, _json_object(line)

    rest = records()
    begun: list[NumberedRecord] = []
    for number, record in rest:
        begun.append((number, record))
        if not isinstance(record, HftoolError):
            return tuple(record), chain(begun, rest)
    return (), iter(begun)


def _json_object(line: str) -> Columns | HftoolError:
    try:
        record = json.loads(line.rstrip())
        if "\\ud" in line.lower():  # perhaps half a surrogate pair, which can't be written as UTF-8
            json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return HftoolError("half a surrogate pair is not a character")
    except json.JSONDecodeError as error:
        return HftoolError(f"not valid JSON: {error.msg} (character {error.colno})")
    except (ValueError, RecursionError) as error:
        return HftoolError(f"not valid JSON: {error}")
    if not isinstance(record, dict):
        return HftoolError(f"the record is {_kind(record)}, not a JSON object")
    return record


def _require_distinct(names: Sequence[str], options: TableInputOptions) -> None:
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise HftoolError(f"{source_name(options)}: the column '{repeated}' is named twice")


_READERS: dict[str, Callable[[TableInputOptions], NumberedRecords]] = {
    "csv": _csv_records,
    "tsv": _tsv_records,
    "jsonl": _json_records,
}


def _parquet_table(options: TableInputOptions) -> TextTable:
    from hftool.inputs.parquet import open_parquet, read_records

    if options.file is None or options.file == STDIN:
        raise UsageError("Parquet is read from a file, not from stdin", "name it with -f/--file")
    file = open_parquet(options.file)
    schema = file.schema_arrow
    _require_distinct(schema.names, options)
    column = _text_column(schema.names, options)
    records = enumerate(read_records(file, options.file), 1)
    rows = _text_rows(records, column, options, "row")
    return TextTable(tuple(schema.names), column, rows, schema)

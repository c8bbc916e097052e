"""Texts with the columns they came with, out of lines, CSV, TSV, JSON Lines and Parquet."""

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
TEXT = "text"
MISSING = object()

Columns = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TextRow:
    """A text, and its record's columns by name, the text's own among them."""

    text: str
    columns: Columns


@dataclass(frozen=True)
class TextTable:
    """Rows as they arrive. `names` are the columns in order (of the first record, in JSON Lines),
    `column` the one that holds the text, `schema` that of a Parquet file (pyarrow)."""

    names: tuple[str, ...]
    column: str
    rows: Iterator[TextRow]
    schema: Any = None

    def __iter__(self) -> Iterator[TextRow]:
        return self.rows


def read_table(arguments: Sequence[str] | None, options: TableInputOptions) -> TextTable:
    """Each argument; else each line of the file or of stdin, or each record of a table.

    Raises:
        UsageError: no text was given, or options that don't fit the input.
        HftoolError: the input can't be read or has no such column, at once; a broken record, where
            it stands.
    """
    name = options.input_format or format_by_suffix(options.file)
    if arguments or name == "lines":
        if options.column is not None or (arguments and options.input_format):
            option = "--column" if options.column is not None else "--input-format"
            raise UsageError(f"{option}: there is no table in arguments and lines")
        return TextTable(
            (TEXT,), TEXT, (TextRow(t, {TEXT: t}) for t in each_text(arguments, options))
        )
    if name == "parquet":
        return _parquet_rows(options)
    names, records = _READERS[name](options)
    column = _text_column(names, options)
    return TextTable(names, column, _rows(records, column, options))


def format_by_suffix(file: Path | None) -> InputFormat:
    """The format a file's name tells; lines where it tells none."""
    return "lines" if file is None else SUFFIXES.get(file.suffix.lower(), "lines")


def _text_column(names: Sequence[str], options: TableInputOptions) -> str:
    """The column asked for, else `text`, else the only one there is; of no columns none."""
    if not names:
        return options.column or TEXT
    wanted = options.column or (names[0] if len(names) == 1 else TEXT)
    if wanted not in names:
        raise HftoolError(
            f"{source_name(options)}: no column '{wanted}': there are {', '.join(names)}",
            "--column names the one with the texts",
        )
    return wanted


def _rows(
    records: Iterable[tuple[int, Columns]],
    column: str,
    options: TableInputOptions,
    unit: str = "line",
) -> Iterator[TextRow]:
    """A null is a text without characters."""
    for number, record in records:
        text = record.get(column, MISSING)
        if not isinstance(text, str | None):
            found = "is missing" if text is MISSING else f"is no text but {_kind(text)}"
            raise HftoolError(f"{source_name(options)}: {unit} {number}: '{column}' {found}")
        yield TextRow(text or "", record)


def _kind(value: Any) -> str:
    name = type(value).__name__
    numbers = dict.fromkeys(("int", "float", "Decimal"), "a number")
    kinds = {"NoneType": "null", "dict": "an object", "list": "a list", "bool": "a boolean"}
    return (kinds | numbers).get(name, f"of the type {name}")


def _broken(options: TableInputOptions, line: int, cause: str) -> HftoolError:
    return HftoolError(f"{source_name(options)}: line {line}: {cause}")


Records = tuple[tuple[str, ...], Iterator[tuple[int, Columns]]]  # names; line number and record


def _csv_records(options: TableInputOptions) -> Records:
    csv.field_size_limit(LONGEST_CELL)
    # Strict: a quote that is never closed would make one text of all that follows it.
    reader = csv.reader(decoded_lines(options), strict=True)

    def cells() -> Iterator[tuple[int, list[str]]]:
        try:
            yield from ((reader.line_num, row) for row in reader if row)
        except csv.Error as error:
            raise _broken(options, reader.line_num, f"no CSV: {error}") from None

    return _headed(cells(), options)


def _tsv_records(options: TableInputOptions) -> Records:
    lines = enumerate(decoded_lines(options), 1)
    return _headed(
        ((number, tsv_cells(line.removesuffix("\n").removesuffix("\r"))) for number, line in lines),
        options,
    )


def _headed(rows: Iterator[tuple[int, list[str]]], options: TableInputOptions) -> Records:
    """Records out of rows of cells, the first of which names the columns."""
    _, names = next(rows, (0, []))
    _require_once(names, options)

    def records() -> Iterator[tuple[int, Columns]]:
        for number, cells in rows:
            if len(cells) != len(names):
                cause = f"{len(cells)} cells, where the header names {len(names)} columns"
                raise _broken(options, number, cause)
            yield number, dict(zip(names, cells, strict=True))

    return tuple(names), records()


def _json_records(options: TableInputOptions) -> Records:
    def records() -> Iterator[tuple[int, Columns]]:
        for number, line in enumerate(decoded_lines(options), 1):
            if not line.isspace():
                yield number, _json_object(line, number, options)

    found = records()
    first = next(found, None)
    if first is None:
        return (), iter(())
    return tuple(first[1]), chain([first], found)


def _json_object(line: str, number: int, options: TableInputOptions) -> Columns:
    try:
        record = json.loads(line.rstrip())
        if "\\ud" in line.lower():
            json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _broken(options, number, "half a surrogate pair is no character") from None
    except json.JSONDecodeError as error:
        raise _broken(options, number, f"no JSON: {error.msg} (character {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise _broken(options, number, f"no JSON: {error}") from None
    if not isinstance(record, dict):
        raise _broken(options, number, f"no JSON object but {_kind(record)}")
    return record


def _require_once(names: Sequence[str], options: TableInputOptions) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise HftoolError(f"{source_name(options)}: the column '{twice}' is named twice")


_READERS: dict[str, Callable[[TableInputOptions], Records]] = {
    "csv": _csv_records,
    "tsv": _tsv_records,
    "jsonl": _json_records,
}


def _parquet_rows(options: TableInputOptions) -> TextTable:
    from hftool.inputs.parquet import open_parquet, read_records

    if options.file is None or options.file == STDIN:
        raise UsageError("Parquet is read from a file, not from stdin", "name it with -f/--file")
    file = open_parquet(options.file)
    schema = file.schema_arrow
    _require_once(schema.names, options)
    column = _text_column(schema.names, options)
    records = enumerate(read_records(file, options.file), 1)
    return TextTable(tuple(schema.names), column, _rows(records, column, options, "row"), schema)

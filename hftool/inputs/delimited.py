"""Rows of cells in CSV and TSV, whose separator, quoting and header are recognised."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

from hftool.errors import HftoolError, UsageError
from hftool.inputs.columns import is_name, is_usual_name
from hftool.options.inputs import TableInputOptions
from hftool.tsv import LONGEST_CELL, NULL, unescape_cell

DELIMITERS = (",", ";", "\t", "|")
PREAMBLE_ROWS = 10  # most rows of titles and comments before the header
NAMED_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
_SEPARATOR_LINE = re.compile(r'"?sep=(\\t|.)"?\r?\n?', re.IGNORECASE)  # Excel's first line
_NUMBER = re.compile(r"[-+]?[$€£¥]?\d[\d.,:/ -]*([eE][-+]?\d+)?%?([T ][\d:.]+Z?)?")

Quoting = Literal["doubled", "backslash", "escapes"]
Cell = str | None
Row = list[Cell]


@dataclass(frozen=True)
class Dialect:
    r"""How lines are divided into cells.

    Attributes:
        delimiter: what is between two cells.
        quoting: whether a quote inside a quoted cell is doubled (RFC 4180) or has a backslash
            before it (Spark, MySQL); or that nothing is quoted, and \t, \n, \r and \\ are escapes
            (PostgreSQL, MySQL, hftool).
        spaces: whether there is a space after each delimiter that belongs to no cell.
    """

    delimiter: str
    quoting: Quoting = "doubled"
    spaces: bool = False


@dataclass(frozen=True)
class Layout:
    """What was recognised of a table's first lines.

    Attributes:
        dialect: how its lines are divided.
        skipped: how many rows that are not blank come before the header, or the first record.
        header: the names of the columns; empty for an empty table.
        named: whether the header is a row of the table.
        rows: how many records were looked at.
        fit: the share of them that have as many cells as the header.
        usual: whether the header has a usual name, or names over numbers.
        valid: whether all of them could be read.
    """

    dialect: Dialect
    skipped: int = 0
    header: tuple[str, ...] = ()
    named: bool = True
    rows: int = 0
    fit: float = 0.0
    usual: bool = False
    valid: bool = True


@dataclass
class _Head:
    """The complete rows of a table's first lines, and whether all of them could be read."""

    rows: list[Row] = field(default_factory=list)
    valid: bool = True


def read_rows(lines: Iterable[str], dialect: Dialect, name: str) -> Iterator[tuple[int, Row]]:
    """Yield each row that is not an empty line, after the number of its last line.

    Raises:
        HftoolError: a quote is never closed, or text follows a quoted cell.
    """
    if dialect.quoting == "escapes":
        for number, line in enumerate(lines, 1):
            cells = line.removesuffix("\n").removesuffix("\r").split(dialect.delimiter)
            yield number, [None if cell == NULL else unescape_cell(cell) for cell in cells]
        return
    csv.field_size_limit(LONGEST_CELL)
    escape = "\\" if dialect.quoting == "backslash" else None
    pieces: Iterator[str] = chain.from_iterable(map(_split_at_returns, lines))
    if escape:
        pieces = (_only_meant_escapes(piece, dialect.delimiter) for piece in pieces)
    # Strict: otherwise a quote that is never closed makes one text of the rest of the file.
    reader = csv.reader(
        pieces,
        delimiter=dialect.delimiter,
        escapechar=escape,
        skipinitialspace=dialect.spaces,
        strict=True,
    )
    try:
        for row in reader:
            if row:
                yield reader.line_num, [None if escape and c == NULL else c for c in row]
    except csv.Error as error:
        raise HftoolError(
            f"{name}: line {reader.line_num}: not valid CSV: {error}",
            "a cell with a quote, a line break or a delimiter must be quoted, and each quote"
            " in it doubled",
        ) from None


def _split_at_returns(line: str) -> list[str]:
    """Divide a line at carriage returns without a line feed, as the csv module wants it."""
    if "\r" not in line[:-2]:
        return [line]
    return re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$", line)


def _only_meant_escapes(piece: str, delimiter: str) -> str:
    """Double the backslashes that escape nothing: the csv module drops each single one."""
    return re.sub(
        r"\\(.|\n|$)",
        lambda m: m[0] if m[1] and m[1] in f'\\"\r\n{delimiter}' else "\\\\" + m[1],
        piece,
        flags=re.DOTALL,
    )


def recognise(
    head: Sequence[str], options: TableInputOptions, *, complete: bool, tsv: bool, name: str
) -> Layout:
    """Return the layout that fits a table's first lines best.

    Args:
        head: the first lines, with their line breaks.
        complete: whether these are all lines of the table.
        tsv: whether the file's name or `--input-format` promises tabs.

    Raises:
        UsageError: `--delimiter` is not one character.
        HftoolError: the first row looks like a record, and `--header` does not decide.
    """
    candidates = _dialects("".join(head), options, tsv)
    layouts = [_layout(head, dialect, options, complete, name) for dialect in candidates]
    best = max(layouts, key=lambda layout: _rank(layout, layouts))
    require_header(best, options, name)
    return best


def require_header(layout: Layout, options: TableInputOptions, name: str) -> None:
    """Raise where the first row looks like a record, and no option says what it is.

    Raises:
        HftoolError: with the options that say it.
    """
    if options.header is None and layout.header and not layout.named:
        raise HftoolError(
            f"{name}: the first row looks like a record, not like the names of the columns",
            "add --no-header and choose the column by its number, as in --column 2;"
            " or --header if it does name them",
        )


def separator_line(line: str) -> str | None:
    """Return the delimiter that a line such as `sep=;` names, None for another line."""
    match = _SEPARATOR_LINE.fullmatch(line)
    return match and match[1].replace("\\t", "\t")


def looks_like_table(
    head: Sequence[str], options: TableInputOptions, complete: bool
) -> Layout | None:
    """Return the layout of lines that are a table beyond doubt, else None."""
    if head and separator_line(head[0]):
        return recognise(head[1:], options, complete=complete, tsv=False, name="")
    layouts = [
        layout
        for dialect in _dialects("".join(head), options, False)
        if (layout := _layout(head, dialect, options, complete, "")).rows
        and len(layout.header) > 1
        and layout.valid
        and layout.fit == 1
        and (layout.usual or dialect.delimiter == "\t")
    ]
    return max(layouts, key=lambda layout: _rank(layout, layouts), default=None)


def _dialects(text: str, options: TableInputOptions, tsv: bool) -> list[Dialect]:
    """Return the dialects that are worth trying, the most expected first."""
    delimiters: Sequence[str]
    if options.delimiter is not None:
        delimiter = NAMED_DELIMITERS.get(options.delimiter, options.delimiter)
        if len(delimiter) != 1 or delimiter in '"\r\n\\':
            raise UsageError(
                "--delimiter must be one character, or 'tab'", "for example --delimiter ';'"
            )
        delimiters = [delimiter]
    else:
        delimiters = sorted(DELIMITERS, key=lambda each: each != ("\t" if tsv else ","))
    dialects: list[Dialect] = []
    for delimiter in delimiters:
        escapes = tsv and delimiter == "\t"
        if not escapes or _has_quoted_cells(text, delimiter):
            dialects.append(Dialect(delimiter))
        if escapes:
            dialects.append(Dialect(delimiter, "escapes"))
        elif "\\" in text:
            dialects.append(Dialect(delimiter, "backslash"))
        if f'{delimiter} "' in text:
            dialects.append(Dialect(delimiter, spaces=True))
    return dialects


def _has_quoted_cells(text: str, delimiter: str) -> bool:
    """Return whether cells are quoted as Excel does it: those with a comma, a quote, a delimiter or
    a line break in them. A file with backslash escapes has no quotes around cells."""
    if re.search(r"\\[tnrN\\]", text):
        return False
    edge = re.escape(delimiter)
    cells = re.findall(rf'(?:^|(?<={edge}))"((?:[^"]|"")*)"(?={edge}|\r?$)', text, re.MULTILINE)
    first, _, _ = text.partition("\n")
    every = all(re.fullmatch(r'".*"\r?', cell) for cell in first.split(delimiter))
    return bool(cells) and (every or any(re.search(r'[,"\t\r\n]', cell) for cell in cells))


def _layout(
    head: Sequence[str], dialect: Dialect, options: TableInputOptions, complete: bool, name: str
) -> Layout:
    numbered = _read_head(head, dialect, complete, name)
    return layout_of(numbered.rows, dialect, options, valid=numbered.valid)


def layout_of(
    first: Sequence[Row], dialect: Dialect, options: TableInputOptions, *, valid: bool = True
) -> Layout:
    """Return where the header is in a table's first rows, and how well they fit it."""
    rows = [row for row in first if not is_blank(row)]
    if not rows:
        return Layout(dialect, valid=valid)
    start = _header_index(rows, options.column) if options.header is not False else 0
    header, records = [cell or "" for cell in rows[start]], rows[start + 1 :]
    fitting = sum(fits(row, len(header)) for row in records)
    return Layout(
        dialect,
        skipped=start,
        header=tuple(header),
        named=_has_names(header, records) if options.header is None else options.header,
        rows=len(records),
        fit=fitting / len(records) if records else 1.0,
        usual=_names_columns(header, records, options.column),
        valid=valid,
    )


def _header_index(rows: Sequence[Row], asked: str | None) -> int:
    """Return the index of the header: the first row with a usual name, if those before it have a
    title or a comment in their first cell and nothing else, or nothing at all; else 0."""
    for index, row in enumerate(rows[:PREAMBLE_ROWS]):
        if len(row) > 1 and any(is_name(cell or "", asked) for cell in row):
            return index
        if any(row) and (not row[0] or any(row[1:]) or is_usual_name(row[0])):
            break
    return 0


def _read_head(head: Sequence[str], dialect: Dialect, complete: bool, name: str) -> _Head:
    """Return the complete rows of the first lines."""
    numbered = _Head()
    try:
        for _, row in read_rows(head, dialect, name):
            numbered.rows.append(row)
    except HftoolError as error:
        # Inside a quoted cell the head may just end.
        numbered.valid = not complete and "unexpected end of data" in error.message
    return numbered


def _rank(layout: Layout, layouts: Sequence[Layout]) -> tuple[object, ...]:
    several = len(layout.header) > 1
    return (
        several and layout.fit >= 0.5,
        layout.valid,
        several and layout.usual,
        round(layout.fit, 2),
        several,
        -layout.skipped,
        -layouts.index(layout),
    )


def is_blank(row: Row) -> bool:
    """Return whether a row is a line with nothing but spaces, or DOS's mark of a file's end."""
    return len(row) == 1 and not (row[0] or "").strip(" \t\x1a")


def fits(row: Row, width: int) -> bool:
    """Return whether a row has a table's width, perhaps with empty cells after it."""
    return len(row) == width or (len(row) > width and not any(row[width:])) or is_blank(row)


def _names_columns(header: Sequence[str], records: Sequence[Row], asked: str | None) -> bool:
    """Return whether a row has a usual name in it, or names over columns of numbers."""
    if any(is_name(cell, asked) for cell in header):
        return True
    columns = _columns(records, len(header))
    return not any(map(_is_number, header)) and any(
        cell and _all_numbers(column) for cell, column in zip(header, columns, strict=True)
    )


def _has_names(header: Sequence[str], records: Sequence[Row]) -> bool:
    """Return whether a first row names the columns: False where it looks like the rows under it,
    with a number over numbers or a value that comes again."""
    if any(map(is_usual_name, header)):
        return True
    others = [row for row in records if row != list(header)]  # not a header that is repeated
    for cell, column in zip(header, _columns(others, len(header)), strict=True):
        if _is_number(cell) and _all_numbers(column):
            return False
        if cell and len(header) > 1 and Counter(column)[cell]:
            return False
    return True


def _columns(records: Sequence[Row], width: int) -> list[list[str]]:
    fitting = [row for row in records if len(row) >= width]
    return [[row[i] or "" for row in fitting] for i in range(width)]


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell.strip()) is not None


def _all_numbers(column: Sequence[str]) -> bool:
    filled = [cell for cell in column if cell.strip()]
    return bool(filled) and all(map(_is_number, filled))

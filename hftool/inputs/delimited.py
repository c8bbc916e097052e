"""Rows of cells in CSV and TSV, whose separator, quoting and header are recognised."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

from hftool.errors import HftoolError, UsageError
from hftool.inputs.columns import is_name, is_usual_name
from hftool.inputs.header_rows import has_names, header_doubt, names_columns, survey_rows
from hftool.options.inputs import TableInputOptions
from hftool.tsv import LONGEST_CELL, NULL, unescape_cell

DELIMITERS = (",", ";", "\t", "|")
PREAMBLE_ROWS = 10  # most rows of titles and comments before the header
NAMED_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
_SEPARATOR_LINE = re.compile(r'"?sep=(\\t|.)"?\r?\n?', re.IGNORECASE)  # Excel's first line
_ROW_COUNT = re.compile(r"\(?\d+ rows?( affected| selected\.)?\)?")

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
        below: how many rows below the header are more names, as survey tools write them.
        doubt: what makes it doubtful that the header names the columns, None if nothing does.
        rows: how many records were looked at.
        fit: the share of them that have as many cells as the header.
        usual: how surely the header names columns, as `names_columns`.
        valid: whether all of them could be read.
    """

    dialect: Dialect
    skipped: int = 0
    header: tuple[str, ...] = ()
    named: bool = True
    below: int = 0
    doubt: str | None = None
    rows: int = 0
    fit: float = 0.0
    usual: int = 0
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
    """Raise where it is doubtful which row is the header, and no option says it.

    Raises:
        HftoolError: with the options that say it.
    """
    if options.header is None and layout.header and not layout.named:
        raise HftoolError(
            f"{name}: the first row looks like a record, not like the names of the columns",
            "add --no-header and choose the column by its number, as in --column 2;"
            " or --header if it does name them",
        )
    if options.header is None and layout.doubt:
        raise HftoolError(
            f"{name}: {layout.doubt}",
            "leave one row with a name for each column; or --header if that is what it has",
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
        if tsv and delimiter == "\t":
            quoted = _has_quoted_cells(text, delimiter)
            if quoted or _has_plain_backslashes(text):
                dialects.append(Dialect(delimiter))
            if quoted and '\\"' in text:
                dialects.append(Dialect(delimiter, "backslash"))
            dialects.append(Dialect(delimiter, "escapes"))
            continue
        dialects.append(Dialect(delimiter))
        if "\\" in text:
            # After RFC 4180 a quote inside a cell follows another one.
            escaped = re.search(rf'\\"[^"\r\n{re.escape(delimiter)}]', text) is not None
            dialects.insert(len(dialects) - escaped, Dialect(delimiter, "backslash"))
        if f'{delimiter} "' in text:
            dialects.append(Dialect(delimiter, spaces=True))
    return dialects


def _has_quoted_cells(text: str, delimiter: str) -> bool:
    """Return whether cells are quoted as Excel does it: empty ones and those with a comma, a
    quote, a delimiter or a line break in them. A file with backslash escapes has no such cells."""
    edge = re.escape(delimiter)
    cells = re.findall(rf'(?:^|(?<={edge}))"((?:[^"]|"")*)"(?={edge}|\r?$)', text, re.MULTILINE)
    first, _, _ = text.partition("\n")
    if cells and all(re.fullmatch(r'".*"\r?', cell) for cell in first.split(delimiter)):
        return True
    signs = r'["\t\r\n]' if re.search(r"\\[tnrN\\]", text) else r'[,"\t\r\n]'
    return any(not cell or re.search(signs, cell) for cell in cells)


def _has_plain_backslashes(text: str) -> bool:
    r"""Return whether backslashes are no escapes, as in `C:\Users\new`: none is doubled, and some
    escape nothing."""
    return "\\\\" not in text and re.search(r"\\([^bfnrtvNZ0\"]|$)", text, re.MULTILINE) is not None


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
    named = has_names(header, records) if options.header is None else options.header
    below = survey_rows(header, records) if named else 0
    return Layout(
        dialect,
        skipped=start,
        header=tuple(header),
        named=named,
        below=below,
        doubt=header_doubt(header, records[below:], options.column) if named else None,
        rows=len(records),
        fit=fitting / len(records) if records else 1.0,
        usual=names_columns(header, records, options.column),
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
        several * layout.usual,
        round(layout.fit, 2),
        several,
        -layout.skipped,
        -layouts.index(layout),
    )


def is_footer(row: Row, width: int) -> bool:
    r"""Return whether a row is the end of what a database printed: `(2 rows)`, or COPY's `\."""
    text = (row[0] or "").strip() if len(row) == 1 else ""
    return text == "\\." or (width > 1 and bool(_ROW_COUNT.fullmatch(text)))


def is_blank(row: Row) -> bool:
    """Return whether a row is a line with nothing but spaces, or DOS's mark of a file's end."""
    return len(row) == 1 and not (row[0] or "").strip(" \t\x1a")


def fits(row: Row, width: int) -> bool:
    """Return whether a row has a table's width, perhaps with empty cells after it; not after a
    single one, where they are a delimiter at the end of a text."""
    longer = len(row) > width > 1 and not any(row[width:])
    return len(row) == width or longer or is_blank(row)

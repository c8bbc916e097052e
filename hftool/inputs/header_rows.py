"""Recognise which of a table's first rows name its columns."""

import re
from collections import Counter
from collections.abc import Sequence

from hftool.inputs.columns import is_name, is_text_name, is_usual_name

_NUMBER = re.compile(r"[-+]?[$€£¥]?\d[\d.,:/ -]*([eE][-+]?\d+)?%?([T ][\d:.]+Z?)?")
_MISSING = {"", "-", "--", ".", "?", "na", "n/a", "#n/a", "nan", "null", "none", "nil", "\\n"}

Row = list[str | None]


def names_columns(header: Sequence[str], records: Sequence[Row], asked: str | None) -> int:
    """Return how surely a row names columns: 2 with a usual name in it, 1 with names over columns
    of numbers, else 0."""
    if any(is_name(cell, asked) for cell in header):
        return 2
    columns = _columns(records, len(header))
    return not any(map(_is_number, header)) and any(
        cell and _all_numbers(column) for cell, column in zip(header, columns, strict=True)
    )


def has_names(header: Sequence[str], records: Sequence[Row]) -> bool:
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


def survey_rows(header: Sequence[str], records: Sequence[Row]) -> int:
    """Return how many rows below the header are more names, by the marks of SurveyMonkey (the kind
    of answer, without a respondent) and Qualtrics (the questions, then their ids in JSON)."""
    if any((cell or "").startswith('{"ImportId"') for row in records[1:2] for cell in row):
        return 2
    first = records[0] if records else []
    nobody = bool(first) and header[0] in ("Respondent ID", "RespondentID") and not first[0]
    return int(nobody or "Open-Ended Response" in first)


def header_doubt(header: Sequence[str], records: Sequence[Row], asked: str | None) -> str | None:
    """Return what makes it doubtful that a header names the columns of the records, if anything."""
    if _names_again(header, records):
        return "the row below the header looks like more names, not like a record"
    numbers = [str(number) for number in range(1, len(records) + 1)]
    text_first = is_text_name(header[0]) or header[0] == asked
    longer = bool(records) and all(len(row) > len(header) for row in records)
    if text_first and longer and [row[0] for row in records] == numbers:
        return (
            "the records have one cell more than the header, and the first looks like their number"
        )
    return None


def _names_again(header: Sequence[str], records: Sequence[Row]) -> bool:
    """Return whether the first record looks like more names: it has no digit, but a word over a
    column of numbers."""
    columns = [column for column in _columns(records, len(header)) if column]
    return not any(any(map(str.isdigit, column[0])) for column in columns) and any(
        column[0].strip().casefold() not in _MISSING
        and sum(map(_is_number, column)) > 1
        and _all_numbers(column[1:])
        for column in columns
    )


def _columns(records: Sequence[Row], width: int) -> list[list[str]]:
    fitting = [row for row in records if len(row) >= width]
    return [[row[i] or "" for row in fitting] for i in range(width)]


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell.strip()) is not None


def _all_numbers(column: Sequence[str]) -> bool:
    filled = [cell for cell in column if cell.strip()]
    return bool(filled) and all(map(_is_number, filled))

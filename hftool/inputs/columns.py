"""Find the column with the texts, and the names of columns."""

import difflib
import logging
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from hftool.errors import HftoolError, UsageError

log = logging.getLogger("hftool")

TEXT = "text"  # the column that is read where no other is named
TEXT_NAMES = (
    *("review", "comment", "sentence", "content", "body", "message", "tweet", "feedback"),
    *("reviews", "comments", "review text", "review body", "comment text", "text body"),
    *("评论", "评论内容", "内容", "文本", "正文", "評論", "內容", "レビュー", "コメント", "本文"),
    *("리뷰", "댓글", "отзыв", "комментарий", "kommentar", "commentaire", "avis", "comentario"),
)
"""The usual names of a column with texts, besides `text`; each as `_plain` returns it."""
OTHER_NAMES = (
    *("id", "index", "no", "nr", "date", "time", "timestamp", "created at", "name", "title"),
    *("label", "sentiment", "rating", "stars", "score", "user", "author", "product", "language"),
    *("lang", "url", "category", "source", "respondent", "编号", "日期", "评分", "用户", "标签"),
)
"""Usual names of other columns, by which a header is recognised."""
SHOWN = 20  # names in an error
MISSING = object()
"""The value of what a record lacks."""
_STEP = re.compile(r"\[(-?\d+)\]|([^.\[\]]+)")
_PATH = re.compile(r"\.?[^.\[\]]+(\.[^.\[\]]+|\[-?\d+\])*")


def is_usual_name(cell: str) -> bool:
    """Return whether tables usually have a column of this name."""
    return _plain(cell) in {TEXT, *TEXT_NAMES, *OTHER_NAMES}


def is_text_name(line: str) -> bool:
    """Return whether a line is the usual name of a column with texts."""
    return _plain(line) in {TEXT, *TEXT_NAMES}


def is_name(cell: str, asked: str | None) -> bool:
    """Return whether a cell is the name that `--column` asks for, or a usual name."""
    return is_usual_name(cell) or (asked is not None and _same(cell) == _same(asked))


def text_column(
    header: Sequence[str], asked: str | None, source: str, *, recognised: bool = False
) -> int:
    """Return the index of the column of `--column`, else of `text`, else of the one column with
    another usual name.

    Args:
        recognised: whether a row was taken for the header, and may be a record.

    Raises:
        HftoolError: there is no such column, or more than one.
    """
    if asked is not None:
        return _asked_column(header, asked, source)
    for matches in (
        [i for i, name in enumerate(header) if name == TEXT],
        [i for i, name in enumerate(header) if _plain(name) == TEXT],
        [i for i, name in enumerate(header) if _plain(name) in TEXT_NAMES],
    ):
        if len(matches) == 1:
            [index] = matches
            if header[index] != TEXT:
                log.info("the texts are in the column '%s' of %s", header[index], source)
            return index
        if matches:
            raise _several(header, matches, source)
    if len(header) == 1 and recognised:
        raise HftoolError(
            f"{source}: no column 'text'; the only column is '{header[0]}'",
            "--column 1 if that is the column's name, --no-header if it is a text,"
            " --delimiter if it is several columns",
        )
    raise HftoolError(
        f"{source}: no column 'text'; the columns are {_listed(header)}",
        "choose the column that holds the texts with --column",
    )


def _asked_column(header: Sequence[str], asked: str, source: str) -> int:
    for form in (str, _same, _plain):
        matches = [i for i, name in enumerate(header) if form(name) == form(asked)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise _several(header, matches, source)
    if asked.isdecimal() and 1 <= int(asked) <= len(header):
        log.info("the texts are in the column '%s' of %s", header[int(asked) - 1], source)
        return int(asked) - 1
    raise HftoolError(
        f"{source}: no column '{asked}'; the columns are {_listed(header)}",
        did_you_mean(header, asked) or "choose the column that holds the texts with --column",
    )


def did_you_mean(names: Sequence[str], asked: str) -> str | None:
    """Return a hint at the name of a column that is like the one asked for, if there is one."""
    by_plain = {_plain(name): name for name in names}
    close = difflib.get_close_matches(_plain(asked), by_plain, n=1)
    return f"did you mean '{by_plain[close[0]]}'?" if close else None


def _several(header: Sequence[str], matches: Sequence[int], source: str) -> HftoolError:
    names = ", ".join(f"{i + 1} '{header[i]}'" for i in matches)
    return HftoolError(
        f"{source}: several columns could be meant: {names}",
        f"choose one by its number, such as --column {matches[0] + 1}",
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def unique_names(header: Sequence[str]) -> tuple[str, ...]:
    """Return the names with `_2`, `_3` … after those that occurred before."""
    names: list[str] = []
    for name in header:
        number, unique = 2, name
        while unique in names or (unique != name and unique in header):
            unique, number = f"{name}_{number}", number + 1
        names.append(unique)
    return tuple(names)


def _same(name: str) -> str:
    """Return a name without differences that can't be seen: spaces around it, Unicode forms."""
    return unicodedata.normalize("NFC", name.replace("\ufeff", "")).strip()


def _plain(name: str) -> str:
    """Return a name without differences of case, and with one space between its words."""
    return re.sub(r"[\s_-]+", " ", _same(name)).strip().casefold()


def require_column(names: Sequence[str], column: str | None) -> None:
    """Raise where an option names a column that the table lacks.

    Raises:
        UsageError: with the columns.
    """
    if column is not None and names and column not in names and not is_path(names, column):
        raise UsageError(
            f"no column '{column}'; the columns are {_listed(names)}", did_you_mean(names, column)
        )


def is_path(names: Sequence[str], asked: str) -> bool:
    """Return whether this is the name of no column, but a way into one: `data.text`."""
    known = any(form(name) == form(asked) for form in (_same, _plain) for name in names)
    return not known and bool(_PATH.fullmatch(asked)) and _steps(asked)[0] in names


def value_in(columns: Mapping[str, Any], name: str) -> Any:
    """Return the value of a column, or a value inside it, whose path is written as in jq
    (`data.text`, `.messages[0].content`, `[-1]` for the last); MISSING if there is none. What is
    inside a null is null."""
    if name in columns or not _PATH.fullmatch(name):
        return columns.get(name, MISSING)
    value: Any = columns
    for step in _steps(name):
        if value is None:
            return None
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return MISSING
    return value


def _steps(path: str) -> list[str | int]:
    return [int(index) if index else key for index, key in _STEP.findall(path)]

"""Recognise by their beginning files that hftool does not read, which are never taken for texts."""

import re
from collections.abc import Sequence

LONGEST_MARK = 16  # bytes
_BINARY = {
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Excel workbook",
    b"ARROW1": "an Arrow or Feather file",
    b"\xff\xff\xff\xff": "an Arrow stream",
    b"FEA1": "a Feather file",
    b"ORC\x08": "an ORC file",
    b"ORC\n": "an ORC file",
    b"Obj\x01": "an Avro file",
    b"SQLite format 3": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"\x80\x04": "a pickle of Python",
    b"\x80\x05": "a pickle of Python",
    b"<stata_dta>": "a Stata file",
    b"$FL2": "an SPSS file",
    b"%PDF-": "a PDF document",
    b"{\\rtf": "an RTF document",
}
PRINTED = "a table printed for reading"
_RULE = re.compile(r"[\s|+,;:]*[-=]+(?:[\s|+,;:]+[-=]+)+[\s|+,;:]*")  # drawn below names
_TEXT = {
    r"<(head|body|table)\b": "HTML",
    r"<\?xml\b": "XML",
    r"-- (mysql|mariadb|postgresql).* dump|(insert into|create table)\b.*\(|copy .* from stdin;": (
        "an SQL dump"
    ),
    r"@relation .*\n@attribute ": "an ARFF file",
    r"__label__\S+\s": "lines of fastText, each with its label before the text",
    r"\(\d \(\d ": "trees of the Stanford treebank",
    r"\{'\w+': ": "dictionaries of Python",
    r"webvtt\b|1\n\d\d:\d\d:\d\d,\d+ --> ": "subtitles",
    r"- \w+:.*\n  \w+:": "YAML",
    r'"\w+"( "\w+")+\s*\n"': "a table whose cells have spaces between them",
}


def binary_kind(head: bytes) -> str | None:
    """Return what the first bytes of a file say that it is."""
    return next((kind for mark, kind in _BINARY.items() if head.startswith(mark)), None)


def text_kind(head: Sequence[str]) -> str | None:
    """Return what the first lines of a text show it to be, unless a table or a text on each."""
    lines = [line for line in head if line.strip()][:2]
    start = "".join(lines).lstrip("\ufeff \t")
    if any(_RULE.fullmatch(line) and re.search("--|==", line) for line in lines):
        return PRINTED  # as psql, MySQL, sqlcmd and Markdown do
    return next((kind for mark, kind in _TEXT.items() if re.match(mark, start, re.I)), None)


def is_fixed_width(head: Sequence[str]) -> bool:
    """Return whether the columns of a table begin at the same places in each line."""
    first, *others = [line for line in head if line.strip()] or [""]
    starts = [match.end() for match in re.finditer(r"\S {2,}(?=\S)", first)]
    return min(len(starts), len(others)) > 1 and all(
        line[at - 1 : at] == " " and line[at : at + 1].strip() for line in others for at in starts
    )

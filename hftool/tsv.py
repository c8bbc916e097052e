"""Escapes of tab-separated values."""

import re

LONGEST_CELL = 2**31 - 1  # characters; the default limit of Python's csv module is 128 KiB
_ESCAPES = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"})
_CHARACTERS = {"\\t": "\t", "\\n": "\n", "\\r": "\r", "\\\\": "\\"}


def escape_cell(text: str) -> str:
    r"""Escape characters that would end a cell: tab, newline, return as \t, \n, \r; \ as \\."""
    return text.translate(_ESCAPES)


def tsv_cells(line: str) -> list[str]:
    """Split a line into cells and undo the escapes of `escape_cell`."""
    return [
        re.sub(r"\\[tnr\\]", lambda escape: _CHARACTERS[escape[0]], cell)
        for cell in line.removesuffix("\n").split("\t")
    ]

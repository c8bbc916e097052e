"""Escapes of tab-separated values."""

import re

LONGEST_CELL = 2**31 - 1  # characters; Python's csv module stops at 128 KiB by default
_ESCAPES = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"})
_CHARACTERS = {"\\t": "\t", "\\n": "\n", "\\r": "\r", "\\\\": "\\"}


def escape_cell(text: str) -> str:
    r"""Escape what would end a cell: tab, line break and backslash become \t, \n, \r and \\."""
    return text.translate(_ESCAPES)


def tsv_cells(line: str) -> list[str]:
    """Return the cells of a line, with the escapes of `escape_cell` undone."""
    return [
        re.sub(r"\\[tnr\\]", lambda escape: _CHARACTERS[escape[0]], cell)
        for cell in line.removesuffix("\n").split("\t")
    ]

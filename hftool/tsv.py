"""Escapes of tab-separated values."""

import re

LONGEST_CELL = 2**31 - 1  # characters; the default limit of Python's csv module is 128 KiB
NULL = "\\N"  # the cell of a missing value, as PostgreSQL and MySQL write it
_ESCAPES = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"})
_CHARACTERS = {"\\t": "\t", "\\n": "\n", "\\r": "\r", "\\\\": "\\", '\\"': '"'}


def escape_cell(text: str) -> str:
    r"""Escape characters that would end a cell: tab, newline, return as \t, \n, \r; \ as \\.

    A quote at the beginning becomes \", so that no program takes the cell for a quoted one.
    """
    escaped = text.translate(_ESCAPES)
    return f"\\{escaped}" if escaped.startswith('"') else escaped


def unescape_cell(cell: str) -> str:
    """Undo the escapes of `escape_cell`; any other backslash stays."""
    if "\\" not in cell:
        return cell
    return re.sub(r'^\\"|\\[tnr\\]', lambda escape: _CHARACTERS[escape[0]], cell)


def tsv_cells(line: str) -> list[str]:
    """Split a line into cells and undo the escapes of `escape_cell`."""
    return [unescape_cell(cell) for cell in line.removesuffix("\n").split("\t")]

"""Read Excel workbooks, with the extra `hftool-cli[tables]`."""

import functools
import logging
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError
from hftool.extras import import_extra

log = logging.getLogger("hftool")

# A formula in the XML of a sheet that has no value, which a text (t="str") may be empty.
_NO_VALUE = re.compile(
    rb'<c(?: (?!t="str")\w+="[^"]*")*><f[^>]*(?:/>|>[^<]*</f>)(?:<v ?/>|<v></v>)?</c>'
)
ERRORS = frozenset(
    ("#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!", "#SPILL!", "#CALC!")
)
"""What a cell has whose formula failed."""
_CHUNK = 1 << 20  # bytes of XML to look through together
_LONGEST_FORMULA = 1 << 14  # bytes


def read_cells(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """Yield the rows that are not empty of a workbook's first sheet that is neither hidden nor
    empty, after their numbers.

    Raises:
        HftoolError: the file is not a workbook, or openpyxl is not installed.
    """
    with _open(path) as sheets:
        if sheets:
            yield from _rows(sheets[0])


@functools.cache
def report_unread(path: Path) -> None:
    """Log once what `read_cells` does not read: other sheets, and formulas without a value, which
    programs write that do not compute.

    Raises:
        HftoolError: as `read_cells`.
    """
    with _open(path) as sheets:
        if len(sheets) > 1:
            first, *others = (f"'{sheet.title}'" for sheet in sheets)
            log.warning("of %s only the sheet %s is read, not %s", path, first, ", ".join(others))
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.startswith("xl/worksheets/")]
        if any(_has_formula_without_value(archive, name) for name in names):
            log.warning(
                "%s has formulas without a value, which are read as empty cells; save it again in"
                " Excel or LibreOffice, which compute them",
                path,
            )


@contextmanager
def _open(path: Path) -> Iterator[list[Any]]:
    """Open a workbook, for the time of a `with` block; gives its sheets that are neither hidden nor
    empty."""
    openpyxl = import_extra("openpyxl", needed_for="an Excel workbook", extra="tables")
    try:
        # An open file, since openpyxl goes by the suffix of a name.
        with path.open("rb") as file:
            _require_workbook(path)
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            for sheet in book.worksheets:
                sheet.reset_dimensions()  # which some programs write wrong
            shown = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
            yield [sheet for sheet in shown if next(_rows(sheet), None)]
    except OSError as error:
        raise HftoolError(f"cannot read {path}: {error.strerror or error}") from None
    except HftoolError:
        raise
    except Exception as error:  # any, since openpyxl trusts what it reads
        raise HftoolError(f"cannot read {path} as an Excel workbook: {error}") from None
    finally:
        if "book" in locals():
            book.close()


def _rows(sheet: Any) -> Iterator[tuple[int, list[Any]]]:
    for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
        cells = [_unescaped(cell) for cell in row]
        while cells and cells[-1] is None:
            cells.pop()
        if cells:
            yield number, cells


def _unescaped(cell: Any) -> Any:
    """Return a cell whose characters that XML lacks are no longer written as `_x000D_`."""
    if not isinstance(cell, str) or "_x" not in cell:
        return cell
    return re.sub("_x([0-9A-Fa-f]{4})_", lambda match: chr(int(match[1], 16)), cell)


def _has_formula_without_value(archive: zipfile.ZipFile, name: str) -> bool:
    with archive.open(name) as file:
        before = b""
        while chunk := file.read(_CHUNK):
            if _NO_VALUE.search(before + chunk):
                return True
            before = chunk[-_LONGEST_FORMULA:]
    return False


def _require_workbook(path: Path) -> None:
    """Raise where a zip archive, which a workbook is too, holds something else.

    Raises:
        HftoolError: with what to do.
    """
    with zipfile.ZipFile(path) as archive:
        if "[Content_Types].xml" not in archive.namelist():
            raise HftoolError(
                f"{path} is a zip archive without an Excel workbook in it",
                "unpack it, or save it as .xlsx or .csv",
            )

"""Read Excel workbooks, with the extra `hftool-cli[tables]`."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError
from hftool.extras import import_extra


def read_cells(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """Yield the rows of a workbook's first sheet that are not empty, after their numbers.

    Raises:
        HftoolError: the file is not a workbook, or openpyxl is not installed.
    """
    openpyxl = import_extra("openpyxl", needed_for="an Excel workbook", extra="tables")
    try:
        # An open file, since openpyxl goes by the suffix of a name.
        with path.open("rb") as file:
            _require_workbook(path)
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            sheet = book.worksheets[0]
            sheet.reset_dimensions()  # which some programs write wrong
            for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
                cells = list(row)
                while cells and cells[-1] is None:
                    cells.pop()
                if cells:
                    yield number, cells
    except OSError as error:
        raise HftoolError(f"cannot read {path}: {error.strerror or error}") from None
    except (zipfile.BadZipFile, KeyError, ValueError, IndexError) as error:
        raise HftoolError(f"cannot read {path} as an Excel workbook: {error}") from None
    finally:
        if "book" in locals():
            book.close()


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

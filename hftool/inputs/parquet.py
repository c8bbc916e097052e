"""Read Parquet files, with the extra `hftool-cli[parquet]`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError
from hftool.output.parquet import MOST_BYTES, _pyarrow
from hftool.output.view import Row

READ_ROWS = 1024  # at once
PAGES = 1 << 20  # bytes of each column read from the file at once


def open_parquet(path: Path) -> Any:
    """A file to read (`pyarrow.parquet.ParquetFile`).

    Raises:
        HftoolError: it can't be read, is no Parquet, or pyarrow is not installed.
    """
    pyarrow = _pyarrow()
    try:
        path.open("rb").close()  # says in a word what pyarrow says in many
        # By default pyarrow keeps all of a file that it has read.
        return pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=PAGES)
    except OSError as error:
        raise HftoolError(f"cannot read {path}: {error.strerror or error}") from None
    except pyarrow.ArrowException as error:
        raise HftoolError(f"cannot read {path}: {error}") from None


def read_records(file: Any, path: Path) -> Iterator[Row]:
    """The records of a file (`pyarrow.parquet.ParquetFile`) by column, in constant memory.

    Raises:
        HftoolError: what it holds is broken, or has no counterpart in Python (a date past 9999).
    """
    known = file.metadata
    size = sum(known.row_group(i).total_byte_size for i in range(known.num_row_groups))
    rows = max(1, min(READ_ROWS, MOST_BYTES * known.num_rows // max(1, size)))
    try:
        for batch in file.iter_batches(batch_size=rows):
            yield from batch.to_pylist()
    except (OSError, ValueError, OverflowError) as error:  # pyarrow's own are of these
        raise HftoolError(f"cannot read {path}: {error}") from None

"""Read Parquet files, with the extra `hftool-cli[parquet]`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError
from hftool.extras import import_extra

BATCH_ROWS = 1024  # rows to read together
BATCH_BYTES = 16_000_000  # or fewer rows, if they take more than this
COLUMN_BUFFER = 1 << 20  # bytes of each column to read from the file together


def open_parquet(path: Path) -> Any:
    """Open a file to read; returns a `pyarrow.parquet.ParquetFile`.

    Raises:
        HftoolError: the file can't be read or is not Parquet, or pyarrow is not installed.
    """
    pyarrow = import_extra("pyarrow.parquet", needed_for="Parquet", extra="parquet")
    try:
        path.open("rb").close()  # for its short error message: pyarrow's is long
        # By default pyarrow keeps everything that it has read of the file in memory.
        return pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=COLUMN_BUFFER)
    except OSError as error:
        raise HftoolError(f"cannot read {path}: {error.strerror or error}") from None
    except pyarrow.ArrowException as error:
        raise HftoolError(f"cannot read {path}: {error}") from None


def read_records(file: Any, path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a `pyarrow.parquet.ParquetFile` by column, in constant memory.

    Raises:
        HftoolError: the file is damaged, or holds a value that Python can't represent (a date
            after 9999).
    """
    metadata = file.metadata
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    rows = max(1, min(BATCH_ROWS, BATCH_BYTES * metadata.num_rows // max(1, size)))
    try:
        for batch in file.iter_batches(batch_size=rows):
            yield from batch.to_pylist()
    except (OSError, ValueError, OverflowError) as error:  # pyarrow's errors derive from these
        raise HftoolError(f"cannot read {path}: {error}") from None

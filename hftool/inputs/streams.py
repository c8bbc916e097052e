"""Open the input: a file or stdin, decompressed where it is compressed."""

import bz2
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from hftool.errors import HftoolError, UsageError
from hftool.extras import import_extra
from hftool.json_files import WEB_PAGE, not_data

STDIN = Path("-")
BUFFER_BYTES = 1 << 18  # to read of a file together, and to peek at
THREE_WAYS = "give it as an argument, name a file with -f/--file, or pipe it into stdin"


_arriving: dict[Path, Callable[[], io.RawIOBase]] = {}


def read_as_it_arrives(file: Path, opener: Callable[[], io.RawIOBase]) -> None:
    """Have `open_stream` read a file that is not here yet from what `opener` opens."""
    _arriving[file] = opener


def source_name(file: Path | None) -> str:
    """Return what errors call the input: "stdin", or the file's path."""
    return "stdin" if file in (None, STDIN) else str(file)


def is_live(file: Path | None) -> bool:
    """Return whether reading may have to wait for more input: from stdin, another pipe, or another
    machine. It can be read once."""
    return file in _arriving or file is None or file == STDIN or not file.is_file()


def open_stream(file: Path | None) -> io.BufferedReader:
    """Open a file, or stdin for None and "-", for reading.

    Raises:
        UsageError: there is no stdin, or it is a terminal that nobody asked to read.
        HftoolError: the file can't be opened, or is only a Git LFS pointer.
    """
    if file is None or file == STDIN:
        if sys.stdin is None or (file is None and sys.stdin.isatty()):
            raise UsageError("no text was given", THREE_WAYS)
        stdin: Any = sys.stdin.buffer
        return stdin if hasattr(stdin, "peek") else io.BufferedReader(stdin)
    if file in _arriving:
        return io.BufferedReader(_arriving[file](), BUFFER_BYTES)
    try:
        stream: io.BufferedReader = io.BufferedReader(io.FileIO(file), BUFFER_BYTES)
        start = stream.peek() if file.is_file() else b""
    except OSError as error:
        raise HftoolError(f"cannot read {file}: {error.strerror}") from None
    require_data(start, str(file), page=True)
    return stream


def require_data(start: bytes, name: str, *, page: bool = False) -> None:
    """Raise where the input begins like a Git LFS pointer or a web page.

    Args:
        page: whether a web page is right, as a text is.

    Raises:
        HftoolError: with what it is, and what to do.
    """
    problem = not_data(start)
    if problem is not None and not (page and problem is WEB_PAGE):
        cause, hint = problem
        raise HftoolError(f"cannot read {name}: {cause}", hint)


def decompressed(stream: io.BufferedReader) -> io.BufferedReader:
    """Return a stream that decompresses what begins like a gzip, zstd, bzip2 or xz file, and the
    stream itself where it begins otherwise.

    Raises:
        HftoolError: the package that decompresses it is not installed.
    """
    head = stream.peek(8)
    opener = next((o for magic, o in _DECOMPRESSORS.items() if head.startswith(magic)), None)
    return stream if opener is None else io.BufferedReader(opener(stream), BUFFER_BYTES)


def _zstd(stream: BinaryIO) -> Any:
    zstandard = import_extra("zstandard", needed_for="a zstd file", extra="tables")
    return zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)


_DECOMPRESSORS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"\x28\xb5\x2f\xfd": _zstd,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
COMPRESSED = (
    ".gz",
    ".zst",
    ".bz2",
    ".xz",
)  # suffixes before which a name has the suffix of its format


@contextmanager
def decompression_errors(name: str) -> Iterator[None]:
    """Turn the errors of a damaged compressed file into one line."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise HftoolError(f"cannot read {name}: {error}") from None
    except Exception as error:
        if type(error).__name__ == "ZstdError":
            raise HftoolError(f"cannot read {name}: {error}") from None
        raise

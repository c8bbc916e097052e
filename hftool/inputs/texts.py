"""Texts from arguments, files and stdin."""

import io
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from hftool.errors import HftoolError, UsageError
from hftool.options.inputs import FileOptions, InputOptions

STDIN = Path("-")
BOM = b"\xef\xbb\xbf"
THREE_WAYS = "give it as an argument, name a file with -f/--file, or pipe it into stdin"


def one_text(argument: str | None, options: FileOptions) -> str:
    """Return the one text that a command works on, without the final line break of a file or of
    stdin.

    Raises:
        UsageError: no text was given, or two were.
        HftoolError: the file can't be read, or is not UTF-8.
    """
    if argument is not None:
        return _argument(argument, options)
    with _open(options.file) as stream:
        data = stream.read().removeprefix(BOM)
        return _without_line_break(decoded(data, 1, options))


def texts(argument: str | None, options: InputOptions) -> Iterator[str]:
    """Yield the one text, or with `--lines` each of its lines without the line break.

    Raises:
        UsageError, HftoolError: as `one_text`.
    """
    if not options.lines:
        return iter([one_text(argument, options)])
    if argument is None:
        return lines(options)
    # As in a file, only "\n" ends a line: U+2028 or a form feed are part of the text.
    return map(_without_line_break, io.StringIO(_argument(argument, options), newline="\n"))


def each_text(arguments: Sequence[str] | None, options: FileOptions) -> Iterator[str]:
    """Yield each argument, or else each line of the file or of stdin as it arrives.

    Raises:
        UsageError, HftoolError: as `lines`.
    """
    if arguments:
        return iter([_argument(argument, options) for argument in arguments])
    return lines(options)


def lines(options: FileOptions) -> Generator[str, None, None]:
    """Yield each line of the file or of stdin as it arrives, without its line break.

    Raises:
        UsageError: no text was given; raised by the call itself.
        HftoolError: the file can't be opened, raised by the call itself; or a line is not UTF-8.
    """
    return _without_line_breaks(decoded_lines(options))


def _without_line_breaks(texts: Generator[str, None, None]) -> Generator[str, None, None]:
    with closing(texts):
        for text in texts:
            yield _without_line_break(text)


def decoded_lines(options: FileOptions) -> Generator[str, None, None]:
    """Yield the same as `lines`, but each line with its line break.

    Raises:
        UsageError, HftoolError: as `lines`.
    """
    return _decoded(raw_lines(options), options)


def _decoded(raw: Generator[bytes, None, None], options: FileOptions) -> Generator[str, None, None]:
    with closing(raw):
        for number, line in enumerate(raw, 1):
            yield decoded(line, number, options)


def raw_lines(options: FileOptions) -> Generator[bytes, None, None]:
    """Yield the same as `decoded_lines`, but undecoded.

    Raises:
        UsageError, HftoolError: as `lines`.
    """
    # The file is opened here and not in a generator, so that the call itself raises the errors.
    return _raw_lines(_open(options.file))


def _raw_lines(stream: BinaryIO) -> Generator[bytes, None, None]:
    with stream:
        for number, line in enumerate(stream):
            yield line if number else line.removeprefix(BOM)


def source_name(options: FileOptions) -> str:
    """Return what errors call the input: "stdin", or the file's path."""
    return "stdin" if options.file in (None, STDIN) else str(options.file)


def _without_line_break(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def _argument(argument: str, options: FileOptions) -> str:
    if options.file is not None:
        raise UsageError("a text was given twice: as an argument and with --file")
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise UsageError("the text given as an argument is not UTF-8") from None
    return argument


def _open(file: Path | None) -> BinaryIO:
    if file is None or file == STDIN:
        _require_input(file)
        return sys.stdin.buffer
    try:
        return file.open("rb")
    except OSError as error:
        raise HftoolError(f"cannot read {file}: {error.strerror}") from None


def _require_input(file: Path | None) -> None:
    if sys.stdin is None or (file is None and sys.stdin.isatty()):
        raise UsageError("no text was given", THREE_WAYS)


def decoded(data: bytes, first_line: int, options: FileOptions) -> str:
    """Return bytes of the input as text.

    Args:
        first_line: the number (from 1) of the line that the bytes begin with, for the error.

    Raises:
        HftoolError: the bytes are not UTF-8; the message names line and byte.
    """
    try:
        return data.decode("utf-8", options.errors)
    except UnicodeDecodeError as error:
        line = first_line + data.count(b"\n", 0, error.start)
        byte = error.start - data.rfind(b"\n", 0, error.start)
        raise HftoolError(
            f"{source_name(options)}: line {line}, byte {byte}: "
            f"0x{data[error.start]:02x} is not UTF-8",
            "convert the input, or use --errors replace",
        ) from None

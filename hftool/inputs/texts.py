"""Texts out of arguments, files and stdin."""

import io
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, TypeVar

from hftool.errors import HftoolError, UsageError
from hftool.options.inputs import FileOptions, InputOptions

STDIN = Path("-")
BOM = b"\xef\xbb\xbf"
T = TypeVar("T")
THREE_WAYS = "give it as an argument, name a file with -f/--file, or pipe it into stdin"


def one_text(argument: str | None, options: FileOptions) -> str:
    """The one text a command works on; a final line break of a file or of stdin is dropped.

    Raises:
        UsageError: no text was given, or two were.
        HftoolError: the file can't be read, or is no UTF-8.
    """
    if argument is not None:
        return _argument(argument, options)
    with _open(options.file) as stream:
        data = stream.read().removeprefix(BOM)
        return _without_line_break(decoded(data, 1, options))


def texts(argument: str | None, options: InputOptions) -> Iterator[str]:
    """The one text, or with `lines` each line of it without its line break.

    Raises: as `one_text`.
    """
    if not options.lines:
        return iter([one_text(argument, options)])
    if argument is None:
        return lines(options)
    # As in a file, only "\n" ends a line: U+2028 or a form feed are part of the text.
    return map(_without_line_break, io.StringIO(_argument(argument, options), newline="\n"))


def each_text(arguments: Sequence[str] | None, options: FileOptions) -> Iterator[str]:
    """Each argument, or else each line of the file or of stdin as it arrives.

    Raises: as `one_text`; where nothing is given at once, not with the first text.
    """
    if arguments:
        return iter([_argument(argument, options) for argument in arguments])
    return lines(options)


def lines(options: FileOptions) -> Iterator[str]:
    """Each line of the file or of stdin, as it arrives, without its line break.

    Raises: as `one_text`; what can be known at once, at once.
    """
    return map(_without_line_break, decoded_lines(options))


def decoded_lines(options: FileOptions) -> Iterator[str]:
    """As `lines`, each with its line break.

    Raises: as `lines`.
    """
    return _decoded(raw_lines(options), options)


def _decoded(raw: Generator[bytes, None, None], options: FileOptions) -> Iterator[str]:
    with closing(raw):
        for number, line in enumerate(raw, 1):
            yield decoded(line, number, options)


def raw_lines(options: FileOptions) -> Generator[bytes, None, None]:
    """As `lines`, undecoded and with the line breaks."""
    return _raw_lines(_open(options.file))


def _raw_lines(stream: BinaryIO) -> Generator[bytes, None, None]:
    with stream:
        for number, line in enumerate(stream):
            yield line if number else line.removeprefix(BOM)


def source_name(options: FileOptions) -> str:
    """What an error calls the input."""
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
    """Bytes that begin at a line (from 1) of the input, as text.

    Raises:
        HftoolError: they are no UTF-8.
    """
    try:
        return data.decode("utf-8", options.errors)
    except UnicodeDecodeError as error:
        line = first_line + data.count(b"\n", 0, error.start)
        byte = error.start - data.rfind(b"\n", 0, error.start)
        place = f"line {line}, byte {byte}"
        raise HftoolError(
            f"{source_name(options)}: {place}: 0x{data[error.start]:02x} is not UTF-8",
            "convert the input, or use --errors replace",
        ) from None

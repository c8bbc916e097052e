"""Texts out of arguments, files and stdin."""

import io
import queue
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

from hftool.errors import HftoolError, UsageError
from hftool.options import FileOptions, InputOptions

Item = TypeVar("Item")

STDIN = Path("-")
BOM = b"\xef\xbb\xbf"
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
    raw = raw_lines(options)
    return (
        _without_line_break(decoded(line, number, options)) for number, line in enumerate(raw, 1)
    )


def raw_lines(options: FileOptions) -> Iterator[bytes]:
    """As `lines`, undecoded and with the line breaks."""
    return _raw_lines(_open(options.file))


def _raw_lines(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        for number, line in enumerate(stream):
            yield line if number else line.removeprefix(BOM)


def arriving(texts: Iterable[Item], most: int) -> Iterator[list[Item]]:
    """What has arrived, up to `most` texts at a time; waits only where nothing has.

    A thread reads ahead, so that a slow source is answered text by text.
    """
    arrived: queue.Queue[Item | BaseException] = queue.Queue(maxsize=2 * most)
    end = EOFError()

    def read(stdin: object) -> None:
        try:
            for text in texts:
                arrived.put(text)
            arrived.put(end)
        except BaseException as error:
            arrived.put(error)

    # Python aborts where it frees, at its end, a stdin that a thread still reads: the thread's
    # reference keeps it.
    threading.Thread(target=read, args=(sys.stdin,), daemon=True).start()
    stopped: BaseException | None = None
    while stopped is None:
        window: list[Item] = []
        while len(window) < most and (not window or not arrived.empty()):
            item = arrived.get()
            if isinstance(item, BaseException):
                stopped = item
                break
            window.append(item)
        if window:
            yield window
    if stopped is not end:
        raise stopped


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
    if file is None and (sys.stdin is None or sys.stdin.isatty()):
        raise UsageError("no text was given", THREE_WAYS)


def decoded(data: bytes, first_line: int, options: FileOptions) -> str:
    """Bytes that begin at a line (from 1) of the input, as text.

    Raises:
        HftoolError: they are no UTF-8.
    """
    try:
        return data.decode("utf-8", options.errors)
    except UnicodeDecodeError as error:
        name = "stdin" if options.file in (None, STDIN) else options.file
        line = first_line + data.count(b"\n", 0, error.start)
        byte = error.start - data.rfind(b"\n", 0, error.start)
        raise HftoolError(
            f"{name}: line {line}, byte {byte}: 0x{data[error.start]:02x} is not UTF-8",
            "convert the input, or use --errors replace",
        ) from None

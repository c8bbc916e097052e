"""Texts from arguments, files and stdin."""

import io
import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

from hftool.errors import HftoolError, UsageError
from hftool.inputs.encodings import (
    encoding_of_mark,
    guessed_encoding,
    has_japanese_escapes,
    is_wide,
    known_encoding,
    wide_encoding,
)
from hftool.inputs.files import is_table_name
from hftool.inputs.streams import (
    decompressed,
    decompression_errors,
    is_live,
    open_stream,
    require_data,
    source_name,
)
from hftool.json_files import START_BYTES
from hftool.options.inputs import ByteErrors, FileOptions, InputOptions

log = logging.getLogger("hftool")

HEAD_LINES = 1000  # lines of a file to look at before they are read
HEAD_CHARACTERS = 1 << 20  # or fewer lines, once they have more characters than this
WEB_PAGES = (".html", ".htm", ".xhtml")  # suffixes
BOM = b"\xef\xbb\xbf"


class DecodingOptions(Protocol):
    """How the bytes of the input become text."""

    @property
    def encoding(self) -> str | None: ...
    @property
    def errors(self) -> ByteErrors: ...


def one_text(argument: str | None, options: FileOptions) -> str:
    """Return the one text that a command works on, without the final line break of a file or of
    stdin.

    Raises:
        UsageError: no text was given, or two were.
        HftoolError: the file can't be read, or is not in its encoding.
    """
    if argument is not None:
        return _argument(argument, given_file=options.file is not None)
    name = source_name(options.file)
    with open_stream(options.file) as stream, decompression_errors(name):
        data = decompressed(stream).read()
    encoding = _encoding(data, options)
    if encoding is None or not is_wide(encoding):
        data = data.removeprefix(BOM)
    return _without_line_break(_decoded(data, 1, encoding or "utf-8", options, name))


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
    text = _argument(argument, given_file=options.file is not None)
    return map(_without_line_break, io.StringIO(text, newline="\n"))


def each_argument(arguments: Sequence[str]) -> list[str]:
    """Return the texts that were given as arguments.

    Raises:
        UsageError: an argument is not UTF-8.
    """
    return [_argument(argument, given_file=False) for argument in arguments]


def lines(options: FileOptions) -> Generator[str, None, None]:
    """Yield each line of the file or of stdin as it arrives, without its line break.

    Raises:
        UsageError: no text was given; raised by the call itself.
        HftoolError: the file can't be opened, raised by the call itself; or a line is not in the
            file's encoding.
    """
    return _without_line_breaks(decoded_lines(options.file, options))


def _without_line_breaks(texts: Generator[str, None, None]) -> Generator[str, None, None]:
    with closing(texts):
        for text in texts:
            yield _without_line_break(text)


def decoded_lines(file: Path | None, options: DecodingOptions) -> Generator[str, None, None]:
    """Yield the same as `lines`, but each line with its line break.

    Raises:
        UsageError, HftoolError: as `lines`.
    """
    # The file is opened here and not in a generator, so that the call itself raises the errors.
    return _Decoder(source_name(file), options, guess=False).lines(_open_lines(file))


class LineSource:
    """The lines of a file or of stdin with their line breaks, the first of which can be looked at
    before they are read.

    An encoding other than UTF-8 is recognised by the content and logged. The lines of a file
    without a line feed end in carriage returns.

    Attributes:
        name: what errors call the input, by default as `source_name`.

    Raises:
        UsageError, HftoolError: as `lines`.
    """

    def __init__(
        self, file: Path | None, options: DecodingOptions, name: str | None = None
    ) -> None:
        self.name = name or source_name(file)
        self._live = is_live(file)
        self._stream = open_stream(file)
        self._decoder = _Decoder(self.name, options, guess=True)
        self._lines = self._decoder.lines(self._stream)
        self._head: list[str] = []

    @property
    def encoding(self) -> str | None:
        """The encoding, as far as it is known from what was read."""
        return self._decoder.encoding

    @property
    def marked(self) -> bool:
        """Whether the input begins with a byte-order mark, once its head was read."""
        return self._decoder.marked

    def head(self, least: int = 0) -> tuple[list[str], bool]:
        """Return the first lines, and whether these are all.

        Of stdin they are those that have arrived, but at least `least`.
        """
        most = max(self._stream.peek().count(b"\n"), least) if self._live else HEAD_LINES
        size = sum(map(len, self._head))
        while len(self._head) < most and size < HEAD_CHARACTERS:
            line = next(self._lines, None)
            if line is None:
                return list(self._head), True
            self._head.append(line)
            size += len(line)
        return list(self._head), False

    def __iter__(self) -> Iterator[str]:
        with closing(self._lines):
            yield from self._head
            self._head = []
            yield from self._lines


class _Decoder:
    """Decodes the lines of a stream.

    Attributes:
        encoding: the encoding, None while all that was read is ASCII.
        marked: whether the stream begins with a byte-order mark.
    """

    def __init__(self, name: str, options: DecodingOptions, *, guess: bool) -> None:
        self.encoding: str | None = None
        self.marked = False
        self._name = name
        self._options = options
        self._guess = guess

    def lines(self, stream: io.BufferedReader) -> Generator[str, None, None]:
        """Yield each line with its line break, and close the stream."""
        name, guess = self._name, self._guess
        with stream, decompression_errors(name):
            source = decompressed(stream)
            head = source.peek()
            self.marked = encoding_of_mark(head) is not None
            self.encoding = _encoding(head, self._options)
            if guess and self.encoding is None:
                japanese = "iso2022_jp" if has_japanese_escapes(head) else None
                self.encoding = wide_encoding(head) or japanese
                if self.encoding:
                    _log_guess(name, self.encoding)
            returns = guess and b"\n" not in head and head.count(b"\r") > 1
            if returns and self.encoding is None:
                self.encoding = _guessed(head, name)
            if self.encoding and (returns or is_wide(self.encoding)):
                end = "\r" if returns else "\n"
                yield from _wrapped_lines(source, self.encoding, self._options, end, name)
                return
            for number, line in enumerate(source, 1):
                data = line if number > 1 else line.removeprefix(BOM)
                if guess and self.encoding is None and not data.isascii():
                    self.encoding = _guessed(data, name, source)
                yield _decoded(data, number, self.encoding or "utf-8", self._options, name)


def _wrapped_lines(
    source: io.BufferedReader, encoding: str, options: DecodingOptions, end: str, name: str
) -> Iterator[str]:
    number = 0
    with io.TextIOWrapper(source, encoding, options.errors, newline=end) as wrapper:
        try:
            for number, line in enumerate(wrapper, 1):
                yield line.removeprefix("\ufeff") if number == 1 else line
        except UnicodeDecodeError as error:
            raise HftoolError(
                f"{name}: after line {number}: not valid {encoding}: {error.reason}",
                "name the encoding with --encoding, or use --errors replace",
            ) from None


def _encoding(head: bytes, options: DecodingOptions) -> str | None:
    """Return the encoding of `--encoding`, else the one that a byte-order mark names."""
    if options.encoding is not None:
        return known_encoding(options.encoding)
    encoding = encoding_of_mark(head)
    return "utf-8" if encoding == "utf-8-sig" else encoding  # lines are decoded one by one


def _guessed(data: bytes, name: str, following: io.BufferedReader | None = None) -> str:
    try:
        data.decode()
        return "utf-8"
    except UnicodeDecodeError:
        sample = data + (following.peek() if following else b"")
        encoding = guessed_encoding(sample)
    if encoding != "utf-8":
        _log_guess(name, encoding)
    return encoding


def _log_guess(name: str, encoding: str) -> None:
    log.warning("%s is not UTF-8; it is read as %s (or name its --encoding)", name, encoding)


def raw_lines(options: FileOptions) -> Generator[bytes, None, None]:
    """Yield each line of the file or of stdin as it arrives, undecoded, with its line break.

    Raises:
        UsageError, HftoolError: as `lines`.
    """
    return _raw_lines(_open_lines(options.file), source_name(options.file))


def _raw_lines(stream: io.BufferedReader, name: str) -> Generator[bytes, None, None]:
    with stream, decompression_errors(name):
        for number, line in enumerate(decompressed(stream)):
            yield line if number else line.removeprefix(BOM)


def _open_lines(file: Path | None) -> io.BufferedReader:
    """Open a file or stdin; a file that is a web page has a name that says so."""
    stream = open_stream(file)
    if file is not None and not is_live(file) and file.suffix.lower() not in WEB_PAGES:
        require_data(stream.peek(), str(file))
    return stream


def require_data_lines(head: Sequence[str], name: str) -> None:
    """Raise where the input's first lines are those of a Git LFS pointer or a web page, as
    `require_data`."""
    require_data("".join(head[:2])[:START_BYTES].encode(), name)


def _without_line_break(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def _argument(argument: str, *, given_file: bool) -> str:
    if given_file:
        raise UsageError("a text was given twice: as an argument and with --file")
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise UsageError("the text given as an argument is not UTF-8") from None
    if argument.startswith("“") and argument.endswith("”"):
        log.info("the text begins and ends with quotation marks; a shell's own are straight")
    if is_table_name(argument):
        log.info("'%s' is also the name of a file; to read it: -f '%s'", argument, argument)
    return argument


def decoded(data: bytes, first_line: int, options: FileOptions) -> str:
    """Return bytes of the input as text.

    Args:
        first_line: the number (from 1) of the line that the bytes begin with, for the error.

    Raises:
        HftoolError: the bytes are not UTF-8; the message names line and byte.
    """
    return _decoded(data, first_line, "utf-8", options, source_name(options.file))


def _decoded(
    data: bytes, first_line: int, encoding: str, options: DecodingOptions, name: str
) -> str:
    try:
        return data.decode(encoding, options.errors)
    except UnicodeDecodeError as error:
        line = first_line + data.count(b"\n", 0, error.start)
        byte = error.start - data.rfind(b"\n", 0, error.start)
        guess = guessed_encoding(data[:100_000])
        shown = "UTF-8" if encoding.startswith("utf-8") else encoding
        raise HftoolError(
            f"{name}: line {line}, byte {byte}: 0x{data[error.start]:02x} is not {shown}",
            "name the encoding with --encoding, or use --errors replace"
            if guess in ("utf-8", encoding)
            else f"it may be {guess}: --encoding {guess}",
        ) from None

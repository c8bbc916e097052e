"""Write text to a terminal safely: control characters become visible escapes."""

import os
import re
import sys
from typing import TextIO

from hftool.errors import HftoolError
from hftool.redaction import redacted

# C0 other than newline and tab, DEL, C1, the characters that reorder text (Unicode's Bidi_Control),
# and the line and paragraph separators.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_UNSAFE_IN_LINE = re.compile(f"{_UNSAFE.pattern[:-1]}\n\t\\\\]")
_ERASE_LINE = "\x1b[K"
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x20 else f"\\u{code:04x}")


def visible(text: str) -> str:
    r"""Escape control characters except newline and tab: "\x1b[2J" -> "\\x1b[2J"."""
    return _UNSAFE.sub(_escape, text)


def one_line(text: str) -> str:
    r"""Escape control characters, newline, tab and backslash, so that the text can be restored."""
    if text.isprintable() and "\\" not in text:  # a fast path for most texts
        return text
    return _UNSAFE_IN_LINE.sub(_escape, text)


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is an open terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


_status_is_shown = False


def show_status(text: str) -> None:
    """Show a text on stderr, if it is a terminal, until the next message or `clear_status`."""
    global _status_is_shown
    if is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb":
        sys.stderr.write(visible(text) + "\r")
        sys.stderr.flush()
        _status_is_shown = True


def clear_status() -> None:
    """Remove what `show_status` shows."""
    global _status_is_shown
    if _status_is_shown:
        sys.stderr.write(_ERASE_LINE)
        sys.stderr.flush()
        _status_is_shown = False


def show_on_stderr(line: str) -> None:
    """Write a line to stderr without the hub token; on a terminal, escape control characters."""
    clear_status()
    line = redacted(line)
    sys.stderr.write((visible(line) if is_terminal(sys.stderr) else line) + "\n")
    sys.stderr.flush()


def show_error(error: HftoolError) -> None:
    """Write an error and its hint to stderr, one line each."""
    show_on_stderr(f"Error: {one_line(error.message)}")
    if error.hint:
        show_on_stderr(f"Hint: {one_line(error.hint)}")

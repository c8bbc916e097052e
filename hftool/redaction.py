"""Keeps the hub token out of where other users of the machine can look."""

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from hftool import config
from hftool.errors import HftoolError

TOKEN_OPTIONS = ("--token", "--hub-token")
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
LEAST_LENGTH = 8  # a shorter word may well stand in a message for something else


def hide_token() -> None:
    """Overwrite a token given as an option in this process's title, where that can be done (Linux).

    Anyone may read the titles of all processes (`ps`). What the command line means is known by now
    from `sys.argv`, a copy.
    """
    try:
        title = Path("/proc/self/cmdline").read_bytes()
        # Field 48 of proc_pid_stat(5); the second one, the name in brackets, may hold spaces.
        fields = Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()
        start = int(fields[45])
    except (OSError, ValueError, IndexError):
        return
    at = 0
    words = title.split(b"\0")
    for before, word in zip([b"", *words], words, strict=False):
        secret = _secret(before.decode(errors="replace"), word)
        if secret:
            ctypes.memset(start + at + len(word) - len(secret), ord("*"), len(secret))
        at += len(word) + 1


def _secret(before: str, word: bytes) -> bytes:
    """The part of a word of the command line that is a token."""
    name, equals, value = word.partition(b"=")
    if before in TOKEN_OPTIONS:
        return word
    return value if equals and name.decode(errors="replace") in TOKEN_OPTIONS else b""


def redacted(text: str) -> str:
    """A text for stderr without the token, whatever library's message it came in by."""
    for token in _tokens():
        if len(token) >= LEAST_LENGTH:
            text = text.replace(token, "***")
    return text


def _tokens() -> Iterator[str]:
    """What the command line, the environment and config.toml name as a token."""
    words = sys.argv
    for before, word in zip(["", *words], words, strict=False):
        yield _secret(before, word.encode(errors="replace")).decode()
    yield from (os.environ.get(name, "") for name in TOKEN_VARIABLES)
    try:
        commands = config.load().defaults.values()
    except HftoolError:  # the file can't be read, which is being said
        return
    for values in commands:
        if isinstance(values, dict):
            yield str(values.get("hub_token", ""))

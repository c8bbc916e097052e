"""Keep the hub token and the key of an endpoint out of messages and of the list of processes."""

import ctypes
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from hftool import config
from hftool.errors import HftoolError

TOKEN_OPTIONS = ("--token", "--hub-token", "--api-key")
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HFTOOL_API_KEY", "OPENAI_API_KEY")
MIN_LENGTH = 8  # a shorter token could be an ordinary word in a message


def hide_token() -> None:
    """Overwrite a token on the command line in this process's title (on Linux).

    All users can read the titles of all processes (`ps`). The title is not needed any more:
    `sys.argv` is a copy.
    """
    try:
        title = Path("/proc/self/cmdline").read_bytes()
        # Field 48 of proc_pid_stat(5). Field 2, a name in brackets, may contain spaces.
        fields = Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()
        start = int(fields[45])
    except (OSError, ValueError, IndexError):
        return
    offset = 0
    words = title.split(b"\0")
    for before, word in zip([b"", *words], words, strict=False):
        secret = _secret(before.decode(errors="replace"), word)
        if secret:
            ctypes.memset(start + offset + len(word) - len(secret), ord("*"), len(secret))
        offset += len(word) + 1


def _secret(before: str, word: bytes) -> bytes:
    """Return the part of a word of the command line that is a token, given the word before it."""
    name, equals, value = word.partition(b"=")
    if before in TOKEN_OPTIONS:
        return word
    return value if equals and name.decode(errors="replace") in TOKEN_OPTIONS else b""


def redacted(text: str) -> str:
    """Replace the hub token and the key of an endpoint in a text by `***`; also a library's message
    may contain them."""
    return masked(text, _tokens())


def masked(text: str, secrets: Iterable[str]) -> str:
    """Replace each secret in a text by `***`."""
    for secret in secrets:
        if len(secret) >= MIN_LENGTH:
            text = text.replace(secret, "***")
    return text


def _tokens() -> Iterator[str]:
    """Yield the tokens in the command line, the environment and config.toml."""
    words = sys.argv
    for before, word in zip(["", *words], words, strict=False):
        yield _secret(before, word.encode(errors="replace")).decode()
    yield from (os.environ.get(name, "") for name in TOKEN_VARIABLES)
    try:
        commands = config.load().defaults.values()
    except HftoolError:  # of a broken file, which the command reports
        return
    for values in commands:
        if isinstance(values, dict):
            for name in ("hub_token", "api_key"):
                token = values.get(name, "")
                # A list is an error, in whose message the tokens are hidden as well.
                yield from map(str, token if isinstance(token, list) else [token])

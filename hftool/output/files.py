"""Files that are there whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from hftool.errors import HftoolError


@contextmanager
def atomic_file(path: Path, *, private: bool = False) -> Iterator[TextIO]:
    """A text file (UTF-8) written beside `path` and renamed into place when the block ends well.

    A symbolic link is followed; something that is no regular file (`/dev/stdout`, a FIFO) is
    written directly. A new file of a `private` kind is the user's alone to read.

    Raises:
        HftoolError: the place can't be written.
    """
    target = path.resolve()
    try:
        if path.exists() and not path.is_file():
            with path.open("w", encoding="utf-8", newline="") as file:
                yield file
            return
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise HftoolError(f"cannot write {path}: {error.strerror}") from None
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file
        beside.chmod(_mode(target, private))
        beside.replace(target)
    except OSError as error:
        raise HftoolError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()


def _mode(target: Path, private: bool) -> int:
    """The permissions `target` has, or those a new file gets here."""
    if target.exists():
        return target.stat().st_mode & 0o777
    if private:
        return 0o600
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask

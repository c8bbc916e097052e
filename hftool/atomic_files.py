"""Files that are there whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from hftool.errors import HftoolError

STDOUT = Path("stdout")  # what an error calls it


@contextmanager
def atomic_file(path: Path, *, private: bool = False) -> Iterator[TextIO]:
    """A text file (UTF-8) written beside `path` and renamed into place when the block ends well.

    A symbolic link is followed; something that is no regular file (`/dev/stdout`, a FIFO) is
    written directly. A new file of a `private` kind is the user's alone to read.

    Raises:
        HftoolError: the place can't be written.
    """
    with write_errors(path):
        if path.exists() and not path.is_file():
            with path.open("w", encoding="utf-8", newline="") as file:
                yield file
            return
    with (
        atomic_path(path, private=private) as beside,
        beside.open("w", encoding="utf-8", newline="") as file,
    ):
        yield file


@contextmanager
def atomic_path(path: Path, *, private: bool = False) -> Iterator[Path]:
    """An empty file beside `path`, renamed into place when the block ends well.

    Raises: as `atomic_file`.
    """
    target = path.resolve()
    with write_errors(path):
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(descriptor)
        beside = Path(name)
        try:
            yield beside
            beside.chmod(permissions(target, private=private))
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """What the system says against writing `path`, as one line."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> Exception:
    """The error to raise for one of writing `path`: stdout's broken pipe stays what it is."""
    if isinstance(error, BrokenPipeError):
        return error
    return HftoolError(f"cannot write {path}: {error.strerror or error}")


def permissions(target: Path, *, private: bool = False) -> int:
    """The permissions `target` has, or those a new file gets here."""
    if target.exists():
        return target.stat().st_mode & 0o777
    if private:
        return 0o600
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask

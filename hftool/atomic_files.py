"""Files that are written completely or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from hftool.errors import HftoolError

STDOUT = Path("stdout")  # its name in errors


@contextmanager
def atomic_file(path: Path, *, private: bool = False) -> Iterator[TextIO]:
    """Open a text file (UTF-8) next to `path`, renamed to `path` if the block succeeds.

    Symbolic links are followed. Something other than a regular file (`/dev/stdout`, a FIFO) is
    written directly. With `private`, only the user can read a new file.

    Raises:
        HftoolError: the file can't be written.
    """
    with write_errors(path):
        if path.exists() and not path.is_file():
            with path.open("w", encoding="utf-8", newline="") as file:
                yield file
            return
    with (
        atomic_path(path, private=private) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        yield file


@contextmanager
def atomic_path(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Create an empty file next to `path`, renamed to `path` if the block succeeds.

    Raises:
        HftoolError: the file can't be written.
    """
    target = path.resolve()
    with write_errors(path):
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(descriptor)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(permissions(target, private=private))
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Raise an OSError of the block as the error of writing `path` (see `write_error`)."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> Exception:
    """Return the error to raise for one of writing `path`; a broken pipe stays what it is."""
    if isinstance(error, BrokenPipeError):
        return error
    cause = error.strerror or error
    if isinstance(error, FileNotFoundError) and not path.parent.exists():
        cause = f"the folder {path.parent} does not exist"
    return HftoolError(f"cannot write {path}: {cause}")


def permissions(target: Path, *, private: bool = False) -> int:
    """Return the permissions of `target`, or those of a new file if it does not exist."""
    if target.exists():
        return target.stat().st_mode & 0o777
    if private:
        return 0o600
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask

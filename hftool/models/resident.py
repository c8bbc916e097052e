"""What a process that serves several commands keeps in memory between them."""

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_things: dict[Hashable, tuple[Hashable, Any]] | None = None  # with the state of their files


def enable_cache() -> None:
    """Keep what is loaded; a process of a single command does not."""
    global _things
    _things = {}


def cached(load: Callable[[], T], folder: Path, *settings: Hashable) -> T:
    """What `load` gives, or what it gave before for the same files and settings."""
    if _things is None:
        return load()
    files = _fingerprint(folder)
    known = _things.get((folder, settings))
    if known is None or known[0] != files:
        _things.pop((folder, settings), None)  # before the new one takes memory as well
        known = _things[folder, settings] = (files, load())
    found: T = known[1]
    return found


def _fingerprint(folder: Path) -> Hashable:
    """Differs where a file of the folder was changed."""
    files = ((path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file())
    return tuple((name, f.st_ino, f.st_size, f.st_mtime_ns) for name, f in files)

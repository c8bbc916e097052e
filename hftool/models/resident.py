"""Loaded models in memory, for a process that serves several commands."""

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

# What is loaded, by folder and settings, with the state that its files had; None: nothing is kept.
_cache: dict[Hashable, tuple[Hashable, Any]] | None = None
_is_frozen = False


def enable_cache() -> None:
    """Keep what is loaded from now on; a process for a single command does not."""
    global _cache
    _cache = {}


def freeze_cache() -> None:
    """Keep nothing further: a process forked for a single command uses what is loaded, and frees
    other models as soon as it does not need them."""
    global _is_frozen
    _is_frozen = True


def cached(load: Callable[[], T], folder: Path, *settings: Hashable) -> T:
    """Return what `load` returns, or what it returned before for the same files and settings."""
    if _cache is None:
        return load()
    files = _fingerprint(folder)
    entry = _cache.get((folder, settings))
    if entry is None or entry[0] != files:
        if _is_frozen:
            return load()
        _cache.pop((folder, settings), None)  # first, so that old and new never both take memory
        entry = _cache[folder, settings] = (files, load())
    loaded: T = entry[1]
    return loaded


def _fingerprint(folder: Path) -> Hashable:
    """Return a value that changes whenever a file of the folder does."""
    files = ((path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file())
    return tuple((name, f.st_ino, f.st_size, f.st_mtime_ns) for name, f in files)

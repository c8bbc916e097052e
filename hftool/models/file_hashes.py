"""The SHA-256 of files; those of large files are remembered in the cache folder.

A remembered hash is valid for the same path, size and time of change.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hftool import config
from hftool.errors import HftoolError

LARGE = 16_000_000  # bytes; a smaller file is hashed in some milliseconds


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file in hex.

    Raises:
        HftoolError: it can't be read.
    """
    stat = _stat(file)
    if stat.st_size < LARGE:
        return hash_file(file)
    entry = _entry(file, stat)
    sha256 = _read(entry).get("sha256")
    if sha256 is None:
        sha256 = hash_file(file)
        with suppress(OSError):  # a cache that can't be written: the file is hashed again next time
            _remember(entry, file, sha256)
    return str(sha256)


def known_sha256(file: Path) -> str | None:
    """Return the SHA-256 of a file in hex; None if the file is large and was not hashed before.

    Raises:
        HftoolError: it can't be read.
    """
    stat = _stat(file)
    if stat.st_size < LARGE:
        return hash_file(file)
    sha256 = _read(_entry(file, stat)).get("sha256")
    return None if sha256 is None else str(sha256)


def hash_file(file: Path) -> str:
    """Compute the SHA-256 of a file, in hex.

    Raises:
        HftoolError: it can't be read.
    """
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise HftoolError(f"cannot read {file}: {error.strerror}") from None


def remembered_hashes() -> Iterator[tuple[Path, Path | None]]:
    """Yield where each hash is remembered, and its file; None if that was changed or removed."""
    for entry in sorted(_hashes_path().glob("*")):
        file = Path(str(_read(entry).get("path", "")))
        try:
            is_valid = entry == _entry(file, _stat(file))
        except HftoolError:
            is_valid = False
        yield entry, file if is_valid else None


def _hashes_path() -> Path:
    return config.cache_path() / "hashes"


def _stat(file: Path) -> os.stat_result:
    try:
        return file.stat()
    except OSError as error:
        raise HftoolError(f"cannot read {file}: {error.strerror}") from None


def _entry(file: Path, stat: os.stat_result) -> Path:
    """Return the path of a file's entry: {"path": …, "sha256": …}."""
    key = json.dumps([str(file), stat.st_size, stat.st_mtime_ns])
    return _hashes_path() / hashlib.sha256(key.encode()).hexdigest()[:16]


def _read(entry: Path) -> dict[str, str]:
    try:
        content = json.loads(entry.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _remember(entry: Path, file: Path, sha256: str) -> None:
    entry.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    entry.parent.mkdir(mode=0o700, exist_ok=True)
    part = entry.with_suffix(f".{os.getpid()}")  # another process may write the same entry
    part.write_text(json.dumps({"path": str(file), "sha256": sha256}) + "\n", encoding="utf-8")
    part.replace(entry)

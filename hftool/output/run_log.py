"""The log of a run whose records are written one by one: what makes the run, and what is done.

The first line is JSON: the settings that shape the records. After it, there is an entry for each
input item: the offset at which its record ends in the output, a digest of the item, and whether it
failed. A record is written before its entry, so an incomplete record has none.
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

from hftool import config
from hftool.errors import HftoolError

ENTRY = struct.Struct("<Q8s?")
MAX_HEADER = 1 << 24  # bytes
MAX_COMPLETE_RUNS = 100  # logs of complete runs that are kept
SHOWN = 60  # characters of a value in an error

# Options that don't change what is in the records: where a model computes and what it drafts, where
# its files come from (which have a digest), and where the output goes.
_WITHOUT_EFFECT = {
    *("device", "batch_size", "prompt_lookup", "assistant_model", "timeout"),
    *("model", "revision", "offline", "no_daemon"),
    *("format", "json", "output", "color", "quiet", "verbose", "resume", "save", "on_error"),
}

Settings = Mapping[str, Any]
"""JSON values by name: those of options as on the command line (`--threshold`)."""


@dataclass(frozen=True)
class Entry:
    """The end of a record in the output (bytes), the digest of its item, and whether it failed."""

    end: int
    digest: bytes
    failed: bool


def run_settings(*options: Any, model: str, model_digest: str, **others: Any) -> Settings:
    """Return the settings of a run.

    Args:
        options: dataclasses of options; those that don't affect the records are left out.
        model: the name of the model.
        model_digest: of its files.
        others: values of other options, by the name of their parameter.
    """
    # A field without a `repr` holds a secret.
    values = {f.name: getattr(o, f.name) for o in options for f in fields(o) if f.repr} | others
    settings = {
        f"--{name.replace('_', '-')}": _setting(value)
        for name, value in values.items()
        if name not in _WITHOUT_EFFECT
    }
    return {**settings, "the model": {"name": model, "digest": model_digest}}


def _setting(value: Any) -> Any:
    """Return the value of an option, with the content of files in place of their names."""
    if isinstance(value, list | tuple):
        return [_setting(item) for item in value]
    return _content(value) if isinstance(value, Path) else value


def _content(path: Path) -> dict[str, str]:
    """Return the name of a file, and a digest of what is in it."""
    content = path.read_bytes() if path.is_file() else b""
    return {"name": str(path), "digest": hashlib.blake2b(content, digest_size=16).hexdigest()}


def differences(before: Settings, now: Settings) -> list[str]:
    """Return in words where the settings of two runs differ."""
    names = dict.fromkeys([*now, *before])
    pairs = ((name, before.get(name), now.get(name)) for name in names)
    return [words for name, old, new in pairs if (words := _difference(name, old, new))]


def _difference(name: str, old: Any, new: Any) -> str:
    if _is_content(old) and _is_content(new):
        if old["digest"] == new["digest"]:
            return ""
        if old["name"] == new["name"]:
            return f"{name} {new['name']} has changed"
    return "" if old == new else f"{name} was {_shown(old)} and is {_shown(new)}"


def _is_content(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"name", "digest"}


def _shown(value: Any) -> str:
    if _is_content(value):
        value = value["name"]
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "on" if value else "off"
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"


def digest(item: Any) -> bytes:
    """Return a digest of an input item, by its `repr`."""
    return hashlib.blake2b(repr(item).encode("utf-8", "surrogatepass"), digest_size=8).digest()


class RunLog:
    """The log of a run, open to append entries.

    Attributes:
        entries: the number of entries that it had when it was opened, without those of records
            that are missing in the output.
    """

    def __init__(self, file: BinaryIO, settings: Settings, size: int) -> None:
        """Begin a log in an empty file, or continue the one in `file`.

        Args:
            settings: those of this run.
            size: of the output, in bytes.

        Raises:
            ValueError: the file holds something else than a log.
            HftoolError: the run has other settings; the message names them.
        """
        self._file = file
        settings = json.loads(json.dumps(settings))
        file.seek(0)
        header = file.readline(MAX_HEADER)
        if not header.endswith(b"\n"):  # a new file, or one torn before the first record
            if size:
                raise ValueError("no settings")
            file.seek(0)
            file.write(json.dumps(settings).encode() + b"\n")
            header = b""
        elif changed := differences(_parsed(header), settings):
            raise HftoolError("; ".join(changed))
        start = file.tell()
        self._entries = _fitting(file.read(), size) if header else b""
        self.entries = len(self._entries) // ENTRY.size
        file.seek(start + len(self._entries))
        file.truncate()
        file.flush()

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries that the log had when it was opened."""
        return (Entry(*values) for values in ENTRY.iter_unpack(self._entries))

    def last_end(self) -> int:
        """Return where the last of these records ends."""
        last = self._entries[-ENTRY.size :]
        return Entry(*ENTRY.unpack(last)).end if last else 0

    def append(self, entry: Entry) -> None:
        """Write an entry, and flush."""
        self._file.write(ENTRY.pack(entry.end, entry.digest, entry.failed))
        self._file.flush()


def _parsed(header: bytes) -> Settings:
    try:
        settings = json.loads(header)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(settings, dict):
        raise ValueError("not an object")
    return settings


def _fitting(entries: bytes, size: int) -> bytes:
    """Return the entries of records that lie within the first `size` bytes of the output.

    Raises:
        ValueError: a record ends before the one that precedes it.
    """
    count = end = 0
    for entry_end, _, _ in ENTRY.iter_unpack(entries[: len(entries) - len(entries) % ENTRY.size]):
        if entry_end < end:
            raise ValueError("records out of order")
        end = entry_end
        count += end <= size
    return entries[: count * ENTRY.size]


def keep_complete(log: Path, target: Path, output: Path) -> None:
    """Keep a copy of the log of a complete run in the cache, so that the run can be continued when
    its input has grown.

    Args:
        target: the path that the output will have.
        output: the file that has its content now.
    """
    with suppress(OSError, HftoolError):  # without a cache, the run is complete all the same
        kept = complete_log(target, output)
        config.cache_path().mkdir(mode=0o700, parents=True, exist_ok=True)
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        kept.write_bytes(log.read_bytes())
        logs = sorted(kept.parent.glob("*.run"), key=lambda path: path.stat().st_mtime)
        for old in logs[:-MAX_COMPLETE_RUNS]:
            old.unlink(missing_ok=True)


def complete_log(target: Path, output: Path) -> Path:
    """Return the path of the log of a complete run: it depends on the output's path and content.

    Raises:
        HftoolError: the user has no home folder for a cache.
    """
    with output.open("rb") as file:
        sums = hashlib.file_digest(file, "sha256")
    sums.update(str(target).encode("utf-8", "surrogateescape"))
    return config.cache_path() / "runs" / f"{sums.hexdigest()}.run"

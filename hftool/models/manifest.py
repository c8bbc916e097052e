"""The manifest of a converted copy: what it was made of, and its files."""

import fnmatch
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from hftool.errors import HftoolError
from hftool.models.file_hashes import hash_file

Kind = Literal["adapted", "gguf", "gguf-tokenizer", "minilm-sst2", "quantized", "tokenizer"]

FORMAT_VERSION = 5  # of the copies; with another one, all copies are made again
MANIFEST = "hftool.json"
QUANTIZED = "quantized.pt"
REQUIRED_FILES: Mapping[Kind, Sequence[str]] = {
    "adapted": ("config.json", "*.safetensors"),
    "gguf": ("config.json", "tokenizer.json", "*.safetensors"),
    "gguf-tokenizer": ("config.json", "tokenizer.json"),
    "minilm-sst2": ("config.json", "tokenizer.json", "model.safetensors"),
    "quantized": (QUANTIZED,),
    "tokenizer": ("tokenizer.json",),
}
SECOND = 10**9  # nanoseconds


def missing_files(kind: Kind, names: Sequence[str]) -> list[str]:
    """Return the files that a copy of this kind must have, and that are not among `names`."""
    return [pattern for pattern in REQUIRED_FILES[kind] if not fnmatch.filter(names, pattern)]


def write_manifest(
    folder: Path,
    kind: Kind,
    source: Path,
    made_of: Mapping[str, str],
    adapters: Sequence[tuple[Path, float]],
) -> None:
    """Write the manifest of the files in a folder.

    `source` is the file or folder that was converted, with `adapters` by scale; `made_of` has the
    SHA-256 of their files.
    """
    files = {}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        stat = path.stat()
        files[str(path.relative_to(folder))] = {
            "size": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
            "sha256": hash_file(path),
        }
    manifest = {
        "format": FORMAT_VERSION,
        "kind": kind,
        "source": str(source),
        "made_of": made_of,
        "adapters": [[str(path), scale] for path, scale in adapters],
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a copy, {} if it has none or a broken one."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def is_complete(folder: Path) -> bool:
    """Return whether a copy exists with all its files, unchanged since they were written.

    Normally this looks only at sizes and times. If a time differs, as in a copy of the cache
    folder, it compares the content with the SHA-256 in the manifest, and notes the new times there.
    """
    try:
        manifest = read_manifest(folder)
        files = manifest["files"]
        if missing_files(manifest["kind"], list(files)):
            return False
        stats = {name: (folder / name).stat() for name in files}
        if any(stats[name].st_size != files[name]["size"] for name in files):
            return False
        touched = [
            name
            for name, stat in stats.items()
            if not _is_same_time(stat.st_mtime_ns, files[name]["mtime_ns"])
        ]
        for name in touched:
            if hash_file(folder / name) != files[name]["sha256"]:
                return False
            files[name]["mtime_ns"] = stats[name].st_mtime_ns
    except (OSError, ValueError, KeyError, TypeError, AttributeError, HftoolError):
        return False
    if touched:
        with suppress(OSError):  # in a cache that can't be written, content is compared each time
            _replace_manifest(folder, manifest)
    return True


def _is_same_time(time: int, expected: int) -> bool:
    """Compare times of change in nanoseconds; some programs that copy files drop the fraction of a
    second."""
    return time == expected or (time % SECOND == 0 and time == expected - expected % SECOND)


def _replace_manifest(folder: Path, manifest: Any) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{folder.name}.", dir=folder.parent)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=2)
    os.replace(name, folder / MANIFEST)

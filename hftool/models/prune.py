"""Remove the converted copies that nothing uses any more."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hftool import config
from hftool.catalogue import BUILT_IN
from hftool.errors import HftoolError
from hftool.models.converted_copies import (
    Conversion,
    adapted_conversion,
    copies_lock,
    copies_path,
    gguf_conversion,
    minilm_conversion,
    quantized_conversion,
    tokenizer_conversion,
)
from hftool.models.file_hashes import remembered_hashes, sha256_of
from hftool.models.hub_cache import cached_folder
from hftool.models.hub_gguf import cached_gguf
from hftool.models.manifest import read_manifest
from hftool.models.references import (
    AdaptedMiniLM,
    AdaptedModel,
    GgufFile,
    HubGguf,
    HubModel,
    LocalFolder,
    ModelSource,
    resolve_reference,
)


@dataclass(frozen=True)
class PrunedCopy:
    """A converted copy that nothing uses any more, or what an interrupted conversion left behind.

    `name` is its folder in the cache, `source` the file or folder that it was made of, None if that
    is unknown. `removed` is false with `--dry-run`.
    """

    name: str
    source: str | None
    size_bytes: int
    removed: bool


def prune(*, dry_run: bool = False) -> Iterator[PrunedCopy]:
    """Remove the converted copies that nothing uses, and yield each of them.

    A copy is in use if hftool would use it for an embedded model, for a model with an alias, or for
    the file or folder that it was made of. With `dry_run` nothing is removed.

    Raises:
        HftoolError: a conversion is running, or a copy can't be removed.
    """
    if not copies_path().is_dir():
        return
    from filelock import Timeout

    try:
        with nullcontext() if dry_run else copies_lock().acquire(timeout=0):
            used = set(_folders_in_use())
            for folder in sorted(path for path in copies_path().iterdir() if path.is_dir()):
                if folder not in used:
                    yield _pruned(folder, dry_run=dry_run)
            if not dry_run:
                _forget_changed_files()
    except Timeout:
        raise HftoolError("a model is being converted", "try again when that has ended") from None
    except OSError as error:
        raise HftoolError(f"cannot remove {error.filename}: {error.strerror}") from None


def _pruned(folder: Path, *, dry_run: bool) -> PrunedCopy:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    source = read_manifest(folder).get("source")
    if not dry_run:
        shutil.rmtree(folder)
    return PrunedCopy(folder.name, source, size, not dry_run)


def _forget_changed_files() -> None:
    for entry, file in remembered_hashes():
        if file is None:
            entry.unlink(missing_ok=True)


def _folders_in_use() -> Iterator[Path]:
    """Yield the folders of the copies that are made of something that exists."""
    for name in (*BUILT_IN, *config.load().aliases):
        with suppress(HftoolError):  # nothing can be converted from what is gone or broken
            yield from _folders_of(resolve_reference(name))
    for _, file in remembered_hashes():
        if file is not None:
            yield from _folders_of(GgufFile(file))
    for copy in copies_path().iterdir():
        manifest = read_manifest(copy)
        source = Path(str(manifest.get("source")))
        with suppress(HftoolError):
            if manifest.get("kind") == "quantized":
                if source.is_dir():
                    yield quantized_conversion(source, _settings(manifest["made_of"])).folder
            elif manifest.get("kind") == "adapted":
                adapters = [(Path(str(path)), scale) for path, scale in manifest["adapters"]]
                if all(path.is_dir() for path in (source, *(path for path, _ in adapters))):
                    yield adapted_conversion(source, adapters).folder
            else:
                yield from _folders_of(_source(manifest.get("kind"), source))


def _settings(made_of: Mapping[str, str]) -> dict[str, str]:
    """Return how weights were quantized, and by what."""
    names = ("bits", "dtype", "kernels", "cpu")
    return {name: made_of[name] for name in names if name in made_of}


def _source(kind: Any, path: Path) -> ModelSource:
    """Return what a copy was made of, as it is now."""
    if kind == "minilm-sst2":
        return AdaptedMiniLM(path, sha256_of(path / "model.safetensors"))
    return LocalFolder(path) if path.is_dir() else GgufFile(path)


def _folders_of(source: ModelSource) -> Iterator[Path]:
    """Yield the folders of the copies, made or not, that hftool would use for a model."""
    conversions: list[Conversion] = []
    if isinstance(source, HubGguf):
        path = cached_gguf(source)
        if path is None:
            return
        source = GgufFile(path)
    if isinstance(source, GgufFile):
        conversions = [gguf_conversion(source), gguf_conversion(source, "gguf-tokenizer")]
    elif isinstance(source, AdaptedMiniLM):
        base = cached_folder(source.base) if isinstance(source.base, HubModel) else source.base
        if base is not None:
            conversions = [minilm_conversion(base, source.sha256)]
    elif not isinstance(source, AdaptedModel):  # the manifest of its copy tells more
        folder = cached_folder(source) if isinstance(source, HubModel) else source.path
        if folder is not None and not (folder / "tokenizer.json").is_file():
            conversions = [tokenizer_conversion(folder)]
    yield from (conversion.folder for conversion in conversions)

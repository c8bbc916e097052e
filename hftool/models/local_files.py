"""The folder a model is loaded from: found, fetched or prepared."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from hftool.errors import HftoolError
from hftool.json_files import read_json
from hftool.models import prepared_cache
from hftool.models.hub import Need, cached_folder, missing_files, snapshot
from hftool.models.references import (
    AdaptedMiniLM,
    GgufFile,
    HubModel,
    LocalFolder,
    ModelSource,
    resolve_reference,
)
from hftool.models.resident import cached
from hftool.models.validation import require_own_files
from hftool.options.model import SourceOptions
from hftool.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hftool")


def ensure_local(ref: str, need: Need, options: SourceOptions) -> Path:
    """The folder with a model's files, fetched and prepared where they aren't yet.

    Raises:
        HftoolError: the reference means nothing, or the files can't be had.
    """
    source = resolve_reference(ref, options.revision)
    if isinstance(source, GgufFile):
        return prepared_cache.prepared_gguf(source, need)
    if isinstance(source, AdaptedMiniLM):
        base = source.base
        if isinstance(base, HubModel):
            base = snapshot(base, "model", options)
        return prepared_cache.prepared_minilm(base, source.sha256)
    folder = source.path if isinstance(source, LocalFolder) else snapshot(source, need, options)
    if not options.trust_remote_code:
        require_own_files(folder)
    if need == "tokenizer" and not (folder / "tokenizer.json").is_file():
        return prepared_cache.prepared_tokenizer(LocalFolder(folder))
    if need == "model" and isinstance(source, LocalFolder):
        if missing := missing_files(folder, need, options.trust_remote_code):
            raise HftoolError(
                f"{folder} has no {missing[0]}",
                "its weights are pickled: --trust-remote-code allows those"
                if missing == ["model.safetensors"] and any(folder.glob("pytorch_model*.bin*"))
                else None,
            )
    return folder


def local_folder(source: ModelSource, pickled: bool = False) -> Path | None:
    """The folder that would be loaded, None where it is not on this machine yet."""
    if isinstance(source, LocalFolder):
        if not pickled:
            require_own_files(source.path)
        return source.path
    if isinstance(source, GgufFile):
        return prepared_cache.find_prepared(source)
    if isinstance(source, AdaptedMiniLM):
        base = source.base
        folder = _complete(base, pickled=False) if isinstance(base, HubModel) else base
        return folder and prepared_cache.find_prepared_minilm(folder)
    return _complete(source, pickled)


def _complete(model: HubModel, pickled: bool) -> Path | None:
    folder = cached_folder(model)
    return folder if folder and not missing_files(folder, "model", pickled) else None


def load_tokenizer(ref: str, options: SourceOptions) -> Tokenizer:
    """The tokenizer of a model, without its weights.

    Raises: as `ensure_local`.
    """
    folder = ensure_local(ref, "tokenizer", options)

    def read() -> Tokenizer:
        began = time.perf_counter()
        tokenizer = Tokenizer(folder, ref)
        seconds = time.perf_counter() - began
        log.debug("loaded the tokenizer of %s in %.2f s", folder, seconds)
        return tokenizer

    return cached(read, folder, Tokenizer, ref)


def architectures_of(folder: Path) -> Sequence[str]:
    """The architectures a folder's config.json names; empty where it names none.

    Raises:
        HftoolError: config.json is broken.
    """
    named = read_json(folder / "config.json").get("architectures")
    return [n for n in named if isinstance(n, str)] if isinstance(named, list) else []

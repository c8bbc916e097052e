"""The folder that a model is loaded from; files are downloaded and converted where needed."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hftool.catalogue import BUILT_IN
from hftool.errors import HftoolError
from hftool.json_files import read_json
from hftool.models.adapters import CONFIG as ADAPTER
from hftool.models.adapters import base_reference, is_adapter, require_adapter
from hftool.models.converted_copies import (
    adapted_conversion,
    convert_if_needed,
    converted_adapted,
    converted_gguf,
    converted_tokenizer,
    find_converted_gguf,
    find_converted_minilm,
    minilm_conversion,
)
from hftool.models.hub import download_if_missing
from hftool.models.hub_cache import Need, cached_folder, missing_files
from hftool.models.hub_gguf import cached_gguf, download_gguf_if_missing
from hftool.models.manifest import is_complete
from hftool.models.references import (
    AdaptedMiniLM,
    AdaptedModel,
    GgufFile,
    HubGguf,
    HubModel,
    LocalFolder,
    ModelSource,
    gguf_parts,
    resolve_reference,
)
from hftool.models.resident import cached
from hftool.models.validation import require_own_files
from hftool.options.model import SourceOptions
from hftool.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hftool")


def ensure_local(source: ModelSource, need: Need, options: SourceOptions, name: str) -> Path:
    """Return the folder with a model's files; download and convert them first where needed.

    `name` is the model's name as the user gave it, for the log.

    Raises:
        HftoolError: the files are missing or broken, or the hub can't be reached.
    """
    if isinstance(source, AdaptedModel):
        return _adapted_folder(source, need, options, name)
    if isinstance(source, HubGguf):
        source = GgufFile(download_gguf_if_missing(source, options))
    if isinstance(source, GgufFile):
        return converted_gguf(source, need, name)
    if isinstance(source, AdaptedMiniLM):
        base = source.base
        if isinstance(base, HubModel):
            base = download_if_missing(base, "model", options)
        return convert_if_needed(minilm_conversion(base, source.sha256), name)
    if isinstance(source, LocalFolder):
        folder = source.path
    else:
        folder = download_if_missing(source, need, options)
    if is_adapter(folder):
        return _adapted_folder(AdaptedModel(None, ((source, 1.0),)), need, options, name)
    if not options.trust_remote_code:
        require_own_files(folder)
    if (folder / ADAPTER).is_file():  # transformers would load the model that the adapter names
        raise HftoolError(
            f"{folder} has a model and an adapter", "put them into folders of their own"
        )
    if need == "tokenizer" and not (folder / "tokenizer.json").is_file():
        return converted_tokenizer(folder, name)
    if need == "model" and isinstance(source, LocalFolder):
        if missing := missing_files(folder, need, options.trust_remote_code):
            pickled = missing == ["model.safetensors"] and any(folder.glob("pytorch_model*.bin*"))
            raise HftoolError(
                f"{folder} has no {missing[0]}",
                "its weights are pickled: --trust-remote-code allows those" if pickled else None,
            )
    return folder


def _adapted_folder(source: AdaptedModel, need: Need, options: SourceOptions, name: str) -> Path:
    """Return the folder with a model that has adapters merged into its weights; for the tokenizer,
    that of an adapter that has one, or else the model's own."""
    options = replace(options, revision=None)
    adapters = [(_adapter_folder(adapter, options), scale) for adapter, scale in source.adapters]
    base = source.base or _named_base(adapters[0][0])
    if need == "tokenizer":
        own = [folder for folder, _ in adapters if (folder / "tokenizer.json").is_file()]
        return own[-1] if own else ensure_local(base, need, options, name)
    return converted_adapted(ensure_local(base, need, options, name), adapters, name)


def _adapter_folder(source: ModelSource, options: SourceOptions) -> Path:
    if isinstance(source, HubModel):
        folder = download_if_missing(source, "model", options)
    elif isinstance(source, LocalFolder):
        folder = source.path
    else:
        raise HftoolError(f"{source} is not an adapter", "an adapter is a folder that peft wrote")
    require_adapter(folder)
    if not options.trust_remote_code:
        require_own_files(folder)
    return folder


def _named_base(folder: Path) -> ModelSource:
    """Return the model that an adapter names; from an installed package if it is in one."""
    ref, revision = base_reference(folder)
    log.info("%s is an adapter for %s", folder, ref)
    alias = next((a.name for a in BUILT_IN.values() if a.repo == ref and not revision), ref)
    return resolve_reference(alias, revision if not Path(alias).exists() else None)


def local_folder(source: ModelSource, pickled: bool = False) -> Path | None:
    """Return the folder that a model is loaded from, None if it is yet to be downloaded or
    converted.

    With `pickled` weights may be pickled, and links may lead out of the folder.

    Raises:
        HftoolError: the folder has a link that leads out of it, or a broken index.
    """
    if isinstance(source, LocalFolder):
        if is_adapter(source.path):
            return _local_adapted(AdaptedModel(None, ((source, 1.0),)))
        if not pickled:
            require_own_files(source.path)
        return source.path
    if isinstance(source, AdaptedModel):
        return _local_adapted(source)
    if isinstance(source, HubGguf):
        path = cached_gguf(source)
        return path and find_converted_gguf(GgufFile(path))
    if isinstance(source, GgufFile):
        return find_converted_gguf(source)
    if isinstance(source, AdaptedMiniLM):
        base = _base_folder(source)
        return base and find_converted_minilm(base, source.sha256)
    return _complete_snapshot(source, pickled)


def _local_adapted(source: AdaptedModel) -> Path | None:
    """Return the converted copy of a model with adapters, None if there is none yet."""
    adapters = []
    for adapter, scale in source.adapters:
        folder = cached_folder(adapter) if isinstance(adapter, HubModel) else None
        folder = adapter.path if isinstance(adapter, LocalFolder) else folder
        if folder is None:
            return None
        adapters.append((folder, scale))
    base = local_folder(source.base or _named_base(adapters[0][0]))
    if base is None:
        return None
    folder = adapted_conversion(base, adapters).folder
    return folder if is_complete(folder) else None


def source_size(source: ModelSource) -> int | None:
    """Return the bytes of the weights that a model's conversion starts from; None if they are not
    on this machine, or the model needs no conversion."""
    if isinstance(source, HubGguf):
        path = cached_gguf(source)
        return source_size(GgufFile(path)) if path else None
    if isinstance(source, GgufFile):
        return sum(part.stat().st_size for part in gguf_parts(source.path) if part.is_file())
    if isinstance(source, AdaptedMiniLM) and (base := _base_folder(source)):
        return (base / "model.safetensors").stat().st_size
    return None


def _base_folder(source: AdaptedMiniLM) -> Path | None:
    base = source.base
    return _complete_snapshot(base, pickled=False) if isinstance(base, HubModel) else base


def _complete_snapshot(model: HubModel, pickled: bool) -> Path | None:
    folder = cached_folder(model)
    return folder if folder and not missing_files(folder, "model", pickled) else None


def load_tokenizer(name: str, options: SourceOptions) -> Tokenizer:
    """Load the tokenizer of a model, without its weights.

    Raises:
        HftoolError: the reference is unknown, or as `ensure_local`.
    """
    source = resolve_reference(name, options.revision)
    return read_tokenizer(ensure_local(source, "tokenizer", options, name), name)


def read_tokenizer(folder: Path, name: str) -> Tokenizer:
    """Load a tokenizer from its folder.

    Raises:
        HftoolError: a file is missing or broken.
    """

    def read() -> Tokenizer:
        began = time.perf_counter()
        tokenizer = Tokenizer(folder, name)
        seconds = time.perf_counter() - began
        log.debug("loaded the tokenizer of %s in %.2f s", folder, seconds)
        return tokenizer

    return cached(read, folder, Tokenizer, name)


def architectures_of(folder: Path) -> Sequence[str]:
    """Return the architectures that a folder's config.json names, perhaps none.

    Raises:
        HftoolError: config.json is broken.
    """
    architectures = read_json(folder / "config.json").get("architectures")
    if not isinstance(architectures, list):
        return []
    return [name for name in architectures if isinstance(name, str)]

"""Facts about models, without loading them, and the user's aliases."""

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hftool import config
from hftool.catalogue import BUILT_IN, Alias
from hftool.errors import HftoolError, UsageError
from hftool.json_files import read_json
from hftool.models.hub import download
from hftool.models.hub_gguf import download_gguf
from hftool.models.local_files import architectures_of, ensure_local, local_folder, source_size
from hftool.models.references import (
    AdaptedMiniLM,
    AdaptedModel,
    GgufFile,
    HubGguf,
    HubModel,
    LocalFolder,
    ModelSource,
    endpoint_address,
    resolve_reference,
)
from hftool.models.validation import read_tensor_shapes
from hftool.nn.architectures import context_length, task_of
from hftool.options.model import SourceOptions
from hftool.tokenization.chat_templates import read_chat_templates

Fits = Literal["float32", "bfloat16", "none"]
_ALIAS_NAME = re.compile(r"[\w][\w.-]*")
WEIGHT_BYTES = {"float32": 4, "bfloat16": 2}
SHARE_OF_WEIGHTS = 0.8  # of the memory; the rest is for the system, the cache and the activations


log = logging.getLogger("hftool")


@dataclass(frozen=True)
class AliasEntry:
    """An alias, and the model that it names.

    `here` is true if the model can be used without a network. `size_bytes` is then the size of its
    files, or of what it is yet to be converted from.
    """

    alias: str
    model: str
    task: str | None
    here: bool
    size_bytes: int | None
    purpose: str
    parameters: int | None
    context_length: int | None
    license: str | None
    gated: bool | None
    float32_bytes: int | None
    bfloat16_bytes: int | None
    machine_bytes: int
    fits: Fits | None


@dataclass(frozen=True)
class ModelEntry:
    """Facts about a model; None if hftool does not know one without asking the hub.

    `path` is the folder that the model is loaded from, None if it is yet to be downloaded or
    converted. `size_bytes` is the size of its files, or of what it is yet to be converted from. The
    weights take `float32_bytes` or `bfloat16_bytes` of memory, and this machine has
    `machine_bytes`; `fits` is the more exact of the two precisions that leaves a fifth of it free,
    "none" if neither does.
    """

    ref: str
    name: str
    task: str | None
    source: str
    path: str | None
    architecture: str | None
    parameters: int | None
    context_length: int | None
    dtype: str | None
    size_bytes: int | None
    license: str | None
    gated: bool | None
    chat_template: bool | None
    float32_bytes: int | None
    bfloat16_bytes: int | None
    machine_bytes: int
    fits: Fits | None


def aliases() -> Iterator[AliasEntry]:
    """Yield the user's aliases, then the built-in ones that they don't hide."""
    own = config.load().aliases
    for name, target in own.items():
        yield _alias_entry(name, target, BUILT_IN.get(target), "yours")
    for name, alias in BUILT_IN.items():
        if name not in own:
            yield _alias_entry(name, alias.repo, alias, alias.purpose)


def _alias_entry(name: str, target: str, alias: Alias | None, purpose: str) -> AliasEntry:
    try:
        source = resolve_reference(name)
        folder = local_folder(source)
        facts = _facts(source, folder, alias)
        here = folder is not None or source_size(source) is not None
    except HftoolError:  # what the alias names was removed, or is broken
        facts, here = _catalogue_facts(alias), False
    return AliasEntry(
        alias=name,
        model=target,
        task=facts["task"],
        here=here,
        size_bytes=facts["size_bytes"],
        purpose=purpose,
        parameters=facts["parameters"],
        context_length=facts["context_length"],
        license=alias.license if alias else None,
        gated=alias.gated if alias else None,
        **_memory(facts["parameters"]),
    )


def _memory(parameters: int | None) -> dict[str, Any]:
    import psutil

    machine = psutil.virtual_memory().total
    sizes = {name: parameters and size * parameters for name, size in WEIGHT_BYTES.items()}
    fitting = (n for n, size in sizes.items() if size and size <= SHARE_OF_WEIGHTS * machine)
    return {
        **{f"{name}_bytes": size for name, size in sizes.items()},
        "machine_bytes": machine,
        "fits": next(fitting, "none") if parameters else None,
    }


def set_alias(name: str, ref: str) -> None:
    """Give a model a name of the user's own.

    Raises:
        UsageError: the name is not valid.
        HftoolError: the reference is unknown, or the config file can't be written.
    """
    if not _ALIAS_NAME.fullmatch(name):
        raise UsageError(f"'{name}' can't be an alias", "letters, digits, '.', '-' and '_'")
    if address := endpoint_address(ref):
        config.set_alias(name, address)
        return
    source = resolve_reference(ref)
    # An alias of an alias names the model that this one names now. A path is stored as an
    # absolute one, so that it stays valid in other folders.
    target = config.load().aliases.get(ref, ref)
    if target not in BUILT_IN and isinstance(source, LocalFolder | GgufFile):
        target = str(source.path)
    config.set_alias(name, target)


def remove_alias(name: str) -> None:
    """Remove an alias of the user's.

    Raises:
        HftoolError: there is none with this name.
    """
    if name not in config.load().aliases:
        hint = "built-in aliases can't be removed" if name in BUILT_IN else None
        raise HftoolError(f"you have no alias '{name}'", hint)
    config.set_alias(name, None)


def show(ref: str, options: SourceOptions) -> ModelEntry:
    """Return what this machine knows about a model, without asking the hub.

    Raises:
        HftoolError: the reference is unknown.
    """
    entry = _model_entry(ref, resolve_reference(ref, options.revision), options)
    if entry.path is None and entry.task is None:  # nor is it in the catalogue
        log.info("%s is not on this machine; to look for it: hftool models pull %s", ref, ref)
    return entry


def pull(ref: str, options: SourceOptions) -> ModelEntry:
    """Download a model's newest files, convert them if needed, and return what is then known.

    Raises:
        HftoolError: the reference is unknown, or as `ensure_local`.
    """
    source = resolve_reference(ref, options.revision)
    repository = source.base if isinstance(source, AdaptedMiniLM) else source
    if isinstance(repository, HubModel) and not options.offline:
        download(repository, "model", options)
    elif isinstance(repository, HubGguf) and not options.offline:
        download_gguf(repository, options)
    ensure_local(source, "model", options, ref)
    ensure_local(source, "tokenizer", options, ref)
    return _model_entry(ref, source, options)


def _model_entry(ref: str, source: ModelSource, options: SourceOptions) -> ModelEntry:
    alias = BUILT_IN.get(config.load().aliases.get(ref, ref))
    if alias is None and isinstance(source, HubModel):
        alias = next((a for a in BUILT_IN.values() if a.repo == source.repo), None)
    folder = local_folder(source, options.trust_remote_code)
    facts = _facts(source, folder, alias)
    return ModelEntry(
        ref=ref,
        name=alias.repo if alias else _name(source),
        source=_origin(source),
        path=str(folder) if folder else None,
        license=alias.license if alias else None,
        gated=alias.gated if alias else None,
        **facts,
        **_memory(facts["parameters"]),
    )


def _facts(source: ModelSource, folder: Path | None, alias: Alias | None) -> dict[str, Any]:
    """Return the facts in the files of a folder, or else those in the catalogue."""
    if folder is None:
        return {**_catalogue_facts(alias), "size_bytes": source_size(source)}
    architecture = next(iter(architectures_of(folder)), None)
    config = read_json(folder / "config.json")
    text_config = config.get("text_config")
    text_config = text_config if isinstance(text_config, dict) else config
    dtypes, parameters = _tensors(folder)
    return {
        "task": architecture and task_of(architecture),
        "architecture": architecture,
        "parameters": parameters,
        "context_length": context_length(text_config),
        "dtype": "+".join(dtypes) or None,
        "size_bytes": sum(p.stat().st_size for p in folder.iterdir() if p.is_file()),
        "chat_template": bool(
            read_chat_templates(folder, read_json(folder / "tokenizer_config.json"))
        ),
    }


def _catalogue_facts(alias: Alias | None) -> dict[str, Any]:
    return {
        "task": alias.task if alias else None,
        "architecture": None,
        "parameters": alias.parameters if alias else None,
        "context_length": alias.context_length if alias else None,
        "dtype": None,
        "size_bytes": None,
        "chat_template": None,
    }


def _tensors(folder: Path) -> tuple[list[str], int | None]:
    """Return the dtypes in a folder's safetensors files, most frequent first, and how many numbers
    the files have."""
    counts: dict[str, int] = {}
    for file in sorted(folder.glob("*.safetensors")):
        for dtype, shape in read_tensor_shapes(file).values():
            counts[dtype] = counts.get(dtype, 0) + math.prod(shape)
    return sorted(counts, key=lambda d: -counts[d]), sum(counts.values()) or None


def _name(source: ModelSource) -> str:
    if isinstance(source, HubGguf):
        return f"{source.repo}:{source.which}"
    return source.repo if isinstance(source, HubModel) else str(getattr(source, "path", ""))


def _origin(source: ModelSource) -> str:
    if isinstance(source, AdaptedModel):
        first = [_origin(source.base)] if source.base else []
        return " with ".join(
            [*first, *(f"{_origin(a)} x {scale:g}" for a, scale in source.adapters)]
        )
    if isinstance(source, HubModel | HubGguf):
        return f"hub: {_name(source)}" + (f"@{source.revision}" if source.revision else "")
    if isinstance(source, AdaptedMiniLM):
        base = source.base
        return f"{base.repo if isinstance(base, HubModel) else base} with hftool's adapter"
    return f"{'GGUF file' if isinstance(source, GgufFile) else 'folder'}: {source.path}"

"""What there is to know of a model without loading it."""

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
from hftool.models.local_files import architectures_of, ensure_local, local_folder
from hftool.models.references import (
    AdaptedMiniLM,
    GgufFile,
    HubModel,
    LocalFolder,
    ModelSource,
    resolve_reference,
)
from hftool.models.validation import tensors
from hftool.nn.architectures import CONTEXT_LENGTH_KEYS, task_of
from hftool.options.model import SourceOptions

Fits = Literal["float32", "bfloat16", "none"]
_ALIAS_NAME = re.compile(r"[\w][\w.-]*")
WEIGHT_BYTES = {"float32": 4, "bfloat16": 2}
SHARE_OF_WEIGHTS = 0.8  # of the memory; the rest is the system's, the cache's, the activations'


@dataclass(frozen=True)
class AliasEntry:
    """An alias, what it means, whether the model is here, and what it needs; see `ModelEntry`."""

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
    """What is known of a model; None where it is not known (on this machine, without asking).

    `path` is the folder that would be loaded, None when it is not here. The weights take
    `float32_bytes` or `bfloat16_bytes` of memory, this machine has `machine_bytes`; `fits` is the
    more exact of the two that leaves a fifth of it free, "none" where neither does.
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
    """The user's aliases, then the built-in ones they don't hide."""
    own = config.load().aliases
    for name, target in own.items():
        yield _alias_entry(name, target, BUILT_IN.get(target), "yours")
    for name, alias in BUILT_IN.items():
        if name not in own:
            yield _alias_entry(name, alias.repo, alias, alias.purpose)


def _alias_entry(name: str, target: str, alias: Alias | None, purpose: str) -> AliasEntry:
    try:
        folder = local_folder(resolve_reference(name))
        known = _facts(folder, alias)
    except HftoolError:  # an alias may name what is gone or broken by now
        folder, known = None, _facts(None, alias)
    return AliasEntry(
        alias=name,
        model=target,
        task=known["task"],
        here=folder is not None,
        size_bytes=known["size_bytes"],
        purpose=purpose,
        parameters=known["parameters"],
        context_length=known["context_length"],
        license=alias.license if alias else None,
        gated=alias.gated if alias else None,
        **_memory(known["parameters"]),
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
        UsageError: the name can't be one.
        HftoolError: the reference means nothing, or the config file can't be written.
    """
    if not _ALIAS_NAME.fullmatch(name):
        raise UsageError(f"'{name}' can't be an alias", "letters, digits, '.', '-' and '_'")
    source = resolve_reference(ref)
    # An alias of an alias means what that one means now; a path stays right in other folders.
    target = config.load().aliases.get(ref, ref)
    if target not in BUILT_IN and isinstance(source, LocalFolder | GgufFile):
        target = str(source.path)
    config.set_alias(name, target)


def remove_alias(name: str) -> None:
    """Forget an alias of the user's.

    Raises:
        HftoolError: there is none of that name.
    """
    if name not in config.load().aliases:
        hint = "a built-in alias stays" if name in BUILT_IN else None
        raise HftoolError(f"you have no alias '{name}'", hint)
    config.set_alias(name, None)


def show(ref: str, options: SourceOptions) -> ModelEntry:
    """What is known of a model on this machine; asks nobody.

    Raises:
        HftoolError: the reference means nothing.
    """
    source = resolve_reference(ref, options.revision)
    alias = BUILT_IN.get(config.load().aliases.get(ref, ref))
    if alias is None and isinstance(source, HubModel):
        alias = next((a for a in BUILT_IN.values() if a.repo == source.repo), None)
    folder = local_folder(source, options.trust_remote_code)
    facts = _facts(folder, alias)
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


def pull(ref: str, options: SourceOptions) -> ModelEntry:
    """Fetch a model's newest files, prepare it, and say what is known of it then.

    Raises:
        HftoolError: it can't be had.
    """
    source = resolve_reference(ref, options.revision)
    repository = source.base if isinstance(source, AdaptedMiniLM) else source
    if isinstance(repository, HubModel) and not options.offline:
        download(repository, "model", options)
    ensure_local(ref, "model", options)
    ensure_local(ref, "tokenizer", options)
    return show(ref, options)


def _facts(folder: Path | None, alias: Alias | None) -> dict[str, Any]:
    if folder is None:
        return {
            "task": alias.task if alias else None,
            "architecture": None,
            "parameters": alias.parameters if alias else None,
            "context_length": alias.context_length if alias else None,
            "dtype": None,
            "size_bytes": None,
            "chat_template": None,
        }
    architecture = next(iter(architectures_of(folder)), None)
    config = read_json(folder / "config.json")
    text_config = config.get("text_config")
    text_config = text_config if isinstance(text_config, dict) else config
    lengths = [text_config.get(k) for k in CONTEXT_LENGTH_KEYS]
    dtypes, parameters = _tensors(folder)
    return {
        "task": architecture and task_of(architecture),
        "architecture": architecture,
        "parameters": parameters,
        "context_length": next((n for n in lengths if type(n) is int and n), None),
        "dtype": "+".join(dtypes) or None,
        "size_bytes": _size(folder),
        "chat_template": (folder / "chat_template.jinja").is_file()
        or "chat_template" in read_json(folder / "tokenizer_config.json"),
    }


def _tensors(folder: Path) -> tuple[list[str], int | None]:
    """The dtypes of a folder's safetensors, most frequent first, and how many numbers they hold."""
    counts: dict[str, int] = {}
    for file in sorted(folder.glob("*.safetensors")):
        for dtype, shape in tensors(file).values():
            counts[dtype] = counts.get(dtype, 0) + math.prod(shape)
    return sorted(counts, key=lambda d: -counts[d]), sum(counts.values()) or None


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.iterdir() if p.is_file())


def _name(source: ModelSource) -> str:
    return source.repo if isinstance(source, HubModel) else str(getattr(source, "path", ""))


def _origin(source: ModelSource) -> str:
    if isinstance(source, HubModel):
        return f"hub: {source.repo}" + (f"@{source.revision}" if source.revision else "")
    if isinstance(source, AdaptedMiniLM):
        base = source.base
        return f"{base.repo if isinstance(base, HubModel) else base} with hftool's adapter"
    return f"{'GGUF file' if isinstance(source, GgufFile) else 'folder'}: {source.path}"

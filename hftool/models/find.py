"""From a model reference to the files it means."""

import difflib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from hftool import settings
from hftool.errors import HftoolError, UsageError
from hftool.models.catalogue import BUILT_IN, Embedded

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class LocalFolder:
    """A folder with config.json or tokenizer.json."""

    path: Path


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file; `sha256` where the catalogue says what it must be."""

    path: Path
    sha256: str | None = None


@dataclass(frozen=True)
class HubModel:
    """A repository on the hub."""

    repo: str
    revision: str | None = None


@dataclass(frozen=True)
class AdaptedMiniLM:
    """all-MiniLM-L6-v2 (a folder or a repository), to be merged with hftool's adapter."""

    base: Path | HubModel
    sha256: str


Source = LocalFolder | GgufFile | HubModel | AdaptedMiniLM


def find(ref: str, revision: str | None = None) -> Source:
    """What a reference means: a path, an alias (the user's, then a built-in one), or a hub id.

    Raises:
        HftoolError: it is none of these, or a path that holds no model.
        UsageError: a revision was given for something that has none.
    """
    source = _find(ref, revision)
    if revision and not isinstance(source, HubModel):
        raise UsageError(f"--revision needs a hub model, and '{ref}' is none")
    return source


def _find(ref: str, revision: str | None) -> Source:
    path = Path(ref).expanduser()
    if path.exists() and (found := _local(path)):
        return found
    aliases = settings.load().aliases
    if ref in aliases and aliases[ref] != ref:
        # An alias may name a built-in one; a chain of aliases would hide what is loaded.
        return _built_in_or_hub(aliases[ref], revision) or _not_found(aliases[ref])
    return _built_in_or_hub(ref, revision) or _not_found(ref)


def _local(path: Path) -> Source | None:
    if path.is_file():
        if path.suffix == ".gguf":
            return GgufFile(path.resolve())
        raise HftoolError(
            f"{path} is not a model",
            "a model is a folder with config.json, or a .gguf file",
        )
    if (path / "config.json").is_file() or (path / "tokenizer.json").is_file():
        return LocalFolder(path.resolve())
    return None


def _built_in_or_hub(ref: str, revision: str | None) -> Source | None:
    alias = BUILT_IN.get(ref)
    if alias is None:
        path = Path(ref).expanduser()
        if path.exists() and (found := _local(path)):
            return found
        repo, _, at = ref.partition("@")
        return HubModel(repo, revision or at or None) if _HUB_ID.fullmatch(repo) else None
    file = alias.embedded and embedded_file(alias.embedded)
    if alias.embedded and file and revision is None:
        if file.suffix == ".gguf":
            return GgufFile(file, alias.embedded.sha256)
        return AdaptedMiniLM(file.parent, alias.embedded.sha256)
    hub = HubModel(alias.repo, revision)
    if alias.name == "minilm-sst2" and alias.embedded:
        return AdaptedMiniLM(hub, alias.embedded.sha256)
    return hub


def embedded_file(embedded: Embedded) -> Path | None:
    """A file of an installed package, found without running the package's code."""
    spec = importlib.util.find_spec(embedded.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / embedded.file
    return path if path.is_file() else None


def _not_found(ref: str) -> Source:
    path = Path(ref).expanduser()
    if path.is_dir():
        raise HftoolError(
            f"{path} is not a model folder", "a model folder holds config.json or tokenizer.json"
        )
    names = [*settings.load().aliases, *BUILT_IN]
    close = difflib.get_close_matches(ref, names, n=1)
    looks_like_path = ref.startswith((".", "/", "~")) or ref.endswith(".gguf")
    if looks_like_path:
        raise HftoolError(f"there is no model at {ref}")
    raise HftoolError(
        f"unknown model '{ref}'",
        f"did you mean '{close[0]}'?" if close else "`hftool models list` shows the aliases",
    )

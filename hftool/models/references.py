"""Resolve a model reference: the path, alias or hub id that a user gives."""

import difflib
import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path

from hftool import config
from hftool.catalogue import BUILT_IN, Embedded
from hftool.errors import HftoolError, UsageError

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(?<!\.gguf)", re.ASCII)
# The hub's first models, such as gpt2, have no owner in their ids.
_ONE_WORD_ID = re.compile(r"\w[\w.-]{0,95}(?<!\.gguf)", re.ASCII)
_HUB_PAGE = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([^/?#]+(?:/[^/?#]+)?)"
    r"(?:/(?:tree|blob|resolve)/([^/?#]+))?(?:[/?#].*)?",
    re.DOTALL,
)
TYPING_ERROR = 0.75  # difflib's ratio: so close to an alias, a word is not asked of the hub


@dataclass(frozen=True)
class LocalFolder:
    """A folder with config.json or tokenizer.json."""

    path: Path


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file; `sha256` is what the catalogue expects, None if it has no such file."""

    path: Path
    sha256: str | None = None


@dataclass(frozen=True)
class HubModel:
    """A repository on the hub."""

    repo: str
    revision: str | None = None

    @property
    def has_owner(self) -> bool:
        """Whether the id is OWNER/NAME. Only the hub's first models have ids of one word."""
        return "/" in self.repo


@dataclass(frozen=True)
class AdaptedMiniLM:
    """all-MiniLM-L6-v2, to be merged with hftool's adapter: `base` is a folder or a repository,
    `sha256` what the catalogue expects of its weights."""

    base: Path | HubModel
    sha256: str


ModelSource = LocalFolder | GgufFile | HubModel | AdaptedMiniLM


def resolve_reference(ref: str, revision: str | None = None) -> ModelSource:
    """Return what a reference refers to: a path, an alias (the user's, then a built-in one), a
    hub id, or the address of a model's page on the hub.

    Raises:
        HftoolError: it is none of these, or a path without a model.
        UsageError: a revision was given for something that has none.
    """
    source = _resolve(ref, revision)
    if revision and not isinstance(source, HubModel):
        raise UsageError(f"--revision needs a hub model, which '{ref}' is not")
    return source


def _resolve(ref: str, revision: str | None) -> ModelSource:
    if source := _at_path(ref):
        return source
    target = config.load().aliases.get(ref, ref)
    # An alias may name a built-in one, but not another alias of the user: a chain of aliases would
    # hide what is loaded.
    return _built_in_or_hub(target, revision) or _not_found(target)


def _path(ref: str) -> Path | None:
    """Return the file or folder that a reference names, None if it does not exist."""
    # Unlike Path's methods, this does not raise for names that are too long and closed folders.
    path = os.path.expanduser(ref)
    return Path(path) if os.path.exists(path) else None


def _at_path(ref: str) -> ModelSource | None:
    path = _path(ref)
    if path is None:
        return None
    if path.suffix == ".gguf" and path.is_file():
        return GgufFile(path.resolve())
    if any(os.path.isfile(path / name) for name in ("config.json", "tokenizer.json")):
        return LocalFolder(path.resolve())
    return None


def _built_in_or_hub(ref: str, revision: str | None) -> ModelSource | None:
    alias = BUILT_IN.get(ref)
    if alias is None:
        if source := _at_path(ref):
            return source
        return _hub_model(ref, revision)
    file = alias.embedded and embedded_file(alias.embedded)
    if alias.embedded and file and revision is None:
        if file.suffix == ".gguf":
            return GgufFile(file, alias.embedded.sha256)
        return AdaptedMiniLM(file.parent, alias.embedded.sha256)
    hub = HubModel(alias.repo, revision)
    if alias.name == "minilm-sst2" and alias.embedded:
        return AdaptedMiniLM(hub, alias.embedded.sha256)
    return hub


def _hub_model(ref: str, revision: str | None) -> HubModel | None:
    page = _HUB_PAGE.fullmatch(ref)
    repo, at = page.groups() if page else ref.partition("@")[::2]
    path = _path(ref)
    is_word = _ONE_WORD_ID.fullmatch(repo) and path is None and not _close_aliases(repo)
    if is_word or (_HUB_ID.fullmatch(repo) and not (path and path.is_file())):
        return HubModel(repo, revision or at or None)
    return None


def _close_aliases(ref: str) -> list[str]:
    return difflib.get_close_matches(ref, [*config.load().aliases, *BUILT_IN], 1, TYPING_ERROR)


def embedded_file(embedded: Embedded) -> Path | None:
    """Return a file of an installed package, without running the package's code; None if it is not
    installed."""
    spec = importlib.util.find_spec(embedded.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / embedded.file
    return path if path.is_file() else None


def _not_found(ref: str) -> ModelSource:
    path = _path(ref)
    if path is not None:
        raise HftoolError(
            f"{path} is not a model",
            "a model is a folder with config.json or tokenizer.json, or a .gguf file",
        )
    close = _close_aliases(ref)
    looks_like_path = ref.startswith((".", "/", "~")) or ref.endswith(".gguf")
    if looks_like_path:
        raise HftoolError(f"there is no model at {ref}")
    raise HftoolError(
        f"unknown model '{ref}'",
        f"did you mean '{close[0]}'?" if close else "`hftool models list` shows the aliases",
    )

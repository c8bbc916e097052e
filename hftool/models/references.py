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

# A folder with one of these is a model, an adapter or a tokenizer, and never a hub id.
MODEL_FILES = (
    *("config.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tekken.json"),
    *("tiktoken.model", "vocab.txt", "vocab.json"),
)
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(?<!\.gguf)", re.ASCII)
# The hub's first models, such as gpt2, have no owner in their ids.
_ONE_WORD_ID = re.compile(r"\w[\w.-]{0,95}(?<!\.gguf)", re.ASCII)
# owner/name:Q4_K_M@revision; what follows the name is optional.
_HUB_REFERENCE = re.compile(r"(?P<repo>[^:@]+)(?::(?P<which>\w[\w./-]*))?(?:@(?P<revision>.*))?")
_HUB_PAGE = re.compile(
    r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<id>[^/?#]+(?:/[^/?#]+)?)"
    r"(?:/(?:tree|blob|resolve)/(?P<revision>[^/?#]+)(?:/(?P<file>[^?#]+))?)?(?:[/?#].*)?",
    re.DOTALL,
)
_SCALE = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")
_PART = re.compile(r"-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
TYPING_ERROR = 0.75  # difflib's ratio: so close to an alias, a word is not asked of the hub


@dataclass(frozen=True)
class LocalFolder:
    """A folder with a model, an adapter or a tokenizer."""

    path: Path


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file; `sha256` is what the catalogue expects, None if it has no such file.

    Of a model in several files it is the first, as `first_part` returns it.
    """

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
class HubGguf:
    """A GGUF file in a repository on the hub.

    `which` is its name, or its quantization as in the name: "Q4_K_M".
    """

    repo: str
    which: str
    revision: str | None = None


@dataclass(frozen=True)
class AdaptedMiniLM:
    """all-MiniLM-L6-v2, to be merged with hftool's adapter: `base` is a folder or a repository,
    `sha256` what the catalogue expects of its weights."""

    base: Path | HubModel
    sha256: str


@dataclass(frozen=True)
class AdaptedModel:
    """A model with LoRA adapters on it, each with a scale; `base` is None for the base model that
    the first adapter names."""

    base: "ModelSource | None"
    adapters: tuple[tuple["ModelSource", float], ...]


ModelSource = LocalFolder | GgufFile | HubModel | HubGguf | AdaptedMiniLM | AdaptedModel


def gguf_parts(path: Path) -> list[Path]:
    """Return the files of a model, whose first one may be named `…-00001-of-00003.gguf`."""
    part = _PART.search(path.name)
    if part is None:
        return [path]
    count = int(part["count"])
    start = path.name[: part.start()]
    return [path.with_name(f"{start}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1)]


def first_part(path: Path) -> Path:
    """Return the first file of a model in several files, of which `path` may be any."""
    return gguf_parts(path)[0] if _PART.search(path.name) else path


def resolve_reference(ref: str, revision: str | None = None) -> ModelSource:
    """Return what a reference refers to: a path, an alias (the user's, then a built-in one), a
    hub id, or the address of a model's page on the hub.

    Raises:
        HftoolError: it is none of these, or a path without a model.
        UsageError: a revision was given for something that has none, or that names another one.
    """
    if endpoint_address(ref) is not None:
        raise HftoolError(
            "this works only with a model's files, and an endpoint has none",
            "generate, chat, topk, sample, score and sentiment --labels can use one",
        )
    if "+" in ref and _path(ref) is None:
        return _adapted(ref, revision)
    source = _resolve(ref, revision)
    if revision and not isinstance(source, HubModel | HubGguf):
        raise UsageError(f"--revision needs a hub model, which '{ref}' is not")
    own = _HUB_REFERENCE.fullmatch(ref)
    if revision and own and (own["revision"] or revision) != revision:
        raise UsageError(f"'{ref}' names another revision than --revision {revision}")
    return source


def endpoint_address(ref: str) -> str | None:
    """Return the address of the endpoint that a reference or an alias of the user names, as
    URL#NAME; None if it is another reference."""
    target = config.load().aliases.get(ref, ref)
    remote = target.startswith(("http://", "https://")) and not _HUB_PAGE.fullmatch(target)
    return target if remote else None


def _adapted(ref: str, revision: str | None) -> AdaptedModel:
    model, *adapters = ref.split("+")
    base = resolve_reference(model, revision) if model else None
    if base is None and revision:
        raise UsageError("--revision needs a model; that of an adapter is ADAPTER@REV")
    pairs = []
    for adapter in adapters:
        path, _, scale = adapter.rpartition(":")
        if path and _SCALE.fullmatch(scale):
            pairs.append((resolve_reference(path), float(scale)))
        else:
            pairs.append((resolve_reference(adapter), 1.0))
    return AdaptedModel(base, tuple(pairs))


def _resolve(ref: str, revision: str | None) -> ModelSource:
    if source := _at_path(ref):
        return source
    target = config.load().aliases.get(ref.strip(), ref.strip())
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
        return GgufFile(first_part(path.resolve()))
    if any(os.path.isfile(path / name) for name in MODEL_FILES):
        return LocalFolder(path.resolve())
    files = {first_part(file.resolve()) for file in _gguf_files(path)}
    return GgufFile(files.pop()) if len(files) == 1 else None


def _gguf_files(folder: Path) -> list[Path]:
    """Return a folder's GGUF files, except those with a model's part for images (`mmproj`)."""
    try:
        return [path for path in folder.glob("*.gguf") if "mmproj" not in path.name.lower()]
    except OSError:
        return []


def _built_in_or_hub(ref: str, revision: str | None) -> ModelSource | None:
    alias = BUILT_IN.get(ref)
    if alias is None:
        return _at_path(ref) or _on_hub(ref, revision)
    file = alias.embedded and embedded_file(alias.embedded)
    if alias.embedded and file and revision is None:
        if file.suffix == ".gguf":
            return GgufFile(file, alias.embedded.sha256)
        return AdaptedMiniLM(file.parent, alias.embedded.sha256)
    hub = HubModel(alias.repo, revision)
    if alias.name == "minilm-sst2" and alias.embedded:
        return AdaptedMiniLM(hub, alias.embedded.sha256)
    return hub


def _on_hub(ref: str, revision: str | None) -> HubModel | HubGguf | None:
    """Return the model that an id or the address of a page on the hub refers to, None if it is
    neither."""
    page = _HUB_PAGE.fullmatch(ref)
    found = _HUB_REFERENCE.fullmatch(page["id"] if page else ref)
    if found is None or (page is None and _path(ref)):
        return None
    repo, which = found["repo"], found["which"]
    is_word = _ONE_WORD_ID.fullmatch(repo) and not _close_aliases(repo)
    if not is_word and not _HUB_ID.fullmatch(repo):
        return None
    revision = revision or found["revision"] or (page["revision"] if page else None) or None
    if page and str(page["file"]).endswith(".gguf"):
        which = page["file"]
    return HubGguf(repo, which, revision) if which else HubModel(repo, revision)


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
        a_model = "a model is a folder with config.json or tokenizer.json, or a .gguf file"
        if _HUB_ID.fullmatch(ref) and path.is_dir():
            a_model += f"; for the hub's model: https://huggingface.co/{ref}"
        raise HftoolError(f"{path} is not a model", a_model)
    close = _close_aliases(ref)
    looks_like_path = ref.startswith((".", "/", "~")) or ref.endswith(".gguf")
    if looks_like_path:
        raise HftoolError(f"there is no model at {ref}")
    raise HftoolError(
        f"unknown model '{ref}'",
        f"did you mean '{close[0]}'?" if close else "`hftool models list` shows the aliases",
    )

"""Find a hub repository's files in the Hugging Face cache, and download those that are missing."""

import contextlib
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from hftool.catalogue import BUILT_IN
from hftool.errors import HftoolError
from hftool.models.adapters import CONFIG as ADAPTER_CONFIG
from hftool.models.adapters import WEIGHTS as ADAPTER_WEIGHTS
from hftool.models.adapters import is_adapter
from hftool.models.references import HubGguf, HubModel, first_part, gguf_parts
from hftool.models.validation import require_inside
from hftool.options.model import SourceOptions

log = logging.getLogger("hftool")

Need = Literal["tokenizer", "model"]

TOKENIZER_FILES = (
    "config.json",
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "additional_chat_templates/*.jinja",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "tiktoken.model",
    "*.tiktoken",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
)
MODEL_FILES = (*TOKENIZER_FILES, "*.safetensors", "model.safetensors.index.json")
REMOTE_CODE_FILES = ("*.py", "pytorch_model*.bin", "pytorch_model.bin.index.json")
TRY_AGAIN = "run it again: the part already downloaded is kept"
HTTP_LIBRARIES = ("httpx", "httpx2", "httpcore", "httpcore2", "requests")  # huggingface_hub's
BROKEN_CONNECTION = ("RemoteProtocolError", "ReadError", "ChunkedEncodingError")
NAMING_HEADERS = ("ETag", "X-Linked-Etag", "X-Repo-Commit")
# A download that receives nothing is given up after this many times HF_HUB_DOWNLOAD_TIMEOUT (10 s).
PATIENCE = 6


def download_if_missing(model: HubModel, need: Need, options: SourceOptions) -> Path:
    """Return the folder with a repository's files; download them unless all of them are cached.

    For a model that is complete in the Hugging Face cache, no request is made.

    Raises:
        HftoolError: the repository does not exist, is gated, or has not the files; the hub can't be
            reached; or files are missing and `options.offline` is set.
    """
    folder = cached_folder(model)
    if folder is not None and not missing_files(folder, need, options.trust_remote_code):
        return folder
    if options.offline:
        raise _not_cached(model, folder)
    return download(model, need, options)


def cached_folder(model: HubModel) -> Path | None:
    """Return the newest snapshot of a revision in the Hugging Face cache, complete or not; None if
    there is none."""
    from huggingface_hub import constants

    root = _cache_folder(model)
    revision = model.revision or constants.DEFAULT_REVISION
    ref = root / "refs" / revision
    try:
        commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision
    except OSError:
        return None
    folder = root / "snapshots" / commit
    return folder if folder.is_dir() else None


def _cache_folder(model: HubModel) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=model.repo, repo_type="model")


def missing_files(folder: Path, need: Need, pickled: bool) -> Sequence[str]:
    """Return the files that a folder lacks for its model or tokenizer to be loaded.

    With `pickled`, pickled weights count as well.

    Raises:
        HftoolError: an index of weights is broken, or names files outside the folder.
    """
    if is_adapter(folder):
        return [] if (folder / ADAPTER_WEIGHTS).is_file() else [ADAPTER_WEIGHTS]
    if not (folder / "config.json").is_file() and need == "model":
        return ["config.json"]
    if need == "tokenizer":
        names = (
            *("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
            *("tekken.json", "tiktoken.model", "vocab.txt", "vocab.json"),
        )
        return [] if any((folder / name).is_file() for name in names) else ["tokenizer.json"]
    if (folder / "model.safetensors").is_file():  # transformers takes this one first
        return []
    for index in ("model.safetensors.index.json", *(("pytorch_model.bin.index.json",) * pickled)):
        if (folder / index).is_file():
            try:
                shards = set(json.loads((folder / index).read_text())["weight_map"].values())
                missing = sorted(name for name in shards if not (folder / name).is_file())
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
                raise HftoolError(f"cannot read {folder / index}: {e}") from None
            for name in shards:
                require_inside(folder, name)
            return missing
    single = ("model.safetensors", *(("pytorch_model.bin",) * pickled))
    return [] if any((folder / name).is_file() for name in single) else ["model.safetensors"]


def download(model: HubModel, need: Need, options: SourceOptions) -> Path:
    """Download a repository's files, except those that are in the cache in their newest version.

    Raises: as `download_if_missing`.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    patterns = MODEL_FILES if need == "model" else TOKENIZER_FILES
    if options.trust_remote_code:
        patterns = (*patterns, *REMOTE_CODE_FILES)
    log.info("downloading %s from the hub", model.repo)
    _check_responses()
    try:
        # snapshot_download makes the same request, but without a timeout, and hides the response.
        HfApi(token=options.hub_token).model_info(
            model.repo, revision=model.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
        folder = _run_watched(
            lambda: snapshot_download(
                model.repo,
                revision=model.revision,
                token=options.hub_token,
                allow_patterns=list(patterns),
            ),
            model,
            PATIENCE * constants.HF_HUB_DOWNLOAD_TIMEOUT,
        )
    except Exception as error:
        raise_for(error, model)
    if missing := missing_files(folder, need, options.trust_remote_code):
        raise HftoolError(
            f"{model.repo} has no {missing[0]}",
            "its weights may be pickled: --trust-remote-code allows those"
            if missing == ["model.safetensors"] and not options.trust_remote_code
            else None,
        )
    return folder


def download_gguf_if_missing(source: HubGguf, options: SourceOptions) -> Path:
    """Return a GGUF file of a repository, of several files the first; download it unless it is
    cached.

    Raises: as `download_if_missing`.
    """
    if path := cached_gguf(source):
        return path
    if options.offline:
        raise HftoolError(
            f"{source.repo}:{source.which} is not in the local cache, and downloads are turned off",
            "without --offline and HF_HUB_OFFLINE, run: hftool models pull"
            f" {source.repo}:{source.which}",
        )
    return download_gguf(source, options)


def cached_gguf(source: HubGguf) -> Path | None:
    """Return a GGUF file in the Hugging Face cache, None if it is not complete there."""
    folder = cached_folder(_model(source))
    if folder is None:
        return None
    names = [str(path.relative_to(folder)) for path in folder.rglob("*.gguf")]
    found = _matching(names, source.which)
    if len(found) != 1 or not all(part.is_file() for part in gguf_parts(folder / found[0])):
        return None
    return folder / found[0]


def download_gguf(source: HubGguf, options: SourceOptions) -> Path:
    """Download a GGUF file of a repository, with all its parts, and return its path.

    Raises: as `download_if_missing`; or the repository has no such file, or several.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    model = _model(source)
    _check_responses()
    try:
        info = HfApi(token=options.hub_token).model_info(
            model.repo,
            revision=model.revision,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
            files_metadata=True,
        )
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        first = _only_gguf(source, list(sizes))
        names = [str(part) for part in gguf_parts(Path(first))]
        gigabytes = sum(sizes.get(name, 0) for name in names) / 1e9
        log.info("downloading %s of %s from the hub (%.1f GB)", first, model.repo, gigabytes)
        folder = _run_watched(
            lambda: snapshot_download(
                model.repo,
                revision=model.revision,
                token=options.hub_token,
                allow_patterns=names,
            ),
            model,
            PATIENCE * constants.HF_HUB_DOWNLOAD_TIMEOUT,
        )
    except HftoolError:
        raise
    except Exception as error:
        raise_for(error, model)
    return folder / first


def _model(source: HubGguf) -> HubModel:
    return HubModel(source.repo, source.revision)


def _matching(names: Sequence[str], which: str) -> list[str]:
    """Return the GGUF files, of several parts the first, with a name or a quantization."""
    quantization = re.compile(rf"(?:^|[-._/]){re.escape(which)}(?:[-./].*)?", re.IGNORECASE)
    models = [name for name in names if name.endswith(".gguf") and "mmproj" not in name.lower()]
    found = [n for n in models if which in (n, n.rpartition("/")[2])]
    found = found or [n for n in models if quantization.search(n.removesuffix(".gguf"))]
    return sorted({str(first_part(Path(name))) for name in found})


def _only_gguf(source: HubGguf, names: Sequence[str]) -> str:
    """Return the one GGUF file that a reference means.

    Raises:
        HftoolError: there is none, or several.
    """
    found = _matching(names, source.which)
    if len(found) == 1:
        return found[0]
    if found:
        raise HftoolError(
            f"{source.repo} has several GGUF files of {source.which}",
            "name one: " + ", ".join(f"{source.repo}:{name}" for name in found[:4]),
        )
    others = sorted({str(first_part(Path(n))) for n in names if n.endswith(".gguf")})
    raise HftoolError(
        f"{source.repo} has no GGUF file {source.which}",
        ("it has " + ", ".join(others[:8])) if others else "it has no GGUF file at all",
    )


def _check_responses() -> None:
    """Let each response of the hub be checked: huggingface_hub writes files under the names in
    these headers, wherever they lead."""
    from huggingface_hub import get_session

    session: Any = get_session()
    if _require_plain_names not in session.event_hooks["response"]:
        session.event_hooks["response"].append(_require_plain_names)


def _require_plain_names(response: Any) -> None:
    for name in NAMING_HEADERS:
        value = response.headers.get(name, "").removeprefix("W/")
        if "/" in value or "\\" in value:
            raise HftoolError(f"the hub sent a file name with a path in it: {name} is {value[:60]}")


def _run_watched(download: Callable[[], str], model: HubModel, patience: float) -> Path:
    """Return what `download` returns; give up if the repository's files in the cache have not grown
    for `patience` seconds.

    huggingface_hub makes some requests without a timeout, repeats others, and waits for its threads
    when it is interrupted. So it runs in a thread of its own, which can be abandoned.
    """
    results: list[Path | BaseException] = []

    def work() -> None:
        try:
            results.append(Path(download()))
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    size, changed = -1, time.monotonic()
    while not results:
        thread.join(min(0.5, patience / 4))
        new_size = _cached_bytes(model)
        if new_size != size:
            size, changed = new_size, time.monotonic()
        elif time.monotonic() - changed > patience:
            raise HftoolError(
                f"the hub stopped sending while {model.repo} was downloaded", TRY_AGAIN
            ) from None
    (result,) = results
    if isinstance(result, BaseException):
        raise result
    return result


def _cached_bytes(model: HubModel) -> int:
    """Return the size of a repository's files in the cache, incomplete ones included."""
    total = 0
    for path in _cache_folder(model).rglob("*"):
        with contextlib.suppress(OSError):  # it was renamed meanwhile
            total += 1 + path.lstat().st_size
    return total


def _unknown_word(model: HubModel, hint: str) -> HftoolError:
    """Return the error for an id without an owner: mostly it was never meant for the hub."""
    names = {alias.repo.partition("/")[2].lower(): alias.repo for alias in BUILT_IN.values()}
    repo = names.get(model.repo.lower())
    return HftoolError(f"unknown model '{model.repo}'", f"did you mean '{repo}'?" if repo else hint)


def _not_cached(model: HubModel, folder: Path | None) -> HftoolError:
    if not model.has_owner and folder is None:
        return _unknown_word(
            model,
            "it is not an alias (see: hftool models list), and --offline forbids asking the hub",
        )
    state = "is incomplete" if folder else "is not"
    return HftoolError(
        f"{model.repo} {state} in the local cache, and downloads are turned off",
        f"without --offline and HF_HUB_OFFLINE, run: hftool models pull {model.repo}",
    )


def _no_network(model: HubModel) -> HftoolError:
    if not model.has_owner:
        return _unknown_word(model, "it is not an alias, and the hub cannot be reached")
    return HftoolError(
        f"cannot reach the hub to download {model.repo}",
        "check the network; the models `smollm2` and `minilm-sst2` need none",
    )


def raise_for(error: Exception, model: HubModel, kind: str = "model") -> NoReturn:
    """Raise the error of a request to the hub in words.

    Args:
        kind: what the repository is.

    Raises:
        HftoolError: with the cause.
    """
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    page = f"https://huggingface.co/{'' if kind == 'model' else 'datasets/'}{model.repo}"
    if isinstance(error, errors.GatedRepoError):
        raise HftoolError(
            f"{model.repo} is gated: you have to accept its licence first",
            f"accept it on {page}, then give your token: `hf auth login`, HF_TOKEN or --token",
        ) from None
    if isinstance(error, errors.RevisionNotFoundError):
        raise HftoolError(f"{model.repo} has no revision '{model.revision or 'main'}'") from None
    if isinstance(error, errors.RepositoryNotFoundError) and not model.has_owner:
        hint = "it is neither an alias (hftool models list) nor a model on the hub (OWNER/NAME)"
        raise _unknown_word(model, hint) from None
    if isinstance(error, errors.RepositoryNotFoundError):
        raise HftoolError(
            f"there is no {kind} {model.repo} on the hub",
            f"check the spelling; a private {kind} needs a token: HF_TOKEN or --token",
        ) from None
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        token = "check the token: HF_TOKEN or --token"
        hints = {401: token, 403: token, 429: "try again later"}
        raise HftoolError(
            f"the hub responded with status {status} for {model.repo}", hints.get(status)
        ) from None
    library = type(error).__module__.partition(".")[0]
    if library in HTTP_LIBRARIES and type(error).__name__ in BROKEN_CONNECTION:
        raise HftoolError(
            f"the connection broke while {model.repo} was downloaded", TRY_AGAIN
        ) from None
    if isinstance(error, errors.LocalEntryNotFoundError) or library in HTTP_LIBRARIES:
        raise _no_network(model) from None
    if isinstance(error, OSError | ValueError) or library == "huggingface_hub":
        cause = " ".join(str(error).split())
        raise HftoolError(f"cannot download {model.repo}: {cause}") from None
    raise error

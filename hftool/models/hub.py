"""A hub repository's files: from the local cache, and over the network where one is missing."""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from hftool.errors import HftoolError
from hftool.models.references import HubModel
from hftool.models.validation import require_inside
from hftool.options.model import SourceOptions

log = logging.getLogger("hftool")

Need = Literal["tokenizer", "model"]

TOKENIZER_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
MODEL_FILES = (*TOKENIZER_FILES, "*.safetensors", "model.safetensors.index.json")
TRY_AGAIN = "try again: what has come is kept"
HTTP_LIBRARIES = ("httpx", "httpx2", "httpcore", "httpcore2", "requests")  # of huggingface_hub
BROKEN_OFF = ("RemoteProtocolError", "ReadError", "ChunkedEncodingError")
NAMING_HEADERS = ("ETag", "X-Linked-Etag", "X-Repo-Commit")
PATIENCE = 6  # times HF_HUB_DOWNLOAD_TIMEOUT (10 s) without a byte, until a download is given up
REMOTE_CODE_FILES = ("*.py", "pytorch_model*.bin", "pytorch_model.bin.index.json")


def snapshot(model: HubModel, need: Need, options: SourceOptions) -> Path:
    """The folder with a repository's files, downloaded where they aren't all here.

    A model that is complete in the Hugging Face cache is found without a request.

    Raises:
        HftoolError: the repository can't be had: not found, gated, no network, or incomplete
            and offline.
    """
    folder = cached_folder(model)
    if folder is not None and not missing_files(folder, need, options.trust_remote_code):
        return folder
    if options.offline:
        raise _not_here(model, folder)
    return download(model, need, options)


def cached_folder(model: HubModel) -> Path | None:
    """The newest snapshot of a revision in the Hugging Face cache, complete or not."""
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
    """What a folder lacks to be loaded; empty where it is complete."""
    if not (folder / "config.json").is_file() and need == "model":
        return ["config.json"]
    if need == "tokenizer":
        held = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.txt", "vocab.json")
        return [] if any((folder / name).is_file() for name in held) else ["tokenizer.json"]
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
    """Ask the hub for a repository's files; those that are here are not fetched again.

    Raises: as `snapshot`.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    patterns = MODEL_FILES if need == "model" else TOKENIZER_FILES
    if options.trust_remote_code:
        patterns = (*patterns, *REMOTE_CODE_FILES)
    log.info("fetching %s from the hub", model.repo)
    _check_answers()
    try:
        # snapshot_download asks the same without a time limit, and hides what the hub answers.
        HfApi(token=options.hub_token).model_info(
            model.repo, revision=model.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
        folder = _watched(
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
        _raise_for(error, model)
    if missing := missing_files(folder, need, options.trust_remote_code):
        raise HftoolError(
            f"{model.repo} has no {missing[0]}",
            "its weights may be pickled: --trust-remote-code allows those"
            if missing == ["model.safetensors"] and not options.trust_remote_code
            else None,
        )
    return folder


def _check_answers() -> None:
    """Have each answer of the hub looked at: huggingface_hub takes the names of files it writes
    from these headers, wherever they lead."""
    from huggingface_hub import get_session

    session: Any = get_session()
    if _require_plain_names not in session.event_hooks["response"]:
        session.event_hooks["response"].append(_require_plain_names)


def _require_plain_names(answer: Any) -> None:
    for name in NAMING_HEADERS:
        value = answer.headers.get(name, "").removeprefix("W/")
        if "/" in value or "\\" in value:
            raise HftoolError(f"the hub names a file with a place in it: {name} is {value[:60]}")


def _watched(fetch: Callable[[], str], model: HubModel, patience: float) -> Path:
    """What `fetch` returns; given up where the repository's files have not grown for `patience` s.

    huggingface_hub asks some things without a time limit, others again and again, and waits for its
    threads when it is interrupted. Here it has a thread of its own, which can be left behind.
    """
    ended: list[Path | BaseException] = []

    def work() -> None:
        try:
            ended.append(Path(fetch()))
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    held, changed = -1, time.monotonic()
    while not ended:
        thread.join(min(0.5, patience / 4))
        now = _bytes_held(model)
        if now != held:
            held, changed = now, time.monotonic()
        elif time.monotonic() - changed > patience:
            raise HftoolError(
                f"the hub has gone silent while {model.repo} was fetched", TRY_AGAIN
            ) from None
    (result,) = ended
    if isinstance(result, BaseException):
        raise result
    return result


def _bytes_held(model: HubModel) -> int:
    """The size of what the cache holds of a repository, parts of files included."""
    total = 0
    for path in _cache_folder(model).rglob("*"):
        with contextlib.suppress(OSError):  # renamed meanwhile
            total += 1 + path.lstat().st_size
    return total


def _not_here(model: HubModel, folder: Path | None) -> HftoolError:
    state = "is incomplete" if folder else "is not"
    return HftoolError(
        f"{model.repo} {state} in the local cache, and asking the hub is turned off",
        f"without --offline (and HF_HUB_OFFLINE): hftool models pull {model.repo}",
    )


def _no_network(model: HubModel) -> HftoolError:
    return HftoolError(
        f"cannot reach the hub to fetch {model.repo}",
        "check the network; `smollm2` and `minilm-sst2` need none",
    )


def _raise_for(error: Exception, model: HubModel) -> NoReturn:
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    page = f"https://huggingface.co/{model.repo}"
    if isinstance(error, errors.GatedRepoError):
        raise HftoolError(
            f"{model.repo} is gated: its licence has to be accepted first",
            f"accept it on {page}, then give your token: `hf auth login`, HF_TOKEN or --token",
        ) from None
    if isinstance(error, errors.RevisionNotFoundError):
        raise HftoolError(f"{model.repo} has no revision '{model.revision or 'main'}'") from None
    if isinstance(error, errors.RepositoryNotFoundError):
        raise HftoolError(
            f"there is no model {model.repo} on the hub",
            "check the spelling; a private one needs a token: HF_TOKEN or --token",
        ) from None
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        token = "check the token: HF_TOKEN or --token"
        hints = {401: token, 403: token, 429: "try again later"}
        raise HftoolError(
            f"the hub answered {status} for {model.repo}", hints.get(status)
        ) from None
    library = type(error).__module__.partition(".")[0]
    if library in HTTP_LIBRARIES and type(error).__name__ in BROKEN_OFF:
        raise HftoolError(
            f"the connection broke off while {model.repo} was fetched", TRY_AGAIN
        ) from None
    if isinstance(error, errors.LocalEntryNotFoundError) or library in HTTP_LIBRARIES:
        raise _no_network(model) from None
    if isinstance(error, OSError | ValueError) or library == "huggingface_hub":
        cause = " ".join(str(error).split())
        raise HftoolError(f"cannot fetch {model.repo}: {cause}") from None
    raise error

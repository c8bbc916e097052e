"""Errors of requests to the hub, in words."""

from pathlib import Path
from typing import NoReturn

from hftool.catalogue import BUILT_IN
from hftool.errors import HftoolError
from hftool.models.references import HubModel

TRY_AGAIN = "run it again: the part already downloaded is kept"
HTTP_LIBRARIES = ("httpx", "httpx2", "httpcore", "httpcore2", "requests")  # huggingface_hub's
BROKEN_CONNECTION = ("RemoteProtocolError", "ReadError", "ChunkedEncodingError")


def unknown_word(model: HubModel, hint: str) -> HftoolError:
    """Return the error for an id without an owner: mostly it was never meant for the hub."""
    names = {alias.repo.partition("/")[2].lower(): alias.repo for alias in BUILT_IN.values()}
    repo = names.get(model.repo.lower())
    return HftoolError(f"unknown model '{model.repo}'", f"did you mean '{repo}'?" if repo else hint)


def not_cached(model: HubModel, folder: Path | None) -> HftoolError:
    """Return the error for a repository that has to be downloaded, where that is not allowed.

    Args:
        folder: what the cache has of it.
    """
    if not model.has_owner and folder is None:
        return unknown_word(
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
        return unknown_word(model, "it is not an alias, and the hub cannot be reached")
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
    reason = _refusal(error, model, kind) or _interruption(error, model)
    if reason is None:
        raise error
    raise reason from None


def _refusal(error: Exception, model: HubModel, kind: str) -> HftoolError | None:
    """Return the error for a response in which the hub refuses what was asked for."""
    from huggingface_hub import errors

    page = f"https://huggingface.co/{'' if kind == 'model' else 'datasets/'}{model.repo}"
    if isinstance(error, errors.GatedRepoError):
        return HftoolError(
            f"{model.repo} is gated: you have to accept its licence first",
            f"accept it on {page}, then give your token: `hf auth login`, HF_TOKEN or --token",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HftoolError(f"{model.repo} has no revision '{model.revision or 'main'}'")
    if isinstance(error, errors.RepositoryNotFoundError) and not model.has_owner:
        hint = "it is neither an alias (hftool models list) nor a model on the hub (OWNER/NAME)"
        return unknown_word(model, hint)
    if isinstance(error, errors.RepositoryNotFoundError):
        return HftoolError(
            f"there is no {kind} {model.repo} on the hub",
            f"check the spelling; a private {kind} needs a token: HF_TOKEN or --token",
        )
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        token = "check the token: HF_TOKEN or --token"
        hints = {401: token, 403: token, 429: "try again later"}
        cause = f"the hub responded with status {status} for {model.repo}"
        return HftoolError(cause, hints.get(status))
    return None


def _interruption(error: Exception, model: HubModel) -> HftoolError | None:
    """Return the error for a request that the hub did not respond to, or a download that failed."""
    from huggingface_hub import errors

    library = type(error).__module__.partition(".")[0]
    if library in HTTP_LIBRARIES and type(error).__name__ in BROKEN_CONNECTION:
        return HftoolError(f"the connection broke while {model.repo} was downloaded", TRY_AGAIN)
    if isinstance(error, errors.LocalEntryNotFoundError) or library in HTTP_LIBRARIES:
        return _no_network(model)
    if isinstance(error, OSError | ValueError) or library == "huggingface_hub":
        cause = " ".join(str(error).split())
        return HftoolError(f"cannot download {model.repo}: {cause}")
    return None

"""Download from the hub: check its responses, and give up when nothing arrives."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError
from hftool.models.hub_cache import cache_folder
from hftool.models.hub_errors import TRY_AGAIN
from hftool.models.references import HubModel
from hftool.options.model import SourceOptions

NAMING_HEADERS = ("ETag", "X-Linked-Etag", "X-Repo-Commit")
# A download that receives nothing is given up after this many times HF_HUB_DOWNLOAD_TIMEOUT (10 s).
PATIENCE = 6


def check_responses() -> None:
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


def download_files(model: HubModel, patterns: Sequence[str], options: SourceOptions) -> Path:
    """Download the files of a repository whose names fit a pattern, and return their folder.

    Raises:
        HftoolError: nothing arrived for too long.
        Exception: what huggingface_hub raises.
    """
    from huggingface_hub import constants, snapshot_download

    return _run_watched(
        lambda: snapshot_download(
            model.repo,
            revision=model.revision,
            token=options.hub_token,
            allow_patterns=list(patterns),
        ),
        model,
        PATIENCE * constants.HF_HUB_DOWNLOAD_TIMEOUT,
    )


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
    for path in cache_folder(model).rglob("*"):
        with contextlib.suppress(OSError):  # it was renamed meanwhile
            total += 1 + path.lstat().st_size
    return total

"""Start Ray or join a cluster, and show its errors as hftool's."""

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from hftool.errors import HftoolError, UsageError
from hftool.extras import import_extra

CONNECT_TIMEOUT = 10.0  # seconds


def ray() -> Any:
    """Return the module `ray`.

    Raises:
        HftoolError: it is not installed.
    """
    return import_extra("ray.data", needed_for="--engine ray", extra="ray")


@contextmanager
def cluster(address: str | None, *, verbose: bool) -> Iterator[None]:
    """Join a cluster, or start one on this machine that ends with the block."""
    library = ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    context = library.data.DataContext.get_current()
    context.enable_progress_bars = verbose
    context.raise_original_map_exception = True
    context.target_max_block_size = 1  # byte: each chunk is a block, and so has its own task
    if not verbose:
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    with nullcontext() if verbose else _silent_stderr_descriptor():
        try:
            _require_listener(address)
            library.init(
                address=address,
                include_dashboard=False,
                log_to_driver=verbose,
                logging_level=logging.INFO if verbose else logging.CRITICAL,
            )
        except (OSError, ValueError, RuntimeError, library.exceptions.RayError) as error:
            if address == "local":
                raise HftoolError(f"cannot start Ray: {_first_line(error)}") from error
            raise HftoolError(
                f"cannot join the Ray cluster at {address}: {_first_line(error)}",
                "if the cluster requires a token, set RAY_AUTH_MODE=token",
            ) from error
        try:
            yield
        except library.exceptions.RayTaskError as error:
            if isinstance(error.cause, HftoolError):
                raise error.cause from None
            raise
        except library.exceptions.RayError as error:
            raise HftoolError(f"Ray failed: {_first_line(error)}") from error
        finally:
            library.shutdown()


def _require_listener(address: str) -> None:
    """Raise if nothing listens at HOST:PORT; Ray itself would keep trying for minutes.

    Raises:
        OSError: nothing answers there.
        UsageError: the address is one of Ray Client, or another URL.
    """
    if "://" in address:
        raise UsageError(f"--ray-address {address} is not a cluster's address", "give HOST:PORT")
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT).close()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextmanager
def _silent_stderr_descriptor() -> Iterator[None]:
    """Discard what is written to file descriptor 2, where Ray's C++ core bypasses Python's logging;
    what Python writes to `sys.stderr` still appears."""
    stderr, descriptor = sys.stderr, os.dup(2)
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as copy:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
        if stderr is sys.__stderr__:
            sys.stderr = copy
        try:
            yield
        finally:
            sys.stderr = stderr
            os.dup2(descriptor, 2)


def gpus_per_worker(device: str) -> int:
    """Return how many GPUs each worker gets, by `--device`."""
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device}: Ray chooses the devices", "use auto, cpu or cuda")
    available = ray().cluster_resources().get("GPU", 0) >= 1
    if device == "cuda" and not available:
        raise HftoolError("--device cuda: the cluster has no GPU", "use --device cpu or auto")
    return int(available and device != "cpu")

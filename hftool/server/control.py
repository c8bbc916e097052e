"""Starting, ending and asking the server."""

import json
import logging
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError, UsageError
from hftool.server import protocol
from hftool.server.records import LoadedModel

log = logging.getLogger("hftool")

START_SECONDS = 60.0
ANSWER_SECONDS = 5.0
MAX_IDLE_SECONDS = 2_000_000  # seconds, which the system counts in milliseconds of 32 bits
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "b": 1} | {
    prefix + end: base**power
    for power, prefix in enumerate("kmgt", 1)
    for end, base in (("", 1000), ("b", 1000), ("ib", 1024))
}


@dataclass(frozen=True)
class DaemonOptions:
    """How long a server stays without a request, and how much memory its models may take, as they
    were asked for."""

    idle: str | None = None
    memory_limit: str | None = None

    @property
    def idle_seconds(self) -> float | None:
        """Seconds.

        Raises:
            UsageError: it is no time, or more than 23 days.
        """
        seconds = _number("--idle", self.idle, _SECONDS, "as in 30s, 10m, 2h")
        if seconds is not None and seconds > MAX_IDLE_SECONDS:
            raise UsageError(f"--idle {self.idle}: longer than {MAX_IDLE_SECONDS // 86400} days")
        return seconds

    @property
    def memory_bytes(self) -> float | None:
        """Bytes.

        Raises:
            UsageError: it is no size.
        """
        return _number("--memory-limit", self.memory_limit, _BYTES, "as in 500MB, 4GB")


def _number(option: str, text: str | None, units: Mapping[str, float], hint: str) -> float | None:
    """A number and its unit, in terms of the unit that is 1."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([a-z]*)", (text or "0").lower())
    if not match or match[2] not in units:
        raise UsageError(f"{option} {text}: no number with a unit", hint)
    return None if text is None else float(match[1]) * units[match[2]]


def require_one_of(*asked: bool) -> None:
    """Raises:
    UsageError: more than one was asked for.
    """
    if sum(asked) > 1:
        raise UsageError("--detach, --stop and --status exclude each other")


def serve(service: DaemonOptions) -> None:
    """Be the server, until it is told to stop.

    Raises:
        HftoolError: there is one already, or it can't be one.
    """
    path = _path()
    from hftool.server.daemon import Daemon

    server = Daemon(path, idle=service.idle_seconds, memory_limit=service.memory_bytes)
    log.info("serving; Ctrl-C or `hftool serve --stop` ends it")
    server.serve()


def detach(service: DaemonOptions) -> None:
    """Start a server that outlives this process, and wait until it answers.

    Raises:
        HftoolError: it did not start.
    """
    path = _path()
    if _answer(path, "status") is not None:
        raise HftoolError("a server is running", "`hftool serve --stop` ends it")
    options = [f"--idle={service.idle_seconds}"] if service.idle else []
    options += [f"--memory-limit={service.memory_bytes}"] if service.memory_limit else []
    with tempfile.TemporaryFile() as said:  # a pipe would break when nobody reads it any more
        process = subprocess.Popen(
            [sys.executable, "-m", "hftool", "serve", "--quiet", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
            env=protocol.first_environment(),
        )
        deadline = time.monotonic() + START_SECONDS
        while _answer(path, "status") is None:
            if process.poll() is not None:
                said.seek(0)
                message, _, hint = said.read().decode(errors="replace").strip().partition("\n")
                raise HftoolError(
                    message.removeprefix("Error: "), hint.removeprefix("Hint: ") or None
                )
            if time.monotonic() > deadline:
                process.kill()
                raise HftoolError(f"the server did not start in {START_SECONDS:.0f} s")
            time.sleep(0.05)
    log.info("serving, process %d; `hftool serve --stop` ends it", process.pid)


def stop() -> None:
    """End the server.

    Raises:
        HftoolError: there is none.
    """
    path = _path()
    if _answer(path, "stop") is None:
        raise _no_server()
    deadline = time.monotonic() + ANSWER_SECONDS
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def loaded_models() -> Iterator[LoadedModel]:
    """The models the server has in memory.

    Raises:
        HftoolError: there is no server.
    """
    answer = _answer(_path(), "status")
    if answer is None:
        raise _no_server()
    for model in answer["models"]:
        yield LoadedModel(**model)


def _no_server() -> HftoolError:
    return HftoolError("no server is running", "`hftool serve --detach` starts one")


def _path() -> Path:
    if sys.platform != "linux":
        raise HftoolError(
            "hftool serve needs Linux: it forks processes that have a model in memory"
        )
    path = protocol.socket_path()
    if path is None:
        raise UsageError("HFTOOL_SERVER is off, or the runtime folder is another user's")
    return path


def _answer(path: Path, question: str) -> dict[str, Any] | None:
    """What the server answers, None where there is none."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(str(path))
            if not protocol.is_own_user(connection):
                return None
            protocol.send_request(connection, {"ask": question})
            with connection.makefile("r", encoding="utf-8") as file:
                answer = json.loads(file.readline())
    except (OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None

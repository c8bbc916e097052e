"""Starting and ending the daemon, and asking it what it has in memory."""

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
from typing import IO, Any

from typer.core import TyperGroup

from hftool.errors import HftoolError, UsageError
from hftool.server import protocol
from hftool.server.command_process import RunCommandLine
from hftool.server.log import log_path
from hftool.server.records import LoadedModel

log = logging.getLogger("hftool")

START_SECONDS = 60.0
ANSWER_SECONDS = 5.0
MAX_IDLE_SECONDS = 2_000_000  # the system counts milliseconds in 32 bits
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "b": 1} | {
    prefix + end: base**power
    for power, prefix in enumerate("kmgt", 1)
    for end, base in (("", 1000), ("b", 1000), ("ib", 1024))
}


@dataclass(frozen=True)
class DaemonOptions:
    """When the daemon ends by itself and when it unloads models, as on the command line."""

    idle: str | None = None
    memory_limit: str | None = None

    @property
    def idle_seconds(self) -> float | None:
        """Seconds without a request after which the daemon ends; None: never.

        Raises:
            UsageError: `idle` is not a time, or is more than 23 days.
        """
        seconds = _number("--idle", self.idle, _SECONDS, "a time, such as 30s, 10m or 2h")
        if seconds is not None and seconds > MAX_IDLE_SECONDS:
            days = MAX_IDLE_SECONDS // 86400
            raise UsageError(f"--idle must be at most {days} days, not '{self.idle}'")
        return seconds

    @property
    def memory_bytes(self) -> float | None:
        """Bytes that the models may use; None: no limit.

        Raises:
            UsageError: `memory_limit` is not a size.
        """
        return _number("--memory-limit", self.memory_limit, _BYTES, "a size, such as 500MB or 4GB")


def _number(
    option: str, text: str | None, units: Mapping[str, float], allowed: str
) -> float | None:
    """Return a number with a unit as a number of the units that count 1."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([a-z]*)", text.lower())
    if not match or match[2] not in units:
        raise UsageError(f"{option} must be {allowed}, not '{text}'")
    return float(match[1]) * units[match[2]]


def run_in_foreground(options: DaemonOptions, root: TyperGroup, run: RunCommandLine) -> None:
    """Be the daemon until a request or a signal ends it.

    Args:
        root: the application's group of commands, with which command lines are parsed.
        run: runs the command line in `sys.argv` in its process.

    Raises:
        HftoolError: a daemon is running, or its socket cannot be created.
    """
    path = _socket_path()
    from hftool.server.daemon import Daemon

    daemon = Daemon(path, root, run, idle=options.idle_seconds, memory_limit=options.memory_bytes)
    log.info("daemon started; Ctrl-C or `hftool daemon stop` ends it; log: %s", log_path(path))
    daemon.serve()


def start(options: DaemonOptions) -> None:
    """Start a daemon that outlives this process, and wait until it answers.

    Raises:
        HftoolError: a daemon is running, or the new one did not start.
    """
    path = _socket_path()
    if _ask(path, "status") is not None:
        raise HftoolError("a daemon is running", "`hftool daemon stop` ends it")
    arguments = ["daemon", "start", "--foreground", "--quiet"]
    if options.idle is not None:
        arguments.append(f"--idle={options.idle_seconds}")
    if options.memory_limit is not None:
        arguments.append(f"--memory-limit={options.memory_bytes}")
    with tempfile.TemporaryFile() as errors:  # a pipe would break when this process ends
        process = subprocess.Popen(
            [sys.executable, "-m", "hftool", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            env=protocol.initial_environment(),
        )
        deadline = time.monotonic() + START_SECONDS
        while _ask(path, "status") is None:
            if process.poll() is not None:
                raise _start_error(errors)
            if time.monotonic() > deadline:
                process.kill()
                raise HftoolError(f"the daemon did not start in {START_SECONDS:.0f} s")
            time.sleep(0.05)
    log.info("daemon started, process %d; `hftool daemon stop` ends it", process.pid)


def _start_error(errors: IO[bytes]) -> HftoolError:
    """Return the error with which a daemon ended, from what it wrote to stderr."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").splitlines() or ["the daemon did not start"]
    hints = [line.removeprefix("Hint: ") for line in lines if line.startswith("Hint: ")]
    messages = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    return HftoolError((messages or lines)[-1], hints[-1] if hints else None)


def stop() -> None:
    """End the daemon.

    Raises:
        HftoolError: no daemon is running, or it does not answer.
    """
    path = _socket_path()
    if _ask(path, "stop") is None:
        raise _no_daemon()
    deadline = time.monotonic() + ANSWER_SECONDS
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def loaded_models() -> Iterator[LoadedModel]:
    """Yield the models that the daemon has in memory.

    Raises:
        HftoolError: no daemon is running, or it does not answer.
    """
    path = _socket_path()
    answer = _ask(path, "status")
    if answer is None:
        raise _no_daemon()
    log.debug("process %s; log: %s", answer["process"], log_path(path))
    for model in answer["models"]:
        yield LoadedModel(**model)


def _no_daemon() -> HftoolError:
    return HftoolError("no daemon is running", "`hftool daemon start` starts one")


def _socket_path() -> Path:
    if sys.platform != "linux":
        raise HftoolError(
            "the daemon needs Linux: elsewhere a process that has a model can't be forked safely",
            "a server keeps its model loaded as well: -m http://HOST:PORT/v1#NAME",
        )
    path = protocol.socket_path()
    if path is None:
        raise UsageError("HFTOOL_DAEMON is off, or the runtime folder is another user's")
    return path


def _ask(path: Path, question: str) -> dict[str, Any] | None:
    """Return the daemon's answer to a question, None if no daemon is running.

    Raises:
        HftoolError: the daemon does not answer, or is another user's.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.connect(str(path))
            if not protocol.is_own_user(connection):
                raise HftoolError(f"the daemon at {path} is another user's")
            protocol.send_request(connection, {"ask": question})
            with connection.makefile("r", encoding="utf-8") as file:
                answer: dict[str, Any] = json.loads(file.readline())
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return None
        except (OSError, ValueError) as error:
            raise HftoolError(
                f"the daemon does not answer: {error}", f"see its log, {log_path(path)}"
            ) from None
    return answer

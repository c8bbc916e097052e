"""One command line in a process of its own, forked from a process that has its model in memory.

The process shares what its parent has loaded; what the command does stays in the process. It has
the open files, the environment, the folder and the limits of the client, so it is the command
itself that writes, prompts and fails there, exactly as without a daemon.
"""

import contextlib
import fcntl
import io
import os
import resource
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from hftool.models.resident import freeze_cache
from hftool.server import protocol
from hftool.server.log import log

# Runs the command line in `sys.argv` in this process, and raises SystemExit at its end.
RunCommandLine = Callable[[], object]

GO_SECONDS = 60.0  # for the client to say that it still waits
STANDARD_STREAMS = (("stdin", "r", 0), ("stdout", "w", 1), ("stderr", "w", 2))


def adopt_environment(request: dict[str, Any]) -> None:
    """Adopt the client's environment variables and folder.

    Raises:
        OSError: the folder is gone.
    """
    from hftool import config

    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    config.load.cache_clear()


def start(client: socket.socket, request: dict[str, Any], run: RunCommandLine) -> int:
    """Fork a process that runs a command line and reports to the client how it ended.

    Returns:
        The process id.

    Raises:
        OSError: the system cannot fork.
    """
    if process := os.fork():
        return process
    try:  # nothing may get past this block: the caller's code is another process's
        _watch(client, request, run)
    except (ConnectionError, TimeoutError):
        pass  # the client is gone, or hangs
    except BaseException:
        log.exception("the process that watches a command failed")
    finally:
        os._exit(0)


def _watch(client: socket.socket, request: dict[str, Any], run: RunCommandLine) -> None:
    """Run the command in another process; send signals on to it, and its status to the client."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    protocol.close_others({client.fileno()})
    os.setsid()  # leave the daemon's terminal, whose signals would arrive here too
    client.settimeout(GO_SECONDS)
    protocol.send_answer(client, ready=True)
    go, files, _, _ = socket.recv_fds(client, 1, protocol.MAX_FILES)
    if go != bytes([protocol.GO]):
        return  # the client did not wait
    client.settimeout(None)
    command = os.fork()
    if not command:
        _run_and_exit(client, request, files, run)
    protocol.close(files)
    status = _wait(client, command)
    if os.WIFSIGNALED(status):
        protocol.send_answer(client, signal=os.WTERMSIG(status))
    else:
        protocol.send_answer(client, status=os.WEXITSTATUS(status))


def _wait(client: socket.socket, command: int) -> int:
    """Wait for the command and return its status, as `os.waitpid` has it."""
    ended = os.pidfd_open(command)
    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_READ)
        selector.register(ended, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if ended in ready:
                return os.waitpid(command, 0)[1]
            for number in _receive_signals(client):
                os.kill(command, number)


def _receive_signals(client: socket.socket) -> Sequence[int]:
    """Return the signals to send to the command: SIGKILL if the client was killed."""
    try:
        return client.recv(64) or [signal.SIGKILL]
    except OSError:
        return [signal.SIGKILL]


def _run_and_exit(
    client: socket.socket, request: dict[str, Any], files: Sequence[int], run: RunCommandLine
) -> None:
    status = 1
    try:
        freeze_cache()
        client.close()
        _adopt_files(files, request["files"])
        _adopt_signals(request["ignored"])
        _adopt_limits(request)
        sys.argv = ["hftool", *request["arguments"]]
        status = _status_of(run)
    except BaseException:
        log.exception("a command was not run")
    finally:
        os._exit(status)


def _adopt_files(files: Sequence[int], numbers: Sequence[int]) -> None:
    """Give files the numbers that they have in the client, and Python its standard streams."""
    high = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, protocol.MAX_FILE_NUMBER) for file in files]
    os.closerange(0, protocol.MAX_FILE_NUMBER)
    for file, number in zip(high, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)
    for name, mode, number in STANDARD_STREAMS:
        stream = None
        if number in numbers:
            raw = open(number, mode + "b", closefd=False)
            assert isinstance(raw, io.BufferedReader | io.BufferedWriter)
            live = number == 2 or raw.isatty()
            errors = "surrogateescape" if name == "stdin" else "strict"
            stream = io.TextIOWrapper(raw, "utf-8", errors=errors, line_buffering=live)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _adopt_signals(ignored: Sequence[int]) -> None:
    """Handle signals as a program that the client starts would."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


def _adopt_limits(request: dict[str, Any]) -> None:
    os.umask(request["mask"])
    for name, soft, hard in request["limits"]:
        with contextlib.suppress(ValueError, OSError):  # the daemon's own limit is lower
            resource.setrlimit(getattr(resource, name), (soft, hard))


def _status_of(run: RunCommandLine) -> int:
    """Return the exit status of a command line, as Python would end with it."""
    status: Any = 1
    try:
        run()
    except SystemExit as system_exit:
        status = system_exit.code or 0
    except BaseException:
        traceback.print_exc()  # to the client's stderr
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):  # full or closed, as was reported
                stream.flush()
    return status if isinstance(status, int) else 1

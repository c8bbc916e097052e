"""One command line in a process of its own, forked from one that has its model in memory.

What is loaded is shared with the parent, and what the command does stays in its own process. It has
the open files, the environment, the folder and the limits of the program that asked, so it is the
command itself that writes, asks and fails there, just as without a server.
"""

import contextlib
import fcntl
import io
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from hftool.server import protocol

STANDARD = (("stdin", "r", 0), ("stdout", "w", 1), ("stderr", "w", 2))


def adopt_environment(request: dict[str, Any]) -> None:
    """Take over the environment and the folder of the program that asked.

    Raises:
        OSError: the folder is gone.
    """
    from hftool import config

    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    config.load.cache_clear()


def start(connection: socket.socket, request: dict[str, Any]) -> None:
    """Fork a process that runs a command and tells the program that asked how it ended."""
    if os.fork():
        return
    try:
        _watch(connection, request)
    except OSError:
        pass  # who asked is gone
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _watch(connection: socket.socket, request: dict[str, Any]) -> None:
    """Run the command in one more process; pass signals on to it, and its end back."""
    protocol.close_others({connection.fileno()})
    os.setsid()  # no terminal of the server's, whose signals would come here too
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection.settimeout(None)
    protocol.send_answer(connection, ready=True)
    go, files, _, _ = socket.recv_fds(connection, 1, protocol.MOST_FILES)
    if go != bytes([protocol.GO]):
        return  # who asked did not wait
    command = os.fork()
    if not command:
        os._exit(_run(connection, request, files))
    protocol.close(files)
    status = _wait(connection, command)
    if os.WIFSIGNALED(status):
        protocol.send_answer(connection, signal=os.WTERMSIG(status))
    else:
        protocol.send_answer(connection, status=os.WEXITSTATUS(status))


def _wait(connection: socket.socket, command: int) -> int:
    """The command's status, as os.wait has it."""
    ended = os.pidfd_open(command)
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        selector.register(ended, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if ended in ready:
                return os.waitpid(command, 0)[1]
            for number in _signals(connection):
                os.kill(command, number)


def _signals(connection: socket.socket) -> Sequence[int]:
    """What to send the command: where the program that asked was killed, it dies too."""
    try:
        return connection.recv(64) or [signal.SIGKILL]
    except OSError:
        return [signal.SIGKILL]


def _run(connection: socket.socket, request: dict[str, Any], files: Sequence[int]) -> int:
    connection.close()
    _take(files, request["files"])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    _limit(request)
    sys.argv = ["hftool", *request["arguments"]]
    return _status_of_main()


def _take(files: Sequence[int], numbers: Sequence[int]) -> None:
    """Give files the numbers they have in the program that asked, the standard ones to Python."""
    high = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, protocol.HIGHEST_FILE) for file in files]
    os.closerange(0, protocol.HIGHEST_FILE)
    for file, number in zip(high, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)
    for name, mode, number in STANDARD:
        stream = None
        if number in numbers:
            raw = open(number, mode + "b", closefd=False)
            assert isinstance(raw, io.BufferedReader | io.BufferedWriter)
            live = number == 2 or raw.isatty()
            errors = "surrogateescape" if name == "stdin" else "strict"
            stream = io.TextIOWrapper(raw, "utf-8", errors=errors, line_buffering=live)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _limit(request: dict[str, Any]) -> None:
    import resource

    os.umask(request["mask"])
    for name, soft, hard in request["limits"]:
        with contextlib.suppress(ValueError, OSError):  # the server's own are narrower
            resource.setrlimit(getattr(resource, name), (soft, hard))


def _status_of_main() -> int:
    """The exit status of the command, as Python would have it."""
    from hftool.cli.app import main

    status: Any = 1
    try:
        main()
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    return status if isinstance(status, int) else 1

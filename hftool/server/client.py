"""A command line, run by the server where there is one."""

import json
import logging
import os
import signal
import socket
from collections.abc import Sequence
from typing import Any, NoReturn

from hftool.redaction import TOKEN_OPTIONS
from hftool.server import protocol

SERVED = ("topk", "sample", "generate", "chat", "sentiment", "encode", "decode", "vocab-dump")
ANSWER_SECONDS = 2.0  # a server that is busy takes a request on in much less
READY_SECONDS = 60.0  # to load a model; then the command loads it itself
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGWINCH")
FORWARDED = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]  # not on Windows

declined: str | None = None  # why no server runs this command, where there is one


def run_on_daemon(arguments: Sequence[str]) -> None:
    """Let the server run a command, and exit as it does. Returns where none can."""
    global declined
    path = protocol.socket_path() if arguments and arguments[0] in SERVED else None
    if path is None or "--no-server" in arguments or not path.exists():
        return
    if any(argument.startswith(TOKEN_OPTIONS) for argument in arguments):
        declined = "a token was given, and belongs to one process alone"
        return
    if not protocol.is_private(path.parent):
        declined = f"others can enter {path.parent}"
        return
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(str(path))
            if not protocol.is_own_user(connection):
                declined = "it is another user's"
                return
            _run(connection, arguments)
    except (OSError, ValueError) as error:
        declined = f"it does not answer ({error})"


def log_declined() -> None:
    """Log why the server does not run this command, where there is one."""
    if declined is not None:
        logging.getLogger("hftool").debug("not run by the server: %s", declined)


def _run(connection: socket.socket, arguments: Sequence[str]) -> None:
    global declined
    files = _inherited()
    protocol.send_request(connection, {"run": _surroundings(arguments, files)})
    answers = _Answers(connection)
    answer = answers.next()
    connection.settimeout(READY_SECONDS)
    while "loading" in answer:
        answer = answers.next()
    if "ready" not in answer:
        declined = str(answer.get("declined", answer))
        return
    _forward_signals(connection)
    connection.settimeout(None)
    # Only now: a server that hangs would keep a pipe open for ever.
    socket.send_fds(connection, [bytes([protocol.GO])], files)
    try:
        answer = answers.next()
    except OSError:
        answer = {"signal": signal.SIGKILL}  # who watched the command is gone, and it with them
    _end(answer)


def _surroundings(arguments: Sequence[str], files: Sequence[int]) -> dict[str, Any]:
    """What a command sees of where it was started."""
    import resource

    limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    mask = os.umask(0o077)
    os.umask(mask)
    return {
        "identity": protocol.identity(),
        "arguments": list(arguments),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "mask": mask,
        "limits": [[name, *resource.getrlimit(getattr(resource, name))] for name in limits],
        "ignored": [s for s in FORWARDED if signal.getsignal(s) == signal.SIG_IGN],
        "files": list(files),
    }


def _inherited() -> list[int]:
    """The open files a program started from here would have: also those of `<(…)`."""
    names = [int(name) for name in os.listdir("/proc/self/fd")]
    found = []
    for file in sorted(name for name in names if name < protocol.HIGHEST_FILE):
        try:
            if os.get_inheritable(file):
                found.append(file)
        except OSError:
            continue  # the folder itself, closed again
    return found[: protocol.MOST_FILES]


class _Answers:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""

    def next(self) -> dict[str, Any]:
        """The next answer.

        Raises:
            OSError: there is none, or not in time.
            ValueError: it is none.
        """
        while b"\n" not in self._rest:
            some = self._connection.recv(4096)
            if not some:
                raise ConnectionResetError("the server is gone")
            self._rest += some
        line, self._rest = self._rest.split(b"\n", 1)
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise ValueError("no answer")
        return answer


def _forward_signals(connection: socket.socket) -> None:
    """Let signals reach the command instead of this process, which stops and goes on with it."""

    def forward(number: int, _frame: Any) -> None:
        connection.send(bytes([number]))

    def stop(_number: int, _frame: Any) -> None:
        connection.send(bytes([signal.SIGSTOP]))
        os.kill(os.getpid(), signal.SIGSTOP)

    for number in FORWARDED:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, forward)
    signal.signal(signal.SIGTSTP, stop)
    signal.signal(signal.SIGCONT, forward)


def _end(answer: dict[str, Any]) -> NoReturn:
    """End with the status or by the signal that the command ended with."""
    if number := answer.get("signal"):
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(answer.get("status", 1))

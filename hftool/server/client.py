"""The client: has the daemon run this process's command line, if a daemon is running."""

import json
import logging
import os
import signal
import socket
from collections.abc import Sequence
from typing import Any, NoReturn

from hftool.redaction import TOKEN_OPTIONS
from hftool.server import protocol

COMMANDS = (
    *("topk", "score", "sample", "tree", "generate", "chat", "sentiment"),
    *("encode", "decode", "vocab-dump"),
)
ANSWER_SECONDS = 2.0  # a busy daemon accepts a request in much less
READY_SECONDS = 60.0  # for the daemon to load a model; after that, the command loads it itself
FORWARDED_SIGNALS = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGWINCH),
)

_declined: str | None = None  # why a running daemon does not run this command


def run_on_daemon(arguments: Sequence[str]) -> None:
    """Have the daemon run a command line, and exit as it does. Return if no daemon can run it."""
    global _declined
    path = protocol.socket_path() if arguments and arguments[0] in COMMANDS else None
    if path is None or "--no-daemon" in arguments or not path.exists():
        return
    if any(argument.startswith(TOKEN_OPTIONS) for argument in arguments):
        _declined = "hub tokens are never sent to it"
        return
    if not protocol.is_private(path.parent):
        _declined = f"others can enter {path.parent}"
        return
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(str(path))
            if not protocol.is_own_user(connection):
                _declined = "it is another user's"
                return
            _run(connection, arguments)
    except (OSError, ValueError) as error:
        _declined = f"it does not answer ({error})"


def log_declined() -> None:
    """Log why a running daemon does not run this command."""
    if _declined is not None:
        logging.getLogger("hftool").debug("not run by the daemon: %s", _declined)


def _run(connection: socket.socket, arguments: Sequence[str]) -> None:
    """Have the daemon run a command line, and exit as it does. Return if the daemon declines.

    Raises:
        OSError: the daemon is gone or does not answer in time.
        ValueError: it sends something other than an answer.
    """
    global _declined
    files = _inheritable_files()
    protocol.send_request(connection, {"run": _request(arguments, files)})
    answers = _Answers(connection)
    answer = answers.next()
    connection.settimeout(READY_SECONDS)
    while "loading" in answer:
        answer = answers.next()
    if "ready" not in answer:
        _declined = str(answer.get("declined", answer))
        return
    _forward_signals(connection)
    connection.settimeout(None)
    # Files are sent only now: those sent to a daemon that hangs would keep a pipe open forever.
    socket.send_fds(connection, [bytes([protocol.GO])], files)
    try:
        answer = answers.next()
    except OSError:
        # The process that watches the command was killed, and the command with it.
        answer = {"signal": signal.SIGKILL}
    _end(answer)


def _request(arguments: Sequence[str], files: Sequence[int]) -> dict[str, Any]:
    """Return what a command needs to run as if this process ran it."""
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
        "ignored": [s for s in FORWARDED_SIGNALS if signal.getsignal(s) == signal.SIG_IGN],
        "files": list(files),
    }


def _inheritable_files() -> list[int]:
    """Return the open files that a child process would inherit, `<(…)` of the shell included."""
    names = [int(name) for name in os.listdir("/proc/self/fd")]
    files = []
    for file in sorted(name for name in names if name < protocol.MAX_FILE_NUMBER):
        try:
            if os.get_inheritable(file):
                files.append(file)
        except OSError:
            continue  # the listed folder itself, closed by now
    return files[: protocol.MAX_FILES]


class _Answers:
    """The daemon's answers, one per line."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""

    def next(self) -> dict[str, Any]:
        """Receive the next answer.

        Raises:
            OSError: the daemon is gone, or does not answer in time.
            ValueError: it is not an answer.
        """
        while b"\n" not in self._rest:
            received = self._connection.recv(4096)
            if not received:
                raise ConnectionResetError("the daemon is gone")
            self._rest += received
        line, self._rest = self._rest.split(b"\n", 1)
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise ValueError("an answer must be a JSON object")
        return answer


def _forward_signals(connection: socket.socket) -> None:
    """Send signals on to the command. Ctrl-Z stops both it and this process."""

    def forward(number: int, _frame: Any) -> None:
        connection.send(bytes([number]))

    def stop(_number: int, _frame: Any) -> None:
        connection.send(bytes([signal.SIGSTOP]))
        os.kill(os.getpid(), signal.SIGSTOP)

    for number in FORWARDED_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, forward)
    signal.signal(signal.SIGTSTP, stop)
    signal.signal(signal.SIGCONT, forward)


def _end(answer: dict[str, Any]) -> NoReturn:
    """End with the status or by the signal with which the command ended."""
    if number := answer.get("signal"):
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(answer.get("status", 1))

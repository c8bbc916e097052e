"""What clients, the daemon and its processes send each other over Unix sockets.

A request is its length (4 bytes) and a JSON object; open files travel with the length (SCM_RIGHTS).
Answers are JSON objects, one per line. After the answer `ready` the client writes bytes: `GO`, then
the number of each signal that it receives.
"""

import contextlib
import json
import os
import socket
import stat
import struct
import sys
import warnings
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

GO = 0
MAX_FILES = 250  # one message cannot carry many more (Linux: 253)
MAX_FILE_NUMBER = 512  # files with higher numbers are not passed on
MAX_REQUEST_BYTES = 64 * 2**20  # more than any command line and environment
PART_BYTES = 2**20
_LENGTH = struct.Struct("!I")
_CREDENTIALS = struct.Struct("3i")  # process, user, group

# Libraries read these when they are imported, or the C library when the process starts. The daemon
# cannot adopt a client's values; it declines clients whose values differ from its own.
_READ_ONCE_PREFIXES = (
    *("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "TOKENIZERS_", "TORCH", "PYTORCH_", "CUDA_"),
    *("OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "RAYON_"),
    *("PYTHON", "LD_", "MALLOC_", "SSL_"),
)
_READ_ONCE = ("HOME", "XDG_CACHE_HOME", "TMPDIR", "TZ", "http_proxy", "https_proxy", "no_proxy")


def socket_path() -> Path | None:
    """Return where the daemon listens: `HFTOOL_DAEMON`, else a socket in the runtime folder.

    Return None if `HFTOOL_DAEMON` is `off`, or if the runtime folder is another user's.
    """
    named = os.environ.get("HFTOOL_DAEMON")
    if named == "off":
        return None
    if named:
        return Path(named).absolute()
    import platformdirs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns if XDG_RUNTIME_DIR is not set
        try:
            return platformdirs.user_runtime_path("hftool") / "daemon"
        except PermissionError:
            return None


def is_private(folder: Path) -> bool:
    """Return whether a folder is the user's and nobody else can enter it."""
    try:
        status = folder.stat()
    except OSError:
        return False
    return status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077


def is_own_user(connection: socket.socket) -> bool:
    """Return whether the other end is a process of the same user."""
    content = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(content)[1] == os.geteuid())


def identity() -> list[Any]:
    """Return what must be equal on both sides for equal answers, as JSON values.

    It is the program, the libraries, and the variables that libraries read once.
    """
    package = Path(__file__).parent.parent
    code = max(path.stat().st_mtime_ns for path in package.rglob("*.py"))
    folders = [path for path in sys.path if path.endswith("-packages")]
    libraries = [os.stat(folder).st_mtime_ns for folder in folders if os.path.isdir(folder)]
    variables = sorted(
        [name, value]
        for name, value in initial_environment().items()
        if name in _READ_ONCE or name.startswith(_READ_ONCE_PREFIXES)
    )
    return [sys.prefix, sys.version, str(package), code, folders, libraries, variables]


def initial_environment() -> dict[str, str]:
    """Return the environment that this process was started with, without later changes."""
    entries = Path("/proc/self/environ").read_bytes().split(b"\0")
    pairs = (os.fsdecode(entry).partition("=") for entry in entries if b"=" in entry)
    return {name: value for name, _, value in pairs}


def send_request(to: socket.socket, request: dict[str, Any], files: Sequence[int] = ()) -> None:
    """Send a request and open files.

    Raises:
        OSError: the other end is gone, or does not read within the socket's timeout.
    """
    content = json.dumps(request).encode("utf-8", "surrogateescape")
    socket.send_fds(to, [_LENGTH.pack(len(content))], files)
    to.sendall(content)


def receive_request(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Receive one request and its open files.

    Raises:
        ConnectionResetError: the other end is gone.
        ValueError: it is not a request.
    """
    start, files, _, _ = socket.recv_fds(connection, _LENGTH.size, MAX_FILES)
    incoming = IncomingRequest(connection, start)
    try:
        request = None
        while request is None:
            request = incoming.receive()
    except BaseException:
        close(files)
        raise
    return request, files


class IncomingRequest:
    """A request that arrives in parts.

    Args:
        connection: where it arrives from.
        start: what has arrived already.
    """

    def __init__(self, connection: socket.socket, start: bytes = b"") -> None:
        self.connection = connection
        self._content = bytearray(start)

    def receive(self) -> dict[str, Any] | None:
        """Receive the next part; return the request if that was the last one.

        Raises:
            ConnectionResetError: the other end is gone.
            ValueError: it is not a request.
        """
        received = self.connection.recv(min(self._missing(), PART_BYTES))
        if not received:
            raise ConnectionResetError("the other end is gone")
        self._content += received
        if self._missing():
            return None
        request = json.loads(self._content[_LENGTH.size :].decode("utf-8", "surrogateescape"))
        if not isinstance(request, dict):
            raise ValueError("a request must be a JSON object")
        return request

    def _missing(self) -> int:
        """Return how many bytes of the length or of the request have not arrived yet."""
        if len(self._content) < _LENGTH.size:
            return _LENGTH.size - len(self._content)
        length: int = _LENGTH.unpack(self._content[: _LENGTH.size])[0]
        if length > MAX_REQUEST_BYTES:
            raise ValueError(f"a request of {length} bytes is too long")
        return _LENGTH.size + length - len(self._content)


def send_answer(to: socket.socket, **answer: Any) -> None:
    """Send one answer, unless the client is gone or has stopped reading."""
    with contextlib.suppress(ConnectionError, TimeoutError):
        to.sendall(json.dumps(answer).encode() + b"\n")


def close(files: Iterable[int]) -> None:
    """Close file descriptors."""
    for file in files:
        os.close(file)


def close_others(kept: Container[int]) -> None:
    """Close all files except `kept` and the three standard ones, in a forked process."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):  # the list includes the listed folder, now closed
                os.close(int(name))

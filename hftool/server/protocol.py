"""What goes between a command and the server: requests in JSON, with open files beside them.

A request is a length (4 bytes) and a JSON object; file descriptors travel with the length (Unix,
SCM_RIGHTS). Answers are JSON objects, a line each. After the answer `ready` the command writes
bytes: `GO`, then the numbers of the signals it gets.
"""

import contextlib
import json
import os
import socket
import stat
import struct
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

GO = 0
MOST_FILES = 250  # that one message can carry
HIGHEST_FILE = 512  # files of higher numbers are not passed on
LARGEST = 64 * 2**20  # bytes of a request: a command line and an environment
_LENGTH = struct.Struct("!I")
_CREDENTIALS = struct.Struct("3i")  # process, user, group

# Read by libraries when they are imported, or by the C library: a server can't follow these.
_READ_ONCE = (
    *(
        "HF_",
        "HUGGINGFACE_",
        "TRANSFORMERS_",
        "TORCH",
        "PYTORCH_",
        "TOKENIZERS_",
        "RAYON_",
        "CUDA_",
    ),
    *("OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "PYTHON", "LD_", "MALLOC_", "SSL_"),
)
_NAMES = ("HOME", "XDG_CACHE_HOME", "TMPDIR", "TZ", "http_proxy", "https_proxy", "no_proxy")


def socket_path() -> Path | None:
    """Where the server listens: `HFTOOL_SERVER`, else in the user's runtime folder. None: off, or
    the folder is not the user's."""
    named = os.environ.get("HFTOOL_SERVER")
    if named == "off" or not hasattr(socket, "AF_UNIX"):
        return None
    if named:
        return Path(named)
    import platformdirs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there need be no XDG_RUNTIME_DIR
        try:
            return platformdirs.user_runtime_path("hftool") / "server"
        except PermissionError:
            return None


def is_private(folder: Path) -> bool:
    """Whether a folder is the user's, and nobody else can enter it."""
    try:
        found = folder.stat()
    except OSError:
        return False
    return found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077


def is_own_user(connection: socket.socket) -> bool:
    """Whether the other end is a process of the same user."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(found)[1] == os.geteuid())


def identity() -> list[Any]:
    """What must be the same on both sides for the same answers: the program, the libraries, and
    the settings that those read once."""
    package = Path(__file__).parent.parent
    code = max(path.stat().st_mtime_ns for path in package.rglob("*.py"))
    folders = [path for path in sys.path if path.endswith("-packages")]
    libraries = [os.stat(folder).st_mtime_ns for folder in folders if os.path.isdir(folder)]
    environment = first_environment().items()
    once = sorted([n, v] for n, v in environment if n in _NAMES or n.startswith(_READ_ONCE))
    return [sys.prefix, sys.version, str(package), code, folders, libraries, once]


def first_environment() -> dict[str, str]:
    """The environment this process was started with, whatever it has set since."""
    entries = Path("/proc/self/environ").read_bytes().split(b"\0")
    pairs = (os.fsdecode(entry).partition("=") for entry in entries if b"=" in entry)
    return {name: value for name, _, value in pairs}


def send_request(to: socket.socket, request: dict[str, Any], files: Sequence[int] = ()) -> None:
    """Send a request and open files.

    Raises:
        OSError: the other end is gone, or does not read in time.
    """
    content = json.dumps(request).encode("utf-8", "surrogateescape")
    socket.send_fds(to, [_LENGTH.pack(len(content))], files)
    to.sendall(content)


def receive_request(of: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next request, with its files.

    Raises:
        OSError: the other end is gone, or does not write in time.
        ValueError: what came is no request.
    """
    start, files, _, _ = socket.recv_fds(of, _LENGTH.size, MOST_FILES)
    try:
        start += _exactly(of, _LENGTH.size - len(start))
        length = _LENGTH.unpack(start)[0]
        if length > LARGEST:
            raise ValueError("too long")
        request = json.loads(_exactly(of, length).decode("utf-8", "surrogateescape"))
        if not isinstance(request, dict):
            raise ValueError("no object")
    except BaseException:
        close(files)
        raise
    return request, files


def _exactly(of: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        some = of.recv(size - len(found))
        if not some:
            raise ConnectionResetError("the other end is gone")
        found += some
    return bytes(found)


def send_answer(to: socket.socket, **answer: Any) -> None:
    """Send one answer; nothing happens where nobody waits for it any more."""
    with contextlib.suppress(OSError):
        to.sendall(json.dumps(answer).encode() + b"\n")


def close(files: Iterable[int]) -> None:
    """Close file descriptors."""
    for file in files:
        os.close(file)


def close_others(kept: Iterable[int]) -> None:
    """Close all files but these and the three standard ones, in a process that was forked."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):  # the folder itself, closed again
                os.close(int(name))

"""The socket on which the daemon listens."""

import socket
from pathlib import Path

from hftool.errors import HftoolError
from hftool.server import protocol
from hftool.server.log import log_path, start_log

BACKLOG = 128


def listen(path: Path) -> socket.socket:
    """Return a listening socket, after starting the log next to it."""
    folder = path.parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not protocol.is_private(folder):
            raise HftoolError(f"others can enter {folder}", f"chmod 700 {folder}")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                path.unlink(missing_ok=True)  # left by a daemon that was killed
            else:
                raise HftoolError("a daemon is running", "`hftool daemon stop` ends it")
        start_log(log_path(path))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        raise HftoolError(f"cannot listen at {path}: {error.strerror or error}") from None
    return listener

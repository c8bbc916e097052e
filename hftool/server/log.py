"""The daemon's log: what goes wrong in its processes, with tracebacks, in a file at its socket."""

import logging
import os
from pathlib import Path

from hftool.redaction import redacted

MAX_BYTES = 1 << 20  # a longer log is started anew, so that an error that recurs fills no disk
FORMAT = "%(asctime)s process %(process)d: %(message)s"

log = logging.getLogger("hftool.daemon")


def log_path(socket_path: Path) -> Path:
    """Return the path of the log of the daemon that listens at a socket."""
    return socket_path.with_name(f"{socket_path.name}.log")


def start_log(path: Path) -> None:
    """Write `log` to an empty file that only the user can read, in this process and its children.

    Raises:
        OSError: the file cannot be written.
    """
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    log.handlers = [_LogFile(path)]
    log.propagate = False
    log.setLevel(logging.INFO)


class _LogFile(logging.Handler):
    """Opens the file for each record: forked processes close every file that they inherit."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self.setFormatter(logging.Formatter(FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                if file.tell() > MAX_BYTES:
                    file.truncate(0)
                file.write(redacted(self.format(record)) + "\n")
        except OSError:
            self.handleError(record)

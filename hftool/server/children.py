"""Forked processes whose exit status nobody needs."""

import os
import signal
from typing import Any


class Children:
    """Reaps each of its processes as soon as it ends, and no other.

    To ignore SIGCHLD would reap them too, but every program that is started inherits that: it
    cannot learn how its own child processes end, and takes a failure for a success.
    """

    def __init__(self) -> None:
        self._processes: set[int] = set()
        signal.signal(signal.SIGCHLD, self._reap)

    def add(self, process: int) -> None:
        """Reap this process when it ends, or now if it has ended already."""
        self._processes.add(process)
        self._reap()

    def _reap(self, *_signal: Any) -> None:
        for process in tuple(self._processes):
            try:
                ended, _ = os.waitpid(process, os.WNOHANG)
            except ChildProcessError:  # reaped by a signal that arrived meanwhile
                ended = process
            if ended:
                self._processes.discard(process)

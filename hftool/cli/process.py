"""The process: signals, standard streams that are closed, and the way out."""

import gc
import os
import signal
import sys
import threading
from typing import Any, NoReturn

INTERRUPTED = 130
LEAVING = ("SIGINT", "SIGTERM", "SIGHUP")  # what asks a program to end; Windows has no SIGHUP
GRACE = 20  # seconds that clearing up may take


_received: list[str] = []  # the signals that have come to end this process


class _Terminated(BaseException):
    """One of the signals in `LEAVING` has come, other than SIGINT."""


def end_if_signalled() -> None:
    """End as the signal that has come asks for, also where a library made another error of it."""
    if "SIGINT" in _received:
        sys.exit(INTERRUPTED)
    if _received:
        end_by_signal(_received[0])


def end_by_signal(name: str) -> None:
    """End as a program does that knows nothing of the signal, without a word.

    For SIGPIPE that is what `cat` does when nobody reads on. Python ignores it, which keeps a peer
    that hangs up in a download an ordinary error.
    """
    if not hasattr(signal, name):  # Windows
        os._exit(1)
    number = getattr(signal, name)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def reopen_closed_streams() -> None:
    """Standard streams that were closed become the null device, the wrong way round: what is
    opened later is not taken for one of them, and what is written there is an error."""
    for descriptor, way in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, way)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)


def install_handlers(handler: Any) -> None:
    """Have the signals that ask for an end handled so, but for those ignored, as under nohup."""
    for name in LEAVING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def stop(number: int, frame: object) -> NoReturn:
    """Stop where we are, and clear up; end in any case, also where the exception gets lost (Python
    drops those of a `__del__`) or the clearing up hangs."""
    sys.unraisablehook = lambda lost: None
    name = signal.Signals(number).name
    _received.append(name)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, lambda number, frame: end_by_signal(name))
        signal.alarm(GRACE)
    if name == "SIGINT":
        raise KeyboardInterrupt
    raise _Terminated(name)


def leave(ended: SystemExit) -> NoReturn:
    """End now: Python would wait for a library's threads, such as those of a download, and would
    try again to write what could not be written."""
    install_handlers(signal.SIG_DFL)  # there is nothing left to clear up
    status = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    at_once = threading.active_count() > 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # said already; or the stream is closed
            at_once = True
    if at_once:
        os._exit(status)
    gc.freeze()  # else Python looks through all that torch made once more, which takes a second
    raise ended

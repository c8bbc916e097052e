"""The process that runs a command line: its signals, its standard streams and how it ends."""

import gc
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from hftool.redaction import hide_token
from hftool.terminal import show_on_stderr

INTERRUPTED = 130  # the status after Ctrl-C
TERMINATION_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CLEANUP_SECONDS = 20

_received: list[signal.Signals] = []  # the termination signals so far


class _Terminated(BaseException):
    """Raised on a termination signal other than SIGINT."""


def run(command: Callable[..., object]) -> NoReturn:
    """Run the command line in `sys.argv` and exit with its status, or by the signal that ended it.

    Args:
        command: the application, as `typer.main.get_command` returns it.
    """
    reopen_closed_streams()
    # Whoever started this process may ignore it; then no process started here would seem to fail.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        ended = _ended(command)
        install_handlers(signal.SIG_DFL)  # nothing is left to clean up
    except BaseException:  # a termination signal, just before or after the command
        install_handlers(signal.SIG_DFL)
        if signal.SIGINT in _received:
            leave(SystemExit(INTERRUPTED))
        end_if_signalled()
        raise
    leave(ended)


def _ended(command: Callable[..., object]) -> SystemExit:
    """Run the command line, and return how the process is to exit."""
    install_handlers(stop)
    hide_token()
    try:
        command(prog_name="hftool")
    except SystemExit as system_exit:
        return system_exit
    except BaseException as error:  # a bug, or HFTOOL_DEBUG is set
        end_if_signalled()
        show_on_stderr("".join(traceback.format_exception(error)).rstrip())
        return SystemExit(1)
    return SystemExit(0)


def end_if_signalled() -> None:
    """End as a termination signal asks for, even if a library turned it into another error."""
    if signal.SIGINT in _received:
        sys.exit(INTERRUPTED)
    if _received:
        end_by_signal(_received[0])


def end_by_signal(number: signal.Signals) -> None:
    """End silently, as a program without a handler for the signal ends.

    On SIGPIPE `cat` ends this way when its reader is gone. Python ignores SIGPIPE, so that a peer
    that hangs up during a download is an ordinary error.
    """
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def reopen_closed_streams() -> None:
    """Reopen closed standard descriptors on /dev/null in the opposite mode.

    Files that are opened later then cannot get the numbers 0 to 2, and writing to a stdout that was
    closed still fails.
    """
    for descriptor, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # gets the lowest free number, which is `descriptor`
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)


def install_handlers(handler: Any) -> None:
    """Install `handler` for the termination signals, except those already ignored (nohup)."""
    for number in TERMINATION_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def stop(number: int, frame: object) -> NoReturn:
    """Handle a termination signal: raise an exception, so that the command cleans up and ends.

    The process ends after `CLEANUP_SECONDS` even if the exception gets lost (Python drops those
    raised in a `__del__`) or the clean-up hangs.

    Raises:
        KeyboardInterrupt: on SIGINT.
        _Terminated: on the other signals.
    """
    sys.unraisablehook = lambda unraisable: None
    received = signal.Signals(number)
    _received.append(received)
    signal.signal(signal.SIGALRM, lambda number, frame: end_by_signal(received))
    signal.alarm(CLEANUP_SECONDS)
    if received == signal.SIGINT:
        raise KeyboardInterrupt
    raise _Terminated(received.name)


def leave(system_exit: SystemExit) -> NoReturn:
    """Exit without waiting for a library's threads, such as those of a download.

    A normal exit would wait for them, and would try again to write what could not be written.
    """
    status = (
        system_exit.code
        if isinstance(system_exit.code, int)
        else 0
        if system_exit.code is None
        else 1
    )
    skip_python = threading.active_count() > 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # reported before; or the stream is closed
            skip_python = True
    if skip_python:
        os._exit(status)
    gc.freeze()  # otherwise Python inspects all of torch's objects once more, for about a second
    raise system_exit

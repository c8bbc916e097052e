"""Read ahead in a thread, so that a slow source is answered item by item."""

import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

MOMENT = 0.05  # seconds to wait for more items, so that they can be computed together
WINDOW_SIZE = 4_000_000  # total size (by default in characters) above which a window is full


def read_ahead(
    items: Iterable[T], most: int, size: Callable[[Any], int] = len
) -> Iterator[list[T]]:
    """Yield windows: the items that have arrived since the last one, up to `most` of them.

    A thread fills the next window while the caller works on this one; with `most` 1 it prepares
    the next item. If nothing has arrived, the caller waits for an item, and then a moment for
    more. A window is full with `most` items, or once their sizes exceed `WINDOW_SIZE`. An error of
    the source is raised after the items that came before it.

    Closing the generator ends the thread, which closes the source. A thread that is waiting for
    its source (say, for a line from stdin) ends once the wait is over; nothing waits for that,
    not even the end of the program.
    """
    # Reentrant: garbage collection may close this generator in the thread that holds the lock.
    lock = threading.RLock()
    changed = threading.Condition(lock)
    window: list[T] = []
    window_size = 0
    closed = False
    ended: BaseException | None = None
    exhausted = EOFError()

    def is_full() -> bool:
        return len(window) >= most or window_size > WINDOW_SIZE

    def can_yield() -> bool:
        return bool(window) or ended is not None

    def read(stdin: object) -> None:
        nonlocal window_size, ended
        cause: BaseException = exhausted
        try:
            source = iter(items)
            for item in source:
                with lock:  # for each of possibly millions of items: as little as possible
                    if is_full():
                        changed.wait_for(lambda: closed or not is_full())
                    if closed:
                        break
                    window.append(item)
                    window_size += size(item)
                    if len(window) == 1 or is_full():
                        changed.notify()
            if hasattr(source, "close"):
                source.close()
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # closes the file they read
            cause = error
        with lock:
            ended = cause
            changed.notify()

    # Python aborts if it frees stdin, at its end, while a thread still reads from it: the thread
    # keeps a reference.
    threading.Thread(target=read, args=(sys.stdin,), daemon=True).start()
    try:
        while True:
            with lock:
                changed.wait_for(can_yield)
                changed.wait_for(lambda: ended or is_full(), timeout=MOMENT)
                arrived, window, window_size = window, [], 0
                changed.notify()
            if arrived:
                yield arrived
            elif ended is exhausted:
                return
            elif ended is not None:
                raise ended
    finally:
        with lock:
            closed = True
            changed.notify()


def flushed_windows(items: Iterable[T], most: int, flush: Callable[[], None]) -> Iterator[list[T]]:
    """Yield windows as `read_ahead` does, and flush after each: for short lines that is much faster
    than to flush each record."""
    for window in read_ahead(items, most):
        yield window
        flush()

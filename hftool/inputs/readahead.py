"""Read ahead in a thread, so that a slow source is answered item by item."""

import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hftool.inputs.texts import T

MOMENT = 0.05  # seconds that what arrives is waited for, to be computed together
ARRIVING_CHARACTERS = 4_000_000  # that are read ahead


def arriving(items: Iterable[T], most: int, size: Callable[[Any], int] = len) -> Iterator[list[T]]:
    """What has arrived, up to `most` items or until their sizes exceed `ARRIVING_CHARACTERS`; waits
    where nothing has, and a moment for more.

    A thread reads ahead, as much again, so that a slow source is answered item by item.
    """
    lock = threading.Lock()
    changed = threading.Condition(lock)
    arrived: list[T] = []
    held = 0
    stopped: BaseException | None = None
    end = EOFError()

    def has_room() -> bool:
        return len(arrived) < most and held <= ARRIVING_CHARACTERS

    def read(stdin: object) -> None:
        nonlocal held, stopped
        why: BaseException = end
        try:
            for item in items:
                with lock:  # for millions of items: what is seldom needed is not done for each
                    if not has_room():
                        changed.wait_for(has_room)
                    arrived.append(item)
                    held += size(item)
                    if len(arrived) == 1 or not has_room():
                        changed.notify()
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # closes the file they read
            why = error
        with changed:
            stopped = why
            changed.notify()

    # Python aborts where it frees, at its end, a stdin that a thread still reads: the thread's
    # reference keeps it.
    threading.Thread(target=read, args=(sys.stdin,), daemon=True).start()
    while True:
        with changed:
            changed.wait_for(lambda: arrived or stopped)
            changed.wait_for(lambda: stopped or not has_room(), timeout=MOMENT)
            window, held = arrived.copy(), 0
            arrived.clear()
            changed.notify()
        if window:
            yield window
        elif stopped is end:
            return
        elif stopped is not None:
            raise stopped

"""Work on several items side by side, and yield the results in order."""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import Full, Queue, SimpleQueue
from typing import Generic, TypeVar

AHEAD = 4  # as many items for each thread are read before the first is answered
LOOK_SECONDS = 0.2  # how often a full queue looks whether its reader is gone

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yield what `work` makes of each item, in order and as soon as it is known.

    Several threads work, and another reads the items, of which it is only a little ahead.

    An error of `work` or of the source is raised in its place. The threads do not keep the program
    from ending.
    """
    pool = _Pool(work, workers)
    threading.Thread(target=pool.read, args=(items, sys.stdin), daemon=True).start()
    try:
        while True:
            found = pool.order.get().get()
            if found is pool.ended:
                return
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        pool.close()


class _Pool(Generic[Item, Result]):
    """Threads that work on items.

    Attributes:
        order: a queue for each item, in order, which gets its result or the error of it; the last
            one gets the error of the source, or `ended`.
    """

    def __init__(self, work: Callable[[Item], Result], workers: int) -> None:
        self._work, self._workers = work, workers
        self._tasks: SimpleQueue[tuple[Item, SimpleQueue[Result | BaseException]] | None]
        self._tasks = SimpleQueue()
        self._closed = threading.Event()
        self.order: Queue[SimpleQueue[Result | BaseException]] = Queue(AHEAD * workers)
        self.ended = EOFError()

    def read(self, items: Iterable[Item], stdin: object) -> None:
        """Read the items, and start the threads as they are needed.

        Args:
            stdin: what Python must not free while it is read.
        """
        last: SimpleQueue[Result | BaseException] = SimpleQueue()
        cause: BaseException = self.ended
        try:
            for number, item in enumerate(items):
                if self._closed.is_set():
                    return
                if number < self._workers:
                    threading.Thread(target=self._run, daemon=True).start()
                result: SimpleQueue[Result | BaseException] = SimpleQueue()
                self._tasks.put((item, result))
                self._add(result)
        except BaseException as error:
            cause = error
        last.put(cause)
        self._add(last)

    def _run(self) -> None:
        while (task := self._tasks.get()) and not self._closed.is_set():
            item, result = task
            try:
                result.put(self._work(item))
            except BaseException as error:
                result.put(error)

    def _add(self, result: "SimpleQueue[Result | BaseException]") -> None:
        while not self._closed.is_set():
            with suppress(Full):
                self.order.put(result, timeout=LOOK_SECONDS)
                return

    def close(self) -> None:
        """End the threads once they have done what they are at."""
        self._closed.set()
        for _ in range(self._workers):
            self._tasks.put(None)

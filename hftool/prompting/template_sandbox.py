"""Bounds on what a chat template may take: it is a program of a stranger's.

Jinja's sandbox keeps it from files and from Python's insides; time and memory are kept here.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

SECONDS = 10.0
LONGEST_SOURCE = 1_000_000  # characters
MEMORY = 2**30  # bytes beyond what the process has
LARGEST_NUMBER = 4096  # bits
MOST_DIGITS = 308  # that a float can have
EVENTS = 500  # lines of Python between two looks at the clock

_one_at_a_time = threading.Lock()  # the bounds on memory are the process's


class OutOfBounds(Exception):
    """A template took more than it may."""


@contextmanager
def bounded(source: str) -> Iterator[None]:
    """Keep what the block does with a template within the bounds; this thread's tracing is ours
    meanwhile.

    Raises:
        OutOfBounds: it takes too long or too much memory (where the system can tell), or computes
            numbers that would.
    """
    if len(source) > LONGEST_SOURCE:
        raise OutOfBounds(f"it has more than {LONGEST_SOURCE:,} characters")
    _forbid_wild_numbers()
    deadline = time.monotonic() + SECONDS
    events = 0

    def look(frame: Any, event: str, argument: Any) -> Any:
        nonlocal events
        events += 1
        if events % EVENTS == 0 and time.monotonic() > deadline:
            raise OutOfBounds(f"it takes longer than {SECONDS:g} seconds")
        return look

    with _one_at_a_time, _limited_memory():
        before = sys.gettrace()
        sys.settrace(look)
        try:
            yield
        except MemoryError:
            raise OutOfBounds(f"it takes more than {MEMORY // 2**20} MiB of memory") from None
        finally:
            sys.settrace(before)


@contextmanager
def _limited_memory() -> Iterator[None]:
    try:
        import resource
    except ImportError:  # Windows
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = _this_process().memory_info().vms + MEMORY
    lower = [most, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    with suppress(ValueError, OSError):  # a system that does not know this limit
        resource.setrlimit(resource.RLIMIT_AS, (min(lower), hard))
    try:
        yield
    finally:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@cache
def _this_process() -> Any:
    import psutil

    return psutil.Process()


@cache
def _forbid_wild_numbers() -> None:
    """Products, powers and rounding that would compute for hours in one step, which no clock can
    stop, become errors: for all sandboxes of this process, since transformers makes its own."""
    from jinja2.filters import FILTERS as DEFAULT_FILTERS
    from jinja2.sandbox import SandboxedEnvironment

    plain_round = DEFAULT_FILTERS["round"]

    def power(base: Any, exponent: Any) -> Any:
        if isinstance(base, int) and isinstance(exponent, int):
            _require_small(base.bit_length() * abs(exponent))
        return base**exponent

    def product(left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            _require_small(left.bit_length() + right.bit_length())
        return left * right

    def rounded(value: Any, precision: int = 0, method: Any = "common") -> Any:
        if not -MOST_DIGITS <= precision <= MOST_DIGITS:
            raise OutOfBounds(f"it rounds to {precision} digits")
        return plain_round(value, precision, method)

    SandboxedEnvironment.intercepted_binops = frozenset({"*", "**"})
    SandboxedEnvironment.default_binop_table |= {"*": product, "**": power}
    DEFAULT_FILTERS["round"] = rounded


def _require_small(bits: int) -> None:
    if bits > LARGEST_NUMBER:
        raise OutOfBounds(f"it computes a number of {bits:,} bits")

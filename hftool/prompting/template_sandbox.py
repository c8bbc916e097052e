"""Limit the time and memory of a chat template, which is a program by somebody unknown.

Jinja's sandbox already denies it files and Python's internals.
"""

import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

SECONDS = 10.0
MAX_SOURCE = 1_000_000  # characters
MEMORY = 2**30  # bytes, in addition to those that the process has
MAX_BITS = 4096  # of an integer
MAX_DIGITS = 308  # of a float
EVENTS = 500  # events of Python's tracing between two checks of the clock

_one_at_a_time = threading.Lock()  # the limit on memory is that of the whole process


class OutOfBounds(Exception):
    """A template exceeded a limit."""


@contextmanager
def bounded(source: str) -> Iterator[None]:
    """Limit the time and memory that the block takes to render a template.

    The block runs with this thread's trace function replaced, which checks the time.

    Raises:
        OutOfBounds: the template takes too long or too much memory (if the system can limit that),
            or it computes numbers that would.
    """
    if len(source) > MAX_SOURCE:
        raise OutOfBounds(f"it has more than {MAX_SOURCE:,} characters")
    _limit_numbers()
    deadline = time.monotonic() + SECONDS
    events = 0

    def check_time(frame: Any, event: str, argument: Any) -> Any:
        nonlocal events
        events += 1
        if events % EVENTS == 0 and time.monotonic() > deadline:
            raise OutOfBounds(f"it takes longer than {SECONDS:g} seconds")
        return check_time

    with _one_at_a_time, _limited_memory():
        before = sys.gettrace()
        sys.settrace(check_time)
        try:
            yield
        except MemoryError:
            raise OutOfBounds(f"it takes more than {MEMORY // 2**20} MiB of memory") from None
        finally:
            sys.settrace(before)


@contextmanager
def _limited_memory() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _this_process().memory_info().vms + MEMORY
    limits = [limit, *(given for given in (soft, hard) if given != resource.RLIM_INFINITY)]
    with suppress(ValueError, OSError):  # the system does not support this limit
        resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
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
def _limit_numbers() -> None:
    """Make products, powers and rounding raise where they would compute for hours.

    Each is a single operation, which the check of the time cannot interrupt. The change applies to
    all sandboxes of this process, because transformers makes its own.
    """
    from jinja2.filters import FILTERS as DEFAULT_FILTERS
    from jinja2.sandbox import SandboxedEnvironment

    plain_round = DEFAULT_FILTERS["round"]

    def power(base: Any, exponent: Any) -> Any:
        if isinstance(base, int) and isinstance(exponent, int):
            _require_few_bits(base.bit_length() * abs(exponent))
        return base**exponent

    def product(left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            _require_few_bits(left.bit_length() + right.bit_length())
        return left * right

    def rounded(value: Any, precision: int = 0, method: Any = "common") -> Any:
        if not -MAX_DIGITS <= precision <= MAX_DIGITS:
            raise OutOfBounds(f"it rounds to {precision} digits")
        return plain_round(value, precision, method)

    SandboxedEnvironment.intercepted_binops = frozenset({"*", "**"})
    SandboxedEnvironment.default_binop_table |= {"*": product, "**": power}
    DEFAULT_FILTERS["round"] = rounded


def _require_few_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise OutOfBounds(f"it computes a number of {bits:,} bits")

"""The table of `bench`, and which precision to choose."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from hftool.output.tables.base import barred, rendered, right
from hftool.output.tables.models import size
from hftool.terminal import one_line

if TYPE_CHECKING:
    from hftool.generation.benchmark import Benchmark, Speed


def benchmarks(records: Iterable["Benchmark"], console: Console) -> Iterator[str]:
    """Render a line for each precision, then what to choose on this machine."""
    entries = list(records)
    done = [entry for entry in entries if entry.error is None]
    first = entries[0]
    threads = f"{first.threads} threads" if first.threads > 1 else "1 thread"
    yield f"tokens per second on {first.device}, {threads}\n\n"
    names = (
        *("precision", "load", "memory", f"prompt of {first.prompt_tokens}"),
        *(f"{first.new_tokens} new", f"{first.batch_size} texts"),
    )
    rows = [_cells(entry) for entry in done]
    if rows:
        yield rendered(console, barred(console, names, rows, [], ""))
    for entry in entries:
        if entry.error is not None:
            yield f"{entry.precision}: {one_line(entry.error)}\n"
    if len(done) > 1:
        yield f"\n{_advice(done)}\n"


def _cells(entry: Any) -> tuple[Text, ...]:
    speeds = (_speed(speed) for speed in (entry.prefill, entry.decode, entry.batch))
    return (
        Text(entry.precision),
        right(f"{entry.load_seconds:.1f} s"),
        right(size(entry.memory_bytes)),
        *map(right, speeds),
    )


def _speed(speed: "Speed") -> str:
    digits = 1 if speed.mean < 100 else 0
    return f"{speed.mean:,.{digits}f} ± {speed.deviation:.{digits}f}"


def _advice(done: Sequence[Any]) -> str:
    """Return which precision to choose; the first is the most precise."""
    fastest = max(done, key=lambda entry: entry.decode.mean)
    exact = done[0]
    if fastest is exact:
        return f"Choose {_option(exact)}: it is the fastest here and the most precise."
    times = fastest.decode.mean / exact.decode.mean
    return (
        f"Choose {_option(fastest)} for speed ({times:.1f} times), {_option(exact)} for precision."
    )


def _option(entry: Any) -> str:
    name = "--quantize" if entry.precision.startswith("int") else "--dtype"
    return f"{name} {entry.precision}"

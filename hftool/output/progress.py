"""Show the progress of a long run on stderr."""

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO, TypeVar

from hftool.options.output import OutputOptions
from hftool.terminal import is_terminal

T = TypeVar("T")


def show_progress(
    records: Iterable[T],
    options: OutputOptions,
    noun: str,
    unit: str,
    amount: Callable[[T], int] = lambda record: 1,
    *,
    at_end: bool = False,
) -> Iterator[T]:
    """Pass on records, and show how many there were and how much of a unit per second.

    Nothing is shown where stderr is not a terminal, or where the records may come to one meanwhile:
    they go to it, or through a pipe.

    Args:
        noun: what the records are called ("texts").
        unit: what is measured per second ("tokens").
        amount: returns how much of it is in a record.
        at_end: whether something is written only after the last record.
    """
    meanwhile = options.output is None and not at_end
    if options.quiet or not is_terminal(sys.stderr) or (meanwhile and not _is_file(sys.stdout)):
        yield from records
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns: Any = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"0 {noun}")
        total = 0
        for count, record in enumerate(records, 1):
            yield record
            total += amount(record)
            elapsed = progress.tasks[0].elapsed or 1e-9
            words = f"{count:,} {noun}, {total / elapsed:,.0f} {unit}/s"
            progress.update(task, description=words)


def _is_file(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):  # closed
        return False

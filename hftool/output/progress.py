"""How far a long run has come, on stderr."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from hftool.options.output import OutputOptions
from hftool.terminal import is_terminal


def shown(events: Iterable[Any], options: OutputOptions) -> Iterator[Any]:
    """The events of a batch, counted with their tokens per second where a person looks at stderr
    and the records go elsewhere."""
    elsewhere = options.output is not None or not is_terminal(sys.stdout)
    if options.quiet or not elsewhere or not is_terminal(sys.stderr):
        yield from events
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("0 records")
        records = tokens = 0
        for event in events:
            yield event
            if isinstance(event, str):
                continue
            records += 1
            usage = getattr(event, "usage", None)
            tokens += usage.completion_tokens if usage else 0
            elapsed = progress.tasks[0].elapsed or 1e-9
            words = f"{records} records, {tokens / elapsed:.0f} tokens/s"
            progress.update(task, description=words)

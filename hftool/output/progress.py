"""Show the progress of a long run on stderr."""

import sys
from collections.abc import Iterable, Iterator

from hftool.generation.records import FailedRequest, Generation
from hftool.options.output import OutputOptions
from hftool.terminal import is_terminal


def show_progress(
    records: Iterable[Generation | FailedRequest], options: OutputOptions
) -> Iterator[Generation | FailedRequest]:
    """Pass on the records of a batch, and show their number and the tokens per second.

    Nothing is shown where stderr is not a terminal, or where the records themselves go to one.
    """
    records_on_terminal = options.output is None and is_terminal(sys.stdout)
    if options.quiet or records_on_terminal or not is_terminal(sys.stderr):
        yield from records
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("0 records")
        tokens = 0
        for count, record in enumerate(records, 1):
            yield record
            if isinstance(record, Generation):
                tokens += record.usage.completion_tokens
            elapsed = progress.tasks[0].elapsed or 1e-9
            words = f"{count} records, {tokens / elapsed:.0f} tokens/s"
            progress.update(task, description=words)

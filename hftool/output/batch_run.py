"""Run a batch of prompts: resumable, counted, with progress."""

from collections.abc import Callable, Iterable, Iterator

from hftool.generation.batch_file import (
    BatchLine,
    FailureCounter,
    completion_tokens,
    numbered_records,
)
from hftool.generation.records import FailedRequest, Generation
from hftool.options.output import ResumableOptions
from hftool.output.progress import show_progress
from hftool.output.resume import remaining, resumable
from hftool.output.run_log import Settings
from hftool.output.views.generation import batch_view
from hftool.output.writer import write


def run_batch(
    lines: Iterable[bytes],
    compute: Callable[[Iterator[BatchLine]], Iterable[Generation | FailedRequest]],
    model: str,
    output: ResumableOptions,
    settings: Callable[[], Settings],
) -> None:
    """Write a record for each record of a batch file.

    Args:
        compute: yields the records of the lines that are not done yet. It loads the model, so that
            an output that can't be resumed is an error before that.
        model: the name of the model.
        settings: returns what shapes the records, as `resumable` needs it.

    Raises:
        UsageError: the output can't be resumed, and `--resume` was given.
        HftoolError: as `compute`, `resumable` and `write`; or records failed.
    """
    view = batch_view(model)
    with resumable(output, view, settings) as partial:
        failures = FailureCounter(partial.failed if partial else 0)
        rest = remaining(partial, numbered_records(lines), lambda line: line.data.strip())
        records = failures.count(compute(rest))
        records = show_progress(records, output, "records", "tokens", completion_tokens)
        write(records, view, output, partial)
    failures.require_none()

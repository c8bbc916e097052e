"""Run what makes a record of each text of a table: resumable, counted, with progress."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, Protocol, TypeVar

from hftool.options.output import TableOptions
from hftool.output.progress import show_progress
from hftool.output.resume import remaining, resumable
from hftool.output.run_log import Settings
from hftool.output.tally import Fallible, Tally
from hftool.output.view import View
from hftool.output.writer import write


class Text(Protocol):
    """A text of a table, or the error of a record that has none."""

    @property
    def text(self) -> str:
        """The text."""

    @property
    def columns(self) -> Mapping[str, Any]:
        """All columns of its record."""

    @property
    def error(self) -> Exception | None:
        """Why the record has no usable text."""


Row = TypeVar("Row", bound=Text)
Record = TypeVar("Record", bound=Fallible)


def run_table(
    rows: Iterable[Row],
    compute: Callable[[Iterator[Row], int], Iterable[Record]],
    view: View,
    output: TableOptions,
    settings: Callable[[], Settings],
    *,
    reduce: Callable[[Iterator[Record]], Iterable[Any]] | None = None,
    announce: bool,
) -> None:
    """Write a record for each row, and log how many there were.

    Args:
        compute: yields the records of the rows that are not done yet; it also gets their number
            that are.
        settings: returns what shapes the records, as `resumable` needs it.
        reduce: makes of all records those that are written instead. They can't be resumed.
        announce: whether to log the number of texts where the records go to stdout.

    Raises:
        UsageError: the output can't be resumed, and `--resume` was given.
        HftoolError: as `compute`, `resumable` and `write`; or texts failed.
    """
    with nullcontext() if reduce else resumable(output, view, settings) as partial:
        rest = remaining(partial, rows, lambda row: (row.text, dict(row.columns), str(row.error)))
        done, failed = (partial.done, partial.failed) if partial else (0, 0)
        tally = Tally(done, failed)
        records = tally.counted(compute(rest, done))
        records = show_progress(records, output, "texts", "texts", at_end=reduce is not None)
        write(reduce(records) if reduce else records, view, output, partial)
    if announce or output.output is not None:
        tally.log_end(output.output)
    tally.report_failures(left_out=output.on_error == "skip" or reduce is not None)

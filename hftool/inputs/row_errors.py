"""Errors of single rows: found among the rows computed together, and named by their place."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from hftool.errors import HftoolError, UsageError
from hftool.inputs.tables import TextRow

SHOWN = 80  # characters of a text in an error

log = logging.getLogger("hftool")


class Fallible(Protocol):
    """A record of a text, or of why there is none for it."""

    @property
    def error(self) -> str | None:
        """The cause, None if the text did not fail."""


Result = TypeVar("Result")
Record = TypeVar("Record", bound=Fallible)


def each_or_error(
    compute: Callable[[Sequence[Any]], Sequence[Result]], items: Sequence[Any]
) -> Iterator[Result | HftoolError]:
    """Yield what `compute` returns for each item. Where it fails for several, halves of them are
    computed by themselves, so that only those get the error which can't be computed at all.

    Raises:
        UsageError: whatever the items are, the options can't work.
    """
    try:
        results = compute(items)
    except UsageError:
        raise
    except HftoolError as error:
        if len(items) <= 1:
            yield from [error] * len(items)
            return
        half = len(items) // 2
        yield from each_or_error(compute, items[:half])
        yield from each_or_error(compute, items[half:])
    else:
        yield from results


def stopping_error(row: TextRow, error: HftoolError, *, first: bool) -> HftoolError:
    """Return the error that ends a run at this row. Where it is not the first one, the cause is in
    the text, and not, as the error's own hint assumes, in the model."""
    go_on = "--on-error report or skip goes on with the other texts"
    if row.error:
        return row.located(error, go_on)
    text = row.text[:SHOWN] + "…" * (len(row.text) > SHOWN)
    shown = HftoolError(f"{error.message} (the text: {text})", error.hint if first else go_on)
    return row.located(shown)


class Failures:
    """Counts the texts that failed, starting from those of an earlier run that this one resumes."""

    def __init__(self, failed_before: int = 0) -> None:
        self._failed = failed_before

    def counted(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the same records, counting those that failed."""
        for record in records:
            self._failed += record.error is not None
            yield record

    def report(self, *, left_out: bool) -> None:
        """Log how many failed if they were left out of the output.

        Raises:
            HftoolError: some failed, and the output has their errors.
        """
        texts = f"{self._failed:,} text" + "s" * (self._failed != 1)
        if self._failed and not left_out:
            raise HftoolError(f"{texts} failed", 'see the "error" field in the output')
        if self._failed:
            log.warning("left out %s that failed", texts)

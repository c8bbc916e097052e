"""Errors of single rows: found among the rows computed together, and named by their place."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from hftool.errors import HftoolError, UsageError
from hftool.inputs.tables import TextRow

SHOWN = 80  # characters of a text in an error

Result = TypeVar("Result")


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

"""Count the texts of a run, and report how it went."""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from hftool.errors import HftoolError

log = logging.getLogger("hftool")

LISTED = 5  # labels that the last line counts


class Fallible(Protocol):
    """A record of a text, or of why there is none for it."""

    @property
    def error(self) -> str | None:
        """The cause, None if the text did not fail."""


Record = TypeVar("Record", bound=Fallible)


class Tally:
    """Counts the texts of a run, those that failed, and by label where they get one.

    Args:
        done_before, failed_before: the texts of an earlier run that this one resumes.
    """

    def __init__(self, done_before: int = 0, failed_before: int = 0) -> None:
        self._began = time.perf_counter()
        self._done_before = done_before
        self._failed = self._failed_before = failed_before
        self._texts = 0
        self._labels: Counter[str] = Counter()

    def counted(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the same records, counting them."""
        for record in records:
            self._texts += 1
            if record.error is not None:
                self._failed += 1
            elif (label := getattr(record, "label", None)) is not None:
                self._labels.update(getattr(record, "labels", None) or (label,))
            yield record

    def log_end(self, output: Path | None) -> None:
        """Log how many texts there were, how long they took, how many have each label, and in which
        file they are."""
        more = " more" if self._done_before else ""
        words = f"{self._texts:,}{more} text" + "s" * (self._texts != 1)
        words += f" in {time.perf_counter() - self._began:.1f} s"
        counts = [(n, label) for label, n in self._labels.most_common() if n and label]
        listed = [f"{n:,} {label}" for n, label in counts[:LISTED]]
        if others := sum(n for n, _ in counts[LISTED:]):
            listed.append(f"{others:,} with {len(counts) - LISTED} other labels")
        if self._labels[""]:
            listed.append(f"{self._labels['']:,} empty")
        if self._failed > self._failed_before:
            listed.append(f"{self._failed - self._failed_before:,} failed")
        written = f" -> {output}" if output else ""
        log.info("%s%s%s", words, f": {', '.join(listed)}" * bool(listed), written)

    def report_failures(self, *, left_out: bool) -> None:
        """Report how many failed, as the function of this name."""
        report_failures(self._failed, left_out=left_out)


def report_failures(failed: int, *, left_out: bool) -> None:
    """Log how many texts failed if they were left out of the output.

    Raises:
        HftoolError: some failed, and the output has their errors.
    """
    texts = f"{failed:,} text" + "s" * (failed != 1)
    if failed and not left_out:
        raise HftoolError(f"{texts} failed", 'see the "error" field in the output')
    if failed:
        log.warning("left out %s that failed", texts)

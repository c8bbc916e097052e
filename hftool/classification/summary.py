"""Summarize many classifications, or check that all have one label."""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hftool.classification.classify import UNCERTAIN, Classification
from hftool.errors import CheckFailed, HftoolError, UsageError

log = logging.getLogger("hftool")

BINS = 10
LISTED = 5  # labels that the last line of a run counts


@dataclass(frozen=True)
class LabelSummary:
    """How many texts got a label, their share of all texts, and the mean of their scores.

    `histogram` counts the scores in each tenth from 0 to 1; scores outside count at its ends.
    """

    label: str
    count: int
    share: float
    mean_score: float | None
    histogram: tuple[int, ...]


def summarize(
    classifications: Iterable[Classification], labels: Sequence[str]
) -> Iterator[LabelSummary]:
    """Yield a summary of each label in order, then of `UNCERTAIN` and of the empty texts' empty
    label if there are any. Texts that failed don't count."""
    bins = {label: [0] * BINS for label in labels}
    counts = dict.fromkeys(labels, 0)
    sums = dict.fromkeys(labels, 0.0)
    for classification in classifications:
        if classification.error is not None:
            continue
        label, score = classification.label, classification.score
        counts[label] = counts.get(label, 0) + 1
        histogram = bins.setdefault(label, [0] * BINS)
        if score is not None:
            sums[label] = sums.get(label, 0.0) + score
            histogram[max(0, min(BINS - 1, int(score * BINS)))] += 1
    total = sum(counts.values())
    for label, count in counts.items():
        mean = sums[label] / count if count and label in sums else None
        yield LabelSummary(label, count, count / total if total else 0.0, mean, tuple(bins[label]))


class Tally:
    """Counts the texts of a run, by label, and those that failed.

    Args:
        done_before, failed_before: the texts of an earlier run that this one resumes.
    """

    def __init__(self, done_before: int = 0, failed_before: int = 0) -> None:
        self._began = time.perf_counter()
        self._done_before = done_before
        self._failed = self._failed_before = failed_before
        self._texts = 0
        self._labels: Counter[str] = Counter()

    def counted(self, classifications: Iterable[Classification]) -> Iterator[Classification]:
        """Yield the same classifications, counting them."""
        for classification in classifications:
            failed = classification.error is not None
            self._failed += failed
            self._texts += 1
            self._labels[classification.label] += not failed
            yield classification

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
        """Log how many failed if they were left out of the output.

        Raises:
            HftoolError: some failed, and the output has their errors.
        """
        texts = f"{self._failed:,} text" + "s" * (self._failed != 1)
        if self._failed and not left_out:
            raise HftoolError(f"{texts} failed", 'see the "error" field in the output')
        if self._failed:
            log.warning("left out %s that failed", texts)


class Check:
    """Counts the texts that get another label than the required one.

    Without a required label (None) every text passes. Empty texts, which get no label, don't count;
    a text that failed counts as one with another label.

    Raises:
        UsageError: the scorer does not have this label.
    """

    def __init__(self, label: str | None, labels: Sequence[str]) -> None:
        if label not in (None, *labels, UNCERTAIN):
            raise UsageError(f"--check: '{label}' is not one of the labels: {', '.join(labels)}")
        self._label = label
        self._texts = 0
        self._others = 0

    def counted(self, classifications: Iterable[Classification]) -> Iterator[Classification]:
        """Yield the same classifications, counting them."""
        for classification in classifications:
            counts = classification.label != "" or classification.error is not None
            self._texts += counts
            self._others += counts and classification.label != self._label
            yield classification

    def require(self) -> None:
        """Require that every text got the label.

        Raises:
            CheckFailed: some got another; the message has their number.
        """
        if self._label is not None and self._others:
            raise CheckFailed(f"{self._others} of {self._texts} texts are not {self._label}")

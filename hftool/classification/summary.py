"""Summarize many classifications, or check that all have one label."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hftool.classification.classify import UNCERTAIN, Classification
from hftool.errors import CheckFailed, UsageError

BINS = 10


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
    label if there are any. Texts that failed don't count; one with several labels counts for each
    of them."""
    bins = {label: [0] * BINS for label in labels}
    counts = dict.fromkeys(labels, 0)
    sums = dict.fromkeys(labels, 0.0)
    total = 0
    for classification in classifications:
        if classification.error is not None:
            continue
        total += 1
        for label in classification.labels or (classification.label,):
            score = classification.scores.get(label, classification.score)
            counts[label] = counts.get(label, 0) + 1
            histogram = bins.setdefault(label, [0] * BINS)
            if score is not None:
                sums[label] = sums.get(label, 0.0) + score
                histogram[max(0, min(BINS - 1, int(score * BINS)))] += 1
    for label, count in counts.items():
        mean = sums[label] / count if count and label in sums else None
        yield LabelSummary(label, count, count / total if total else 0.0, mean, tuple(bins[label]))


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
            labels = classification.labels or (classification.label,)
            self._others += counts and self._label not in labels
            yield classification

    def require(self) -> None:
        """Require that every text got the label.

        Raises:
            CheckFailed: some got another; the message has their number.
        """
        if self._label is not None and self._others:
            raise CheckFailed(f"{self._others} of {self._texts} texts are not {self._label}")

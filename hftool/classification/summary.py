"""What many judgements come to: a summary, or whether all have one label."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hftool.classification.classify import UNCERTAIN, Classification
from hftool.errors import CheckFailed, UsageError

BINS = 10


@dataclass(frozen=True)
class LabelSummary:
    """The texts that got a label: how many, their share of all, the mean of their scores, and how
    many scores lie in each tenth from 0 to 1 (`histogram`; scores outside count at its ends)."""

    label: str
    count: int
    share: float
    mean_score: float | None
    histogram: tuple[int, ...]


def summarize(
    judgements: Iterable[Classification], labels: Sequence[str]
) -> Iterator[LabelSummary]:
    """A summary of each label in order, then of those that texts got besides (UNCERTAIN, and the
    empty one of empty texts)."""
    bins = {label: [0] * BINS for label in labels}
    counts = dict.fromkeys(labels, 0)
    sums = dict.fromkeys(labels, 0.0)
    for judgement in judgements:
        label, score = judgement.label, judgement.score
        counts[label] = counts.get(label, 0) + 1
        histogram = bins.setdefault(label, [0] * BINS)
        if score is not None:
            sums[label] = sums.get(label, 0.0) + score
            histogram[max(0, min(BINS - 1, int(score * BINS)))] += 1
    total = sum(counts.values())
    for label, count in counts.items():
        mean = sums[label] / count if count and label in sums else None
        yield LabelSummary(label, count, count / total if total else 0.0, mean, tuple(bins[label]))


class Check:
    """Whether every text gets one label, where one is named; empty texts, which get none, don't
    count.

    Raises:
        UsageError: there is no such label.
    """

    def __init__(self, label: str | None, labels: Sequence[str]) -> None:
        if label not in (None, *labels, UNCERTAIN):
            raise UsageError(f"--check: no label '{label}': there are {', '.join(labels)}")
        self._label = label
        self._texts = 0
        self._others = 0

    def watch(self, judgements: Iterable[Classification]) -> Iterator[Classification]:
        """The same judgements, counted as they pass."""
        for judgement in judgements:
            self._texts += judgement.label != ""
            self._others += judgement.label not in ("", self._label)
            yield judgement

    def hold(self) -> None:
        """Raise where a text got another label.

        Raises:
            CheckFailed: with their number.
        """
        if self._label is not None and self._others:
            raise CheckFailed(f"{self._others} of {self._texts} texts are not {self._label}")

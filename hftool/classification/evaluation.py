"""Compare classifications with the right labels, which a column of the input has."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import nlargest

from hftool.classification.classify import Classification
from hftool.classification.gold_labels import GoldLabels
from hftool.classification.intervals import Interval, wilson
from hftool.errors import CheckFailed
from hftool.generation.records import OPTIONAL

BINS = 10  # of the scores, for the calibration error


@dataclass(frozen=True)
class LabelEvaluation:
    """How well one label is recognized.

    `support` counts the texts that have it, `predicted` those that were given it. `precision` is
    the share of the latter that have it, `recall` the share of the former that were given it, each
    with its 95 % interval; None where nothing is counted. `f1` is their harmonic mean, 0 if no text
    is right. From `best_threshold` on, this label's score would tell the texts that have it from
    the others with the highest F1, `best_f1`.
    """

    label: str
    support: int
    predicted: int
    precision: float | None
    precision_interval: Interval | None
    recall: float | None
    recall_interval: Interval | None
    f1: float
    best_threshold: float | None
    best_f1: float | None


@dataclass(frozen=True)
class CalibrationBin:
    """The texts whose score is in one tenth: how many, their mean score, and how many of them got
    the right label."""

    low: float
    high: float
    count: int
    mean_score: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Mistake:
    """A text with another label than the right one. `gold_score` is the score of the right one. If
    texts can have several labels, `score` is how far the worst score is from 1 for a right label,
    or from 0 for another one, and there is no `gold_score`."""

    text: str
    gold: str
    label: str
    score: float | None
    gold_score: float | None


@dataclass(frozen=True)
class Evaluation:
    """How well texts are classified, where the right label of each is known.

    `texts` counts the texts with a right label and `correct` those that were given it; a text
    without a label, or with UNCERTAIN, is not correct. Intervals are at 95 %, by Wilson's method.
    `macro_f1` is the mean F1 of the labels that a text has or was given, and `calibration_error`
    the expected calibration error: the mean difference between score and accuracy in ten bins of
    the score, weighted by their texts. `confusion` counts texts by the right label, then by the
    given one. `no_gold` counts the rows without a right label, which are left out.

    If texts can have several labels, those are `correct` that were given exactly the right ones,
    `micro_f1` is the F1 of all decisions, one for each label of each text, and so are the
    calibration bins; `confusion` is empty.
    """

    texts: int
    correct: int
    accuracy: float
    accuracy_interval: Interval
    macro_f1: float
    calibration_error: float | None
    no_gold: int
    labels: tuple[LabelEvaluation, ...]
    confusion: dict[str, dict[str, int]]
    calibration: tuple[CalibrationBin, ...]
    micro_f1: float | None = field(default=None, metadata=OPTIONAL)
    mistakes: tuple[Mistake, ...] | None = field(default=None, metadata=OPTIONAL)


def evaluate(
    classifications: Iterable[Classification],
    labels: Sequence[str],
    gold: str,
    *,
    mistakes: int = 0,
    several: bool = False,
) -> Evaluation:
    """Return how well the labels of texts agree with those in the column `gold`.

    Args:
        labels: the labels in the order of the scores.
        mistakes: how many of the worst mistakes to include: those with the highest scores.
        several: whether a text can have several labels, or none.

    Raises:
        UsageError: the column is missing, has a value that is not one of the labels, or is empty.
    """
    right_labels = GoldLabels(labels, gold, several=several)
    tally = _Tally(labels, mistakes, several)
    for classification in classifications:
        right = right_labels.of(classification)
        if right is None:
            tally.no_gold += 1
        elif classification.error is None:
            tally.add(classification, right)
    if not tally.texts:
        raise right_labels.missing()
    return tally.evaluation()


def require_accuracy(evaluation: Evaluation, least: float | None) -> None:
    """Require an accuracy.

    Raises:
        CheckFailed: it is lower.
    """
    if least is not None and evaluation.accuracy < least:
        low, high = evaluation.accuracy_interval
        raise CheckFailed(
            f"the accuracy is {evaluation.accuracy:.4f}, less than {least:g}"
            f" (95 % interval: {low:.4f} to {high:.4f})"
        )


class _Tally:
    """What is counted of texts with right labels, one text after another.

    Args:
        labels, mistakes, several: as `evaluate` gets them.
    """

    def __init__(self, labels: Sequence[str], mistakes: int, several: bool) -> None:
        self._labels, self._mistakes, self._several = labels, mistakes, several
        self._counts = {label: _Counts() for label in labels}
        self._confusion: Counter[tuple[str, str]] = Counter()
        self._scored: list[tuple[float, bool]] = []  # decisions, for the calibration
        self._wrong: list[Mistake] = []
        self._correct = 0
        self.texts = 0
        self.no_gold = 0

    def add(self, c: Classification, right: set[str]) -> None:
        """Count a text with these right labels."""
        given = {c.label} if c.labels is None else {*c.labels}
        self.texts += 1
        self._correct += given == right
        for label, count in self._counts.items():
            count.add(label in right, label in given, c.scores.get(label))
        if self._several:
            self._scored += ((score, label in right) for label, score in c.scores.items())
        else:
            self._confusion[", ".join(right), c.label] += 1
            if c.score is not None:
                best = max(c.scores, key=c.scores.__getitem__)
                self._scored.append((c.score, best in right))
        if given != right and self._mistakes:
            self._wrong.append(_mistake(c, right, several=self._several))
            if len(self._wrong) > 2 * self._mistakes + 1000:
                self._wrong = self._worst()

    def _worst(self) -> list[Mistake]:
        return nlargest(self._mistakes, self._wrong, key=_badness)

    def evaluation(self) -> Evaluation:
        """Return what the counts mean; there is at least one text."""
        evaluations = tuple(count.evaluation(label) for label, count in self._counts.items())
        used = [e.f1 for e in evaluations if e.support or e.predicted]
        bins = _calibration(self._scored)
        return Evaluation(
            texts=self.texts,
            correct=self._correct,
            accuracy=self._correct / self.texts,
            accuracy_interval=wilson(self._correct, self.texts),
            macro_f1=sum(used) / len(used) if used else 0.0,
            calibration_error=_calibration_error(bins),
            no_gold=self.no_gold,
            labels=evaluations,
            confusion={} if self._several else _by_gold(self._confusion, self._labels),
            calibration=bins,
            micro_f1=_micro_f1(self._counts.values()) if self._several else None,
            mistakes=tuple(self._worst()) if self._mistakes else None,
        )


def _mistake(c: Classification, right: set[str], *, several: bool) -> Mistake:
    if not several:
        [gold] = right
        return Mistake(c.text, gold, c.label, c.score, c.scores.get(gold))
    gold = ", ".join(label for label in c.scores if label in right)
    error = max((abs(score - (x in right)) for x, score in c.scores.items()), default=None)
    return Mistake(c.text, gold, c.label, error, None)


def _badness(mistake: Mistake) -> float:
    """Return how sure the model was of a wrong label; less so of UNCERTAIN."""
    return (mistake.score or 0.0) - (mistake.gold_score or 0.0)


@dataclass
class _Counts:
    """How many texts have a label, were given it, and both; and its score for each text, with
    whether the text has it."""

    support: int = 0
    predicted: int = 0
    hits: int = 0
    scored: list[tuple[float, bool]] = field(default_factory=list)

    def add(self, is_right: bool, is_given: bool, score: float | None) -> None:
        """Count a text."""
        self.support += is_right
        self.predicted += is_given
        self.hits += is_right and is_given
        if score is not None:
            self.scored.append((score, is_right))

    def evaluation(self, label: str) -> LabelEvaluation:
        """Return what the counts mean."""
        best = _best_threshold(self.scored)
        hits, predicted, support = self.hits, self.predicted, self.support
        return LabelEvaluation(
            label=label,
            support=support,
            predicted=predicted,
            precision=hits / predicted if predicted else None,
            precision_interval=wilson(hits, predicted) if predicted else None,
            recall=hits / support if support else None,
            recall_interval=wilson(hits, support) if support else None,
            f1=_f1(self),
            best_threshold=best[0] if best else None,
            best_f1=best[1] if best else None,
        )


def _f1(counts: _Counts) -> float:
    return 2 * counts.hits / (counts.support + counts.predicted) if counts.hits else 0.0


def _micro_f1(counts: Iterable[_Counts]) -> float:
    total = _Counts()
    for each in counts:
        total.support += each.support
        total.predicted += each.predicted
        total.hits += each.hits
    return _f1(total)


def _best_threshold(scored: list[tuple[float, bool]]) -> tuple[float, float] | None:
    """Return the score from which on a label would have the highest F1, and that F1; the highest of
    several such scores. None if no text has the label.

    Args:
        scored: the label's score for each text, and whether the text has the label.
    """
    total = sum(has_label for _, has_label in scored)
    if not total:
        return None
    best = (0.0, -1.0)
    hits = 0
    scored.sort(key=lambda pair: -pair[0])
    for taken, (score, has_label) in enumerate(scored, 1):
        hits += has_label
        if taken < len(scored) and scored[taken][0] == score:
            continue  # texts with equal scores are told apart by no threshold
        f1 = 2 * hits / (total + taken)
        if f1 > best[1]:
            best = score, f1
    return best


def _calibration(tops: Sequence[tuple[float, bool]]) -> tuple[CalibrationBin, ...]:
    """Return the bins of the highest scores; none if a score is not a probability."""
    if not all(0 <= score <= 1 for score, _ in tops):
        return ()
    by_bin: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for score, is_right in tops:
        by_bin[min(BINS - 1, int(score * BINS))].append((score, is_right))
    return tuple(_calibration_bins(by_bin))


def _calibration_bins(by_bin: Sequence[Sequence[tuple[float, bool]]]) -> Iterator[CalibrationBin]:
    for i, scored in enumerate(by_bin):
        count = len(scored)
        mean = sum(score for score, _ in scored) / count if count else None
        accuracy = sum(is_right for _, is_right in scored) / count if count else None
        yield CalibrationBin(i / BINS, (i + 1) / BINS, count, mean, accuracy)


def _calibration_error(bins: Sequence[CalibrationBin]) -> float | None:
    texts = sum(b.count for b in bins)
    if not texts:
        return None
    differences = (
        b.count * abs(b.mean_score - b.accuracy)
        for b in bins
        if b.mean_score is not None and b.accuracy is not None
    )
    return sum(differences) / texts


def _by_gold(
    confusion: Counter[tuple[str, str]], labels: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Return the counts by right label and given label, zeros included; labels in order, then what
    was given instead of a label."""
    given = [*labels, *sorted({label for _, label in confusion} - set(labels))]
    return {right: {label: confusion[right, label] for label in given} for right in labels}

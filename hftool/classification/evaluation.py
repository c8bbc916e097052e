"""Compare classifications with the right labels, which a column of the input has."""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Any

from hftool.classification.classify import Classification
from hftool.classification.intervals import Interval, wilson
from hftool.errors import CheckFailed, HftoolError, UsageError
from hftool.generation.records import OPTIONAL
from hftool.inputs.columns import MISSING, value_in

log = logging.getLogger("hftool")

ROWS_WITHOUT = 100  # rows to read before a column is taken for missing
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
    """A text with another label than the right one. `gold_score` is the score of the right one."""

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
    mistakes: tuple[Mistake, ...] | None = field(default=None, metadata=OPTIONAL)


def evaluate(
    classifications: Iterable[Classification],
    labels: Sequence[str],
    gold: str,
    *,
    mistakes: int = 0,
) -> Evaluation:
    """Return how well the labels of texts agree with those in the column `gold`.

    Args:
        labels: the labels in the order of the scores.
        mistakes: how many of the worst mistakes to include: those with the highest scores.

    Raises:
        UsageError: the column is missing, has a value that is not one of the labels, or is empty.
    """
    right_labels = _GoldLabels(labels, gold)
    confusion: Counter[tuple[str, str]] = Counter()
    golds: list[str] = []
    scores: list[dict[str, float]] = []
    tops: list[tuple[float, bool]] = []
    wrong: list[Mistake] = []
    no_gold = 0
    for c in classifications:
        right = right_labels.of(c)
        if right is None or c.error is not None:
            no_gold += right is None
            continue
        confusion[right, c.label] += 1
        if c.score is not None:
            golds.append(right)
            scores.append(c.scores)
            tops.append((c.score, max(c.scores, key=c.scores.__getitem__) == right))
        if c.label != right and mistakes:
            wrong.append(Mistake(c.text, right, c.label, c.score, c.scores.get(right)))
            if len(wrong) > 2 * mistakes + 1000:
                wrong = nlargest(mistakes, wrong, key=_badness)
    texts = confusion.total()
    if not texts:
        raise right_labels.missing()
    correct = sum(count for (right, label), count in confusion.items() if right == label)
    evaluations = tuple(_label(label, confusion, golds, scores) for label in labels)
    used = [e.f1 for e in evaluations if e.support or e.predicted]
    bins = _calibration(tops)
    return Evaluation(
        texts=texts,
        correct=correct,
        accuracy=correct / texts,
        accuracy_interval=wilson(correct, texts),
        macro_f1=sum(used) / len(used) if used else 0.0,
        calibration_error=_calibration_error(bins),
        no_gold=no_gold,
        labels=evaluations,
        confusion=_by_gold(confusion, labels),
        calibration=bins,
        mistakes=tuple(nlargest(mistakes, wrong, key=_badness)) if mistakes else None,
    )


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


class _GoldLabels:
    """Finds the label that a row's value in a column means."""

    def __init__(self, labels: Sequence[str], column: str) -> None:
        self._column = column
        self._labels = labels
        self._by_name = {label: label for label in labels}
        folded = Counter(label.casefold() for label in labels)
        self._by_folded = {x.casefold(): x for x in labels if folded[x.casefold()] == 1}
        self._by_number = {str(i): label for i, label in enumerate(labels)}
        self._numbered: bool | None = None  # whether the column has the labels' numbers
        self._found = False
        self._without = 0  # rows without a value, before the first one with a value
        self._columns: dict[str, Any] = {}  # those of these rows

    def missing(self) -> HftoolError:
        """Return the error of an input in which no row has a right label."""
        if self._column in self._columns or self._found:
            return HftoolError(f"no row has a label in the column '{self._column}'")
        if not self._columns:
            return UsageError(
                "--gold needs a table with a column of labels", "as in -f reviews.csv"
            )
        names = ", ".join(f"'{name}'" for name in self._columns)
        return UsageError(f"--gold: there is no column '{self._column}'; there are {names}")

    def of(self, classification: Classification) -> str | None:
        """Return the right label of a text, None if the row has none.

        Raises:
            UsageError: there is no such column or no such label.
        """
        value = value_in(classification.columns, self._column)
        value = None if value is MISSING else value
        if value is None and not self._found:
            self._columns.update(classification.columns)
            self._without += 1
            if self._without == ROWS_WITHOUT and self._column not in self._columns:
                raise self.missing()
            return None
        self._found = True
        name = "" if value is None else _name(value)
        if not name:
            return None
        label = self._by_name.get(name) or self._by_folded.get(name.casefold())
        if label is None and self._numbered is not False:
            label = self._by_number.get(name)
            if label is not None and self._numbered is None:
                numbers = ", ".join(f"{i} is {x}" for i, x in enumerate(self._labels))
                log.info("--gold: the column has the numbers of the labels: %s", numbers)
            self._numbered = label is not None
        elif label is not None and self._numbered is None:
            self._numbered = False
        if label is None:
            listed = ", ".join(self._labels)
            raise UsageError(
                f"--gold: '{name}' is not one of the labels: {listed}",
                "rename the values of the column, or leave those rows out",
            )
        return label


def _name(value: Any) -> str:
    """Return a value of a column as the name of a label: 1.0 of pandas is 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, float) and math.isnan(value):
        return ""
    return str(value).strip()


def _badness(mistake: Mistake) -> float:
    """Return how sure the model was of a wrong label; less so of UNCERTAIN."""
    return (mistake.score or 0.0) - (mistake.gold_score or 0.0)


def _label(
    label: str,
    confusion: Counter[tuple[str, str]],
    golds: Sequence[str],
    scores: Sequence[dict[str, float]],
) -> LabelEvaluation:
    support = sum(count for (right, _), count in confusion.items() if right == label)
    predicted = sum(count for (_, given), count in confusion.items() if given == label)
    hits = confusion[label, label]
    best = _best_threshold(
        [(s[label], right == label) for right, s in zip(golds, scores, strict=True)]
    )
    return LabelEvaluation(
        label=label,
        support=support,
        predicted=predicted,
        precision=hits / predicted if predicted else None,
        precision_interval=wilson(hits, predicted) if predicted else None,
        recall=hits / support if support else None,
        recall_interval=wilson(hits, support) if support else None,
        f1=2 * hits / (support + predicted) if hits else 0.0,
        best_threshold=best[0] if best else None,
        best_f1=best[1] if best else None,
    )


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

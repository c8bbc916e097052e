"""Labels for texts, whatever scores them."""

import logging
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from hftool.inputs.readahead import arriving
from hftool.inputs.tables import TextRow

log = logging.getLogger("hftool")

KNOWN = 8192  # texts whose scores are kept, for duplicates
KNOWN_CHARACTERS = 500  # of the longest text that is kept
UNCERTAIN = "UNCERTAIN"

T = TypeVar("T")


@dataclass(frozen=True)
class Classification:
    """A text's label: the one with the highest score. `scores` holds all of them by label.

    The scores are probabilities: of one label among all (softmax), or for a multi-label model of
    each by itself (sigmoid); of a regression model its output. An empty text has an empty label and
    no score. `columns` are those the text came with.
    """

    text: str
    label: str
    score: float | None
    scores: dict[str, float]
    columns: Mapping[str, Any] = field(default_factory=dict)


class Scorer(Protocol):
    """What gives texts a score for each label.

    `encode` and `scores` are called from two threads: a window of texts is encoded while the one
    before is scored. `window` is the most texts of one, which all wait for the last; `cut` counts
    the texts that were too long to be seen whole.
    """

    labels: tuple[str, ...]
    window: int
    cut: int

    def encode(self, texts: Sequence[str]) -> list[Any]:
        """What the model computes on, for each text."""

    def scores(self, encoded: Sequence[Any]) -> list[list[float]]:
        """For each text that was encoded, a score for each label."""


def classify(
    scorer: Scorer, rows: Iterable[TextRow], threshold: float | None = None
) -> Iterator[Classification]:
    """A judgement for each row's text, in order, as soon as it is known.

    Texts that have arrived are scored together; where they arrive one by one each is answered at
    once. A text that was met shortly before is not scored again. What is longer than the model can
    see is cut, and counted in the log. Below the threshold a label is `UNCERTAIN`.
    """
    began, count = time.perf_counter(), 0
    known: dict[str, list[float]] = {}
    windows = arriving(rows, scorer.window, lambda row: len(row.text))
    for window, encoded in _ahead(_encoded(scorer, windows)):
        new = [text for text in encoded if text not in known]
        known.update(zip(new, scorer.scores([encoded[text] for text in new]), strict=True))
        for row in window:
            yield _classification(scorer.labels, row, known.get(row.text), threshold)
        _forget(known, new)
        count += len(window)
    log_truncated(scorer.cut)
    seconds = time.perf_counter() - began
    log.debug("%d texts in %.2f s, %.1f texts/s", count, seconds, count / seconds)


def log_truncated(texts: int) -> None:
    """Log how many texts were too long, where there were any."""
    if texts:
        log.warning("%d texts were too long for the model and were cut", texts)


def _encoded(
    scorer: Scorer, windows: Iterable[list[TextRow]]
) -> Iterator[tuple[list[TextRow], dict[str, Any]]]:
    """Each window with its texts encoded: each once, without those where is nothing to judge."""
    for window in windows:
        texts = list(dict.fromkeys(row.text for row in window if row.text.strip()))
        yield window, dict(zip(texts, scorer.encode(texts), strict=True))


def _forget(known: dict[str, list[float]], new: Iterable[str]) -> None:
    """Keep the scores of the latest texts that are short."""
    for text in new:
        if len(text) > KNOWN_CHARACTERS:
            del known[text]
    while len(known) > KNOWN:
        del known[next(iter(known))]


def _classification(
    labels: Sequence[str], row: TextRow, scores: list[float] | None, threshold: float | None
) -> Classification:
    if scores is None:
        return Classification(row.text, "", None, {}, row.columns)
    by_label = dict(zip(labels, scores, strict=True))
    best = max(by_label, key=by_label.__getitem__)
    score = by_label[best]
    label = UNCERTAIN if threshold is not None and score < threshold else best
    return Classification(row.text, label, score, by_label, row.columns)


def _ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items, the next one made in a thread while this one is worked on."""
    made: queue.Queue[T | _End] = queue.Queue(maxsize=1)

    def make() -> None:
        try:
            for item in items:
                made.put(item)
            made.put(_End(None))
        except BaseException as error:
            made.put(_End(error))

    threading.Thread(target=make, daemon=True).start()
    while not isinstance(item := made.get(), _End):
        yield item
    if item.error is not None:
        raise item.error


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error

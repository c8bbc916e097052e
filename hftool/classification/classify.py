"""Classify texts with any scorer."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hftool.inputs.readahead import read_ahead
from hftool.inputs.tables import TextRow

log = logging.getLogger("hftool")

CACHED_TEXTS = 8192  # texts whose scores are kept for duplicates
CACHED_CHARACTERS = 500  # of the longest text whose scores are kept
UNCERTAIN = "UNCERTAIN"


@dataclass(frozen=True)
class Classification:
    """A text's label, which is the one with the highest score, and the scores of all labels.

    Scores are probabilities: one distribution over all labels (softmax), or for a multi-label
    model one probability per label (sigmoid). A regression model's score is its output. An empty
    text has an empty label and no scores. `columns` are those that the text came with.
    """

    text: str
    label: str
    score: float | None
    scores: dict[str, float]
    columns: Mapping[str, Any] = field(default_factory=dict)


class Scorer(Protocol):
    """Gives texts a score for each label.

    `encode` and `scores` are called from two threads: a window of texts is encoded while the
    previous one is scored.

    Attributes:
        labels: the labels, in the order of the scores.
        window: the most texts to encode and score together.
        truncated_texts: how many texts were longer than the model's limit and were truncated.
    """

    labels: tuple[str, ...]
    window: int
    truncated_texts: int

    def encode(self, texts: Sequence[str]) -> list[Any]:
        """Return the model's input for each text."""

    def scores(self, encoded: Sequence[Any]) -> list[list[float]]:
        """Return a score for each label, for each encoded text."""


def classify(
    scorer: Scorer, rows: Iterable[TextRow], threshold: float | None = None
) -> Iterator[Classification]:
    """Yield the classification of each row's text, in order, as soon as it is known.

    Texts that have arrived are scored together; where they arrive one by one, each is answered
    immediately. The scores of recent texts are reused for duplicates. A text over the model's
    limit is truncated, and the number of those is logged. A label whose score is below the
    threshold becomes `UNCERTAIN`.
    """
    began, count = time.perf_counter(), 0
    cached: dict[str, list[float]] = {}
    for [(window, encoded)] in read_ahead(_encoded_windows(scorer, rows), 1):
        new = [text for text in encoded if text not in cached]
        cached.update(zip(new, scorer.scores([encoded[text] for text in new]), strict=True))
        for row in window:
            yield _classification(scorer.labels, row, cached.get(row.text), threshold)
        _shrink(cached, new)
        count += len(window)
    log_truncated(scorer.truncated_texts)
    seconds = time.perf_counter() - began
    log.debug("%d texts in %.2f s, %.1f texts/s", count, seconds, count / seconds)


def log_truncated(texts: int) -> None:
    """Log how many texts were too long, if any."""
    if texts:
        noun = "text" if texts == 1 else "texts"
        log.warning("truncated %d %s to the model's limit", texts, noun)


def _encoded_windows(
    scorer: Scorer, rows: Iterable[TextRow]
) -> Iterator[tuple[list[TextRow], dict[str, Any]]]:
    """Yield each window with its distinct, non-blank texts encoded."""
    for window in read_ahead(rows, scorer.window, lambda row: len(row.text)):
        texts = list(dict.fromkeys(row.text for row in window if row.text.strip()))
        yield window, dict(zip(texts, scorer.encode(texts), strict=True))


def _shrink(cached: dict[str, list[float]], new: Iterable[str]) -> None:
    """Drop the scores of long texts, then of the oldest, down to `CACHED_TEXTS`."""
    for text in new:
        if len(text) > CACHED_CHARACTERS:
            del cached[text]
    while len(cached) > CACHED_TEXTS:
        del cached[next(iter(cached))]


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

"""Classify texts with any scorer."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hftool.errors import HftoolError, UsageError
from hftool.generation.records import OPTIONAL
from hftool.inputs.readahead import read_ahead
from hftool.inputs.row_errors import each_or_error, stopping_error
from hftool.inputs.tables import TextRow
from hftool.options.output import OnError

log = logging.getLogger("hftool")

CACHED_TEXTS = 8192  # texts whose scores are kept for duplicates
CACHED_CHARACTERS = 500  # of the longest text whose scores are kept
UNCERTAIN = "UNCERTAIN"


@dataclass(frozen=True)
class Classification:
    """A text's label, which is the one with the highest score, and the scores of all labels.

    Scores are probabilities: one distribution over all labels (softmax), or for a multi-label
    model one probability per label (sigmoid). A regression model's score is its output. An empty
    text has an empty label and no scores, and so has one that failed, for the cause in `error`.
    `columns` are those that the text came with.
    """

    text: str
    label: str
    score: float | None
    scores: dict[str, float] = field(metadata=OPTIONAL)
    columns: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class EncodedText:
    """What a scorer gives to the model for one text; empty if the text has no tokens. `is_unknown`
    is whether the model does not know most of them."""

    sequences: Sequence[Any]
    is_unknown: bool = False


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

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Return the model's input for each text.

        Raises:
            HftoolError: it fails for one of the texts.
        """

    def scores(self, encoded: Sequence[EncodedText]) -> list[list[float]]:
        """Return a score for each label, for each encoded text; none for one without tokens.

        Raises:
            HftoolError: the model fails for one of the texts.
        """


def classify(
    scorer: Scorer,
    rows: Iterable[TextRow],
    threshold: float | None = None,
    on_error: OnError = "stop",
) -> Iterator[Classification]:
    """Yield the classification of each row's text, in order, as soon as it is known.

    Texts that have arrived are scored together; where they arrive one by one, each is answered
    immediately. The scores of recent texts are reused for duplicates. A text over the model's
    limit is truncated, and the number of those is logged. A label whose score is below the
    threshold becomes `UNCERTAIN`.

    A text for which the model fails, or a row that can't be read, gets a classification with an
    `error`, unless `on_error` is "stop".

    Raises:
        HftoolError: a text fails, and `on_error` is "stop". What precedes it was yielded.
    """
    if threshold is not None and UNCERTAIN in scorer.labels:
        raise UsageError(
            f"one of the labels is {UNCERTAIN}, as --threshold calls a text without a sure label"
        )
    began, count, unknown, tokenless = time.perf_counter(), 0, 0, 0
    cached: dict[str, list[float] | HftoolError] = {}
    for [(window, encoded)] in read_ahead(_encoded_windows(scorer, rows), 1):
        cached.update((t, error) for t, error in encoded.items() if isinstance(error, HftoolError))
        new = [text for text in encoded if text not in cached]
        scores = each_or_error(_finite(scorer.scores), [encoded[text] for text in new])
        for row in window:
            if row.text in encoded and row.text not in cached:
                cached[row.text] = next(scores)  # `new` is in the order of the rows
            result = row.error or cached.get(row.text)
            if isinstance(result, HftoolError):
                if on_error == "stop":
                    raise stopping_error(row, result, first=count == 0)
                error = row.located(result).message
                yield Classification(row.text, "", None, {}, row.columns, error)
            else:
                known = encoded.get(row.text)
                unknown += isinstance(known, EncodedText) and known.is_unknown
                tokenless += result == []
                yield _classification(scorer.labels, row, result, threshold)
            count += 1
        _shrink(cached, encoded)
    log_truncated(scorer.truncated_texts)
    log_unknown(unknown, count)
    if tokenless:
        noun = "text has" if tokenless == 1 else "texts have"
        log.warning("%s %s no tokens for this model, and no label", f"{tokenless:,}", noun)
    seconds = time.perf_counter() - began
    log.debug("%d texts in %.2f s, %.1f texts/s", count, seconds, count / seconds)


def _finite(
    scores_of: Callable[[Sequence[Any]], list[list[float]]],
) -> Callable[[Sequence[Any]], list[list[float]]]:
    """Return the same function, which raises where a score is not a number."""

    def scores(encoded: Sequence[Any]) -> list[list[float]]:
        found = scores_of(encoded)
        if not all(math.isfinite(score) for of_text in found for score in of_text):
            raise HftoolError("the model's scores are not numbers", "try --dtype float32")
        return found

    return scores


def log_truncated(texts: int) -> None:
    """Log how many texts were too long, if any."""
    if texts:
        noun = "text" if texts == 1 else "texts"
        log.warning("truncated %d %s to the model's limit", texts, noun)


def log_unknown(texts: int, total: int) -> None:
    """Log how many texts the model can't read, if any."""
    if texts:
        which = f"{texts:,} of {total:,} " + ("text is" if total == 1 else "texts are")
        log.warning(
            "%s mostly words this model does not know: its labels for such texts mean little;"
            " a multilingual model (-m) knows more languages",
            which,
        )


def _encoded_windows(
    scorer: Scorer, rows: Iterable[TextRow]
) -> Iterator[tuple[list[TextRow], dict[str, Any]]]:
    """Yield each window with its distinct, non-blank texts encoded, or the error of encoding it."""
    for window in read_ahead(rows, scorer.window, lambda row: len(row.text)):
        usable = (row.text for row in window if row.text.strip() and row.error is None)
        texts = list(dict.fromkeys(usable))
        yield window, dict(zip(texts, each_or_error(scorer.encode, texts), strict=True))


def _shrink(cached: dict[str, Any], new: Iterable[str]) -> None:
    """Drop the scores of long texts, then of the oldest, down to `CACHED_TEXTS`."""
    for text in new:
        if len(text) > CACHED_CHARACTERS:
            cached.pop(text, None)
    while len(cached) > CACHED_TEXTS:
        del cached[next(iter(cached))]


def _classification(
    labels: Sequence[str], row: TextRow, scores: list[float] | None, threshold: float | None
) -> Classification:
    if not scores:
        return Classification(row.text, "", None, {}, row.columns)
    by_label = dict(zip(labels, scores, strict=True))
    best = max(by_label, key=by_label.__getitem__)
    score = by_label[best]
    label = UNCERTAIN if threshold is not None and score < threshold else best
    return Classification(row.text, label, score, by_label, row.columns)

"""Classify texts with any scorer."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hftool.classification.intervals import wilson
from hftool.errors import HftoolError, UsageError
from hftool.generation.records import OPTIONAL
from hftool.inputs.columns import MISSING, value_in
from hftool.inputs.json_records import kind
from hftool.inputs.readahead import read_ahead
from hftool.inputs.row_errors import each_or_error, stopping_error
from hftool.inputs.tables import TextRow
from hftool.options.output import OnError

log = logging.getLogger("hftool")

CACHED_TEXTS = 8192  # texts whose scores are kept for duplicates
CACHED_CHARACTERS = 500  # of the longest text whose scores are kept
UNCERTAIN = "UNCERTAIN"
MULTI_LABEL_THRESHOLD = 0.5  # from which a label of a multi-label model applies to a text

# Of 1,796 groups of 20 English words in descriptions of packages 0.2 % have a lower share, of 511
# in SST-2 none; of texts in other languages, as `docs/design.md` tells, nearly all.
LEAST_KNOWN = 0.7
LEAST_WORDS = 20

Input = str | tuple[str, str]
"""A text, or a pair of texts."""


@dataclass(frozen=True)
class Classification:
    """A text's label, which is the one with the highest score, and the scores of all labels.

    Scores are probabilities: one distribution over all labels (softmax), or for a multi-label
    model one probability per label (sigmoid). Such a model gives a text all `labels` whose score is
    0.5, or the threshold, and more, the most probable first; `label` names them all, and `score` is
    the highest one. A regression model's score is its output. An empty text has an empty label and
    no scores, and so has one that failed, for the cause in `error`. `columns` are those that the
    text came with.
    """

    text: str
    label: str
    score: float | None
    scores: dict[str, float] = field(metadata=OPTIONAL)
    columns: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)
    error: str | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class EncodedText:
    """What a scorer gives to the model for one text; empty if the text has no tokens. `is_unknown`
    is whether the model does not know most of them; `words` are how many words the model's
    vocabulary has, and of how many, (0, 0) if that tells nothing."""

    sequences: Sequence[Any]
    is_unknown: bool = False
    words: tuple[int, int] = (0, 0)


@dataclass
class TextCounts:
    """How many texts were classified, and how many of them mean little to the model; `words` and
    `known_words` are those of texts that are too short to tell."""

    total: int = 0
    unknown: int = 0
    tokenless: int = 0
    words: int = 0
    known_words: int = 0

    def add(self, text: EncodedText) -> None:
        """Count a text that has a label."""
        known, words = text.words
        if text.is_unknown or is_foreign(known, words):
            self.unknown += 1
        elif words < LEAST_WORDS:
            self.words += words
            self.known_words += known

    def log(self) -> None:
        """Log how many texts the model can't read, and how many have no label, if any."""
        log_unknown(self.unknown, self.total)
        if is_foreign(self.known_words, self.words):
            log.warning(
                "only %d %% of the words of %s are in this model's vocabulary, which may be that of"
                " another language: its labels may mean little; a multilingual model (-m) knows"
                " more languages",
                *(
                    100 * self.known_words // self.words,
                    "short texts" if self.unknown else "these texts",
                ),
            )
        if self.tokenless:
            noun = "text has" if self.tokenless == 1 else "texts have"
            log.warning("%s %s no tokens for this model, and no label", f"{self.tokenless:,}", noun)


class Scorer(Protocol):
    """Gives texts a score for each label.

    `encode` and `scores` are called from two threads: a window of texts is encoded while the
    previous one is scored.

    Attributes:
        labels: the labels, in the order of the scores.
        window: the most texts to encode and score together.
        truncated_texts: how many texts were longer than the model's limit and were truncated.
        is_multi_label: whether a text can have several labels, or none.
        pair_column: the column with the text that each text makes a pair with, if any.
    """

    labels: tuple[str, ...]
    is_multi_label: bool
    pair_column: str | None
    window: int
    truncated_texts: int

    def encode(self, texts: Sequence[Any]) -> list[EncodedText]:
        """Return the model's input for each text; with a `pair_column` for each pair.

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
    counts: TextCounts | None = None,
) -> Iterator[Classification]:
    """Yield the classification of each row's text, in order, as soon as it is known.

    Texts that have arrived are scored together; where they arrive one by one, each is answered
    immediately. The scores of recent texts are reused for duplicates. A text over the model's
    limit is truncated, and the number of those is logged. A label whose score is below the
    threshold becomes `UNCERTAIN`; of a multi-label model each label from the threshold on counts.

    A text for which the model fails, or a row that can't be read, gets a classification with an
    `error`, unless `on_error` is "stop".

    Args:
        counts: counts the texts; without it they are counted here, and logged at the end.

    Raises:
        HftoolError: a text fails, and `on_error` is "stop". What precedes it was yielded.
    """
    if threshold is not None and UNCERTAIN in scorer.labels:
        raise UsageError(
            f"one of the labels is {UNCERTAIN}, as --threshold calls a text without a sure label"
        )
    began, found = time.perf_counter(), counts or TextCounts()
    if scorer.is_multi_label and threshold is None:
        threshold = MULTI_LABEL_THRESHOLD
    for row, encoded, result in _results(scorer, rows):
        if isinstance(result, HftoolError):
            if on_error == "stop":
                raise stopping_error(row, result, first=found.total == 0)
            error = row.located(result).message
            yield Classification(row.text, "", None, {}, row.columns, error=error)
        else:
            if encoded is not None:
                found.add(encoded)
            found.tokenless += result == []
            yield _classification(scorer, row, result, threshold)
        found.total += 1
    if counts is None:
        log_truncated(scorer.truncated_texts)
        found.log()
    seconds = time.perf_counter() - began
    log.debug("%d texts in %.2f s, %.1f texts/s", found.total, seconds, found.total / seconds)


def _results(
    scorer: Scorer, rows: Iterable[TextRow]
) -> Iterator[tuple[TextRow, EncodedText | None, list[float] | HftoolError | None]]:
    """Yield each row, its encoded text, and the scores of its labels or why there are none; both
    are None for a blank text."""
    cached: dict[Input, list[float] | HftoolError] = {}
    for [(window, encoded)] in read_ahead(_encoded_windows(scorer, rows), 1):
        cached.update((t, error) for t, error in encoded.items() if isinstance(error, HftoolError))
        new = [text for text in encoded if text not in cached]
        scores = each_or_error(_finite(scorer.scores), [encoded[text] for text in new])
        for row, text in window:
            if isinstance(text, HftoolError):
                yield row, None, text
                continue
            if text in encoded and text not in cached:
                cached[text] = next(scores)  # `new` is in the order of the rows
            yield row, encoded.get(text), cached.get(text)
        _shrink(cached, encoded)


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


def is_foreign(known: int, words: int) -> bool:
    """Return whether so few of a text's words are in the vocabulary that its language can't be the
    model's: the upper end of the share's 95 % interval is below `LEAST_KNOWN`."""
    return words >= LEAST_WORDS and wilson(known, words)[1] < LEAST_KNOWN


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
) -> Iterator[tuple[list[tuple[TextRow, Input | HftoolError]], dict[Input, Any]]]:
    """Yield each window of rows with the text of each, or why there is none; and its distinct,
    non-blank texts encoded, or the error of encoding them."""
    for window in read_ahead(rows, scorer.window, lambda row: len(row.text)):
        inputs = [(row, _input(row, scorer.pair_column)) for row in window]
        usable = (
            text for row, text in inputs if row.text.strip() and not isinstance(text, HftoolError)
        )
        texts = list(dict.fromkeys(usable))
        yield inputs, dict(zip(texts, each_or_error(scorer.encode, texts), strict=True))


def _input(row: TextRow, pair_column: str | None) -> Input | HftoolError:
    """Return what a row gives to the scorer."""
    if row.error is not None or pair_column is None:
        return row.error or row.text
    second = value_in(row.columns, pair_column)
    if not isinstance(second, str):
        absent = second in (None, MISSING)
        cause = "is missing" if absent else f"is {kind(second)}, not text"
        return HftoolError(f"'{pair_column}' {cause}")
    return row.text, second


def _shrink(cached: dict[Input, Any], new: Iterable[Input]) -> None:
    """Drop the scores of long texts, then of the oldest, down to `CACHED_TEXTS`."""
    for text in new:
        length = len(text) if isinstance(text, str) else sum(map(len, text))
        if length > CACHED_CHARACTERS:
            cached.pop(text, None)
    while len(cached) > CACHED_TEXTS:
        del cached[next(iter(cached))]


def _classification(
    scorer: Scorer, row: TextRow, scores: list[float] | None, threshold: float | None
) -> Classification:
    if not scores:
        none = () if scorer.is_multi_label else None
        return Classification(row.text, "", None, {}, row.columns, none)
    by_label = dict(zip(scorer.labels, scores, strict=True))
    best_first = sorted(by_label, key=by_label.__getitem__, reverse=True)
    score = by_label[best_first[0]]
    sure = [label for label in best_first if threshold is None or by_label[label] >= threshold]
    if scorer.is_multi_label:
        label = ", ".join(sure) or UNCERTAIN
        return Classification(row.text, label, score, by_label, row.columns, tuple(sure))
    return Classification(row.text, sure[0] if sure else UNCERTAIN, score, by_label, row.columns)

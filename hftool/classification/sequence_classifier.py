"""Scores by a sequence-classification model."""

from collections.abc import Sequence
from itertools import islice

import torch

from hftool.classification.batched_logits import WINDOW, Tokens, batched_logits
from hftool.classification.text_pieces import groups_by_size, piece_length, pieces_of
from hftool.models.load import (
    Classifier,
)
from hftool.options.labels import LongTexts

OVERLAP = 0.25  # of a window's tokens are in the one before as well


class ClassifierScorer:
    """A classifier's own labels.

    A text that is too long is cut, or with `chunk` seen in windows that overlap: its scores are
    then their mean, weighted by their numbers of tokens.
    """

    def __init__(
        self, classifier: Classifier, *, batch_size: int | None = None, long: LongTexts = "truncate"
    ) -> None:
        self.labels = classifier.labels
        self.window = WINDOW
        self.cut = 0
        self._classifier = classifier
        self._batch_size = batch_size
        self._long = long

    def encode(self, texts: Sequence[str]) -> list[list[list[int]]]:
        """The ids of each text's windows, special tokens included."""
        classifier = self._classifier
        limit = classifier.max_length
        most = 1 if self._long == "truncate" and limit is not None else None
        pieces = [list(islice(pieces_of(text, piece_length(limit)), most)) for text in texts]
        every = [piece for some in pieces for piece in some]
        windows = (
            ids
            for some in groups_by_size(every)
            for ids in classifier.tokenizer.encode_windows(some, limit, OVERLAP)
        )
        found = [[ids for _ in some for ids in next(windows)] for some in pieces]
        if most is not None:
            self.cut += sum(
                len(ids) > 1 or len(some[0]) < len(text)
                for text, some, ids in zip(texts, pieces, found, strict=True)
            )
        return [ids[:most] for ids in found]

    def scores(self, encoded: Sequence[list[list[int]]]) -> list[list[float]]:
        """The scores of each text by label."""
        every: list[Tokens] = [(ids, []) for windows in encoded for ids in windows]
        rows = iter(self._activated(batched_logits(self._classifier, every, self._batch_size)))
        return [_mean([(len(ids), next(rows)) for ids in windows]) for windows in encoded]

    def _activated(self, logits: torch.Tensor) -> list[list[float]]:
        """The function transformers' pipeline applies to such a model's logits."""
        function = self._classifier.activation
        if function == "softmax":
            logits = torch.softmax(logits, dim=-1)
        elif function == "sigmoid":
            logits = torch.sigmoid(logits)
        found: list[list[float]] = logits.tolist()
        return found


def _mean(windows: Sequence[tuple[int, list[float]]]) -> list[float]:
    """The mean of several windows' scores by label, weighted by their tokens."""
    if len(windows) == 1:
        return windows[0][1]
    total = sum(tokens for tokens, _ in windows)
    columns = zip(*(scores for _, scores in windows), strict=True)
    weights = [tokens / total for tokens, _ in windows]
    return [sum(w * p for w, p in zip(weights, column, strict=True)) for column in columns]

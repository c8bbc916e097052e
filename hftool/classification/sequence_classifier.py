"""Score a sequence-classification model's own labels."""

from collections.abc import Sequence
from itertools import islice

import torch

from hftool.classification.batched_logits import WINDOW, Tokens, batched_logits
from hftool.classification.text_pieces import groups_by_size, piece_length, pieces_of
from hftool.models.load import Classifier
from hftool.options.labels import LongTexts

OVERLAP = 0.25  # the share of a window's tokens that the previous window has as well


class ClassifierScorer:
    """Scores the labels that a classifier was trained on.

    A text over the model's limit is truncated. With `long="chunk"` it is scored in overlapping
    windows instead; its scores are their mean, weighted by the windows' numbers of tokens.
    """

    def __init__(
        self, classifier: Classifier, *, batch_size: int | None = None, long: LongTexts = "truncate"
    ) -> None:
        self.labels = classifier.labels
        self.window = WINDOW
        self.truncated_texts = 0
        self._classifier = classifier
        self._batch_size = batch_size
        self._long = long

    def encode(self, texts: Sequence[str]) -> list[list[list[int]]]:
        """Return the ids of each text's windows, special tokens included."""
        classifier = self._classifier
        limit = classifier.max_length
        truncates = self._long == "truncate" and limit is not None
        most = 1 if truncates else None  # pieces and windows per text
        pieces = [list(islice(pieces_of(text, piece_length(limit)), most)) for text in texts]
        windows_of_pieces = (
            windows
            for group in groups_by_size(piece for of_text in pieces for piece in of_text)
            for windows in classifier.tokenizer.encode_windows(group, limit, OVERLAP)
        )
        encoded = [[ids for _ in of_text for ids in next(windows_of_pieces)] for of_text in pieces]
        if truncates:
            self.truncated_texts += sum(
                len(windows) > 1 or len(of_text[0]) < len(text)
                for text, of_text, windows in zip(texts, pieces, encoded, strict=True)
            )
        return [windows[:most] for windows in encoded]

    def scores(self, encoded: Sequence[list[list[int]]]) -> list[list[float]]:
        """Return a score for each label, for each text's windows."""
        sequences: list[Tokens] = [(ids, []) for windows in encoded for ids in windows]
        logits = batched_logits(self._classifier, sequences, self._batch_size)
        scores = iter(self._activated(logits))
        return [_mean([(len(ids), next(scores)) for ids in windows]) for windows in encoded]

    def _activated(self, logits: torch.Tensor) -> list[list[float]]:
        """Apply the function that transformers' pipeline applies to this model's logits."""
        function = self._classifier.activation
        if function == "softmax":
            logits = torch.softmax(logits, dim=-1)
        elif function == "sigmoid":
            logits = torch.sigmoid(logits)
        scores: list[list[float]] = logits.tolist()
        return scores


def _mean(windows: Sequence[tuple[int, list[float]]]) -> list[float]:
    """Return the mean of windows' scores by label, weighted by their numbers of tokens."""
    if len(windows) == 1:
        return windows[0][1]
    total = sum(tokens for tokens, _ in windows)
    columns = zip(*(scores for _, scores in windows), strict=True)
    weights = [tokens / total for tokens, _ in windows]
    return [sum(w * p for w, p in zip(weights, column, strict=True)) for column in columns]

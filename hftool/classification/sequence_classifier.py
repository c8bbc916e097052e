"""Score a sequence-classification model's own labels."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch

from hftool.classification.batched_logits import WINDOW, Tokens, batched_logits
from hftool.classification.classify import EncodedText
from hftool.classification.text_pieces import groups_by_size, piece_length, pieces_of
from hftool.models.classifier import Classifier
from hftool.options.labels import LongTexts

OVERLAP = 0.25  # the share of a window's tokens that the previous window has as well


class ClassifierScorer:
    """Scores the labels that a classifier was trained on.

    A text over the model's limit is truncated. With `long="chunk"` it is scored in overlapping
    windows instead; its scores are their mean, weighted by the windows' numbers of tokens.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        batch_size: int | None = None,
        long: LongTexts = "truncate",
        pair_column: str | None = None,
    ) -> None:
        self.labels = classifier.labels
        self.window = WINDOW
        self.truncated_texts = 0
        self.is_multi_label = classifier.activation == "sigmoid" and len(classifier.labels) > 1
        self.pair_column = pair_column
        self._classifier = classifier
        self._batch_size = batch_size
        self._long = long

    def encode(self, texts: Sequence[Any]) -> list[EncodedText]:
        """Return each text's windows, or each pair as one, special tokens included."""
        if self.pair_column is not None:
            return self._encoded_pairs(texts)
        tokenizer, limit = self._classifier.tokenizer, self._classifier.max_length
        truncates = self._long == "truncate" and limit is not None
        pieces = [self._pieces(text, truncates=truncates) for text in texts]
        windows_of_pieces = (
            windows
            for group in groups_by_size(piece for of_text in pieces for piece in of_text)
            for windows in tokenizer.encode_windows(group, limit, OVERLAP)
        )
        encoded = [[w for _ in of_text for w in next(windows_of_pieces)] for of_text in pieces]
        if truncates:
            self.truncated_texts += sum(
                len(windows) > 1 or len(of_text[0]) < len(text)
                for text, of_text, windows in zip(texts, pieces, encoded, strict=True)
            )
        return [self._encoded(windows[: 1 if truncates else None]) for windows in encoded]

    def _encoded_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[EncodedText]:
        tokenizer, limit = self._classifier.tokenizer, self._classifier.max_length
        starts = [self._pieces(text, truncates=True)[0] for text, _ in pairs]
        shortened = [(start, second) for start, (_, second) in zip(starts, pairs, strict=True)]
        encoded = tokenizer.encode_pairs(shortened, limit)
        self.truncated_texts += sum(
            bool(encoding.overflowing) or len(start) < len(text)
            for encoding, start, (text, _) in zip(encoded, starts, pairs, strict=True)
        )
        return [self._encoded([encoding]) for encoding in encoded]

    def _pieces(self, text: str, *, truncates: bool) -> list[str]:
        """Return the pieces of a text to tokenize; where it is truncated, the one that is kept."""
        length = piece_length(self._classifier.max_length)
        if truncates and self._classifier.tokenizer.truncation_side == "left":
            return [text[-length:]]
        return list(islice(pieces_of(text, length), 1 if truncates else None))

    def _encoded(self, windows: Sequence[Any]) -> EncodedText:
        if not any(0 in window.sequence_ids for window in windows):
            return EncodedText([])
        tokenizer, first = self._classifier.tokenizer, windows[0]
        return EncodedText(
            [(window.ids, window.type_ids) for window in windows],
            tokenizer.is_mostly_unknown(first),
            tokenizer.known_words(first),
        )

    def scores(self, encoded: Sequence[EncodedText]) -> list[list[float]]:
        """Return a score for each label, for each text; none for a text without tokens."""
        sequences: list[Tokens] = [tokens for text in encoded for tokens in text.sequences]
        logits = batched_logits(self._classifier, sequences, self._batch_size)
        scores = iter(self._activated(logits))
        return [_mean([(len(ids), next(scores)) for ids, _ in text.sequences]) for text in encoded]

    def _activated(self, logits: torch.Tensor) -> list[list[float]]:
        """Apply the function that transformers' pipeline applies to this model's logits
        [sequences, labels]."""
        function = self._classifier.activation
        if function == "softmax":
            logits = torch.softmax(logits, dim=-1)
        elif function == "sigmoid":
            logits = torch.sigmoid(logits)
        scores: list[list[float]] = logits.tolist()
        return scores


def _mean(windows: Sequence[tuple[int, list[float]]]) -> list[float]:
    """Return the mean of windows' scores by label, weighted by their numbers of tokens."""
    if len(windows) <= 1:
        return windows[0][1] if windows else []
    total = sum(tokens for tokens, _ in windows)
    columns = zip(*(scores for _, scores in windows), strict=True)
    weights = [tokens / total for tokens, _ in windows]
    return [sum(w * p for w, p in zip(weights, column, strict=True)) for column in columns]

"""Scores for candidate labels by a natural-language-inference model."""

from collections.abc import Sequence

import torch

from hftool.classification.batched_logits import WINDOW, Tokens, batched_logits
from hftool.classification.text_pieces import piece_length, pieces_of
from hftool.errors import HftoolError, UsageError
from hftool.models.load import (
    Classifier,
)

HYPOTHESIS = "This text is {label}."


class EntailmentScorer:
    """Labels of one's own by a natural-language-inference model: how far a text entails the
    hypothesis that a label makes of the template, as a share among the labels (Yin et al. 2019;
    transformers' zero-shot pipeline).

    Raises:
        UsageError: the template has no {label}.
        HftoolError: the classifier has no label `entailment`.
    """

    def __init__(
        self,
        classifier: Classifier,
        labels: Sequence[str],
        template: str,
        *,
        batch_size: int | None = None,
    ) -> None:
        if "{label}" not in template:
            raise UsageError("--hypothesis-template: there is no {label} in it")
        self.labels = tuple(labels)
        self.window = max(1, WINDOW // len(labels))
        self.cut = 0
        self._classifier = classifier
        self._batch_size = batch_size
        self._hypotheses = [template.replace("{label}", label) for label in labels]
        names = [label.lower() for label in classifier.labels]
        found = [i for i, name in enumerate(names) if name.startswith("entail")]
        if not found:
            raise HftoolError(
                f"{classifier.name} has labels of its own: {', '.join(classifier.labels)}",
                "--labels takes a language model, or a classifier with the label entailment",
            )
        self._entailment = found[0]

    def encode(self, texts: Sequence[str]) -> list[list[Tokens]]:
        """Each text with each hypothesis; the text is cut where both are too long."""
        tokenizer, limit = self._classifier.tokenizer, self._classifier.max_length
        starts = [next(pieces_of(text, piece_length(limit))) for text in texts]
        pairs = [(start, hypothesis) for start in starts for hypothesis in self._hypotheses]
        every = iter(tokenizer.encode_pairs(pairs, limit))
        found = [[next(every) for _ in self._hypotheses] for _ in texts]
        self.cut += sum(
            any(pair.overflowing for pair in pairs) or len(start) < len(text)
            for text, start, pairs in zip(texts, starts, found, strict=True)
        )
        return [[(pair.ids, pair.type_ids) for pair in pairs] for pairs in found]

    def scores(self, encoded: Sequence[list[Tokens]]) -> list[list[float]]:
        """The share of each label by text."""
        every = [tokens for pairs in encoded for tokens in pairs]
        logits = batched_logits(self._classifier, every, self._batch_size)[:, self._entailment]
        shares = torch.softmax(logits.view(len(encoded), len(self.labels)), dim=-1)
        found: list[list[float]] = shares.tolist()
        return found

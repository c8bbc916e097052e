"""Score candidate labels with a model for natural-language inference (NLI)."""

from collections.abc import Sequence

import torch

from hftool.classification.batched_logits import WINDOW, Tokens, batched_logits
from hftool.classification.classify import EncodedText
from hftool.classification.text_pieces import piece_length, pieces_of
from hftool.errors import HftoolError, UsageError
from hftool.models.classifier import Classifier

HYPOTHESIS = "This text is {label}."


class EntailmentScorer:
    """Scores each label by how far a text entails the label's hypothesis.

    The hypothesis is the template with the label filled in; the scores are a softmax over the
    labels' logits for entailment (Yin et al. 2019; transformers' zero-shot pipeline).

    Raises:
        UsageError: the template lacks {label}.
        HftoolError: the classifier lacks a label `entailment`.
    """

    is_multi_label = False
    pair_column: str | None = None

    def __init__(
        self,
        classifier: Classifier,
        labels: Sequence[str],
        template: str,
        *,
        batch_size: int | None = None,
    ) -> None:
        if "{label}" not in template:
            raise UsageError(
                "--hypothesis-template lacks {label}", f"as in --hypothesis-template '{HYPOTHESIS}'"
            )
        entailment = [
            i for i, name in enumerate(classifier.labels) if name.lower().startswith("entail")
        ]
        if not entailment:
            raise HftoolError(
                f"{classifier.name} has fixed labels: {', '.join(classifier.labels)}",
                "--labels needs a language model, or a classifier with the label entailment",
            )
        self.labels = tuple(labels)
        self.window = max(1, WINDOW // len(labels))
        self.truncated_texts = 0
        self._classifier = classifier
        self._batch_size = batch_size
        self._hypotheses = [template.replace("{label}", label) for label in labels]
        self._entailment = entailment[0]

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Return each text paired with each hypothesis; where a pair is over the model's limit,
        the text is truncated."""
        tokenizer, limit = self._classifier.tokenizer, self._classifier.max_length
        starts = [self._piece(text) for text in texts]
        pairs = [(start, hypothesis) for start in starts for hypothesis in self._hypotheses]
        encoded = iter(tokenizer.encode_pairs(pairs, limit))
        by_text = [[next(encoded) for _ in self._hypotheses] for _ in texts]
        self.truncated_texts += sum(
            any(pair.overflowing for pair in of_text) or len(start) < len(text)
            for text, start, of_text in zip(texts, starts, by_text, strict=True)
        )
        return [
            EncodedText(
                [(pair.ids, pair.type_ids) for pair in of_text],
                tokenizer.is_mostly_unknown(of_text[0]),
                tokenizer.known_words(of_text[0]),
            )
            for of_text in by_text
        ]

    def _piece(self, text: str) -> str:
        """Return the part of a text to tokenize."""
        length = piece_length(self._classifier.max_length)
        from_left = self._classifier.tokenizer.truncation_side == "left"
        return text[-length:] if from_left else next(pieces_of(text, length))

    def scores(self, encoded: Sequence[EncodedText]) -> list[list[float]]:
        """Return a score for each label, for each text; they sum to 1."""
        pairs: list[Tokens] = [pair for text in encoded for pair in text.sequences]
        logits = batched_logits(self._classifier, pairs, self._batch_size)[:, self._entailment]
        shares = torch.softmax(logits.view(len(encoded), len(self.labels)), dim=-1)
        scores: list[list[float]] = shares.tolist()
        return scores

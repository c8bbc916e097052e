"""Labels for texts, by a sequence-classification model."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from hftool.inputs import arriving
from hftool.models.load import Classifier

log = logging.getLogger("hftool")

WINDOW = 1024  # texts sorted by length together
BATCH_TOKENS = 4096  # padded tokens of a batch, whose length then follows from its longest text


@dataclass(frozen=True)
class Judgement:
    """A text's label: the one with the highest score. `scores` holds all of them by label.

    The scores are probabilities: of one label among all (softmax), or for a multi-label model of
    each by itself (sigmoid). An empty text has an empty label and no score.
    """

    text: str
    label: str
    score: float | None
    scores: dict[str, float]


def judge(
    classifier: Classifier, texts: Iterable[str], *, batch_size: int | None = None
) -> Iterator[Judgement]:
    """A judgement for each text, in order, as soon as it is known.

    Texts that have arrived are batched by length; where they arrive one by one each is answered
    at once. What is longer than the model can see is cut, and counted in the log.
    """
    if classifier.model.config.pad_token_id is None:
        batch_size = 1  # what pools the last token finds it by the padding
    cut = 0
    for window in arriving(texts, WINDOW):
        encoded = [_ids(classifier, text) for text in window]
        cut += sum(len(ids) > (classifier.max_length or len(ids)) for ids in encoded)
        encoded = [_cut(classifier, ids) for ids in encoded]
        filled = [i for i, ids in enumerate(encoded) if ids]
        scores: dict[int, list[float]] = {}
        for batch in _batches(filled, encoded, batch_size):
            rows = _scores(classifier, [encoded[i] for i in batch])
            scores.update(zip(batch, rows, strict=True))
        for i, text in enumerate(window):
            yield _judgement(classifier, text, scores.get(i))
    if cut:
        log.warning("%d texts were longer than %s tokens and were cut", cut, classifier.max_length)


def _judgement(classifier: Classifier, text: str, row: list[float] | None) -> Judgement:
    if row is None:
        return Judgement(text, "", None, {})
    scores = dict(zip(classifier.labels, row, strict=True))
    label = max(scores, key=scores.__getitem__)
    return Judgement(text, label, scores[label], scores)


def _ids(classifier: Classifier, text: str) -> list[int]:
    """The ids of a text; none where there is nothing to judge."""
    return classifier.tokenizer.encode(text, special=True).ids if text.strip() else []


def _cut(classifier: Classifier, ids: list[int]) -> list[int]:
    """A text's first tokens and its closing special token, in at most the model's length."""
    limit = classifier.max_length
    if limit is None or len(ids) <= limit:
        return ids
    last = ids[-1]
    closing = [last] if classifier.tokenizer.kind(last) == "special" else []
    return ids[: limit - len(closing)] + closing


def _batches(
    places: Sequence[int], encoded: Sequence[Sequence[int]], batch_size: int | None
) -> Iterator[list[int]]:
    """Places of texts of like length: by number of texts, else by number of padded tokens."""
    batch: list[int] = []
    for place in sorted(places, key=lambda i: len(encoded[i])):
        if batch_size:
            full = len(batch) == batch_size
        else:
            full = (len(batch) + 1) * len(encoded[place]) > BATCH_TOKENS
        if batch and full:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


@torch.inference_mode()
def _scores(classifier: Classifier, rows: Sequence[Sequence[int]]) -> list[list[float]]:
    """The scores of each text by label, padded to the longest."""
    width = max(map(len, rows))
    pad = classifier.model.config.pad_token_id or 0
    device = classifier.model.device
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    logits = classifier.model(input_ids=ids, attention_mask=mask).logits.float()
    probs = torch.sigmoid(logits) if classifier.multi_label else torch.softmax(logits, dim=-1)
    return [[float(p) for p in row] for row in probs.cpu().tolist()]

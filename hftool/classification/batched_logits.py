"""Logits of many sequences, in batches of similar length."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from hftool.models.load import Classifier
from hftool.models.model_errors import model_errors
from hftool.nn.architectures import LENGTH_DEPENDENT_ROPE, PADDING_SENSITIVE

WINDOW = 1024  # texts sorted by length together
# Padded tokens of a batch. On a CPU what a layer computes of so many stays in the cache of a core.
BATCH_TOKENS = 1024
BATCH_TOKENS_ON_GPU = 16_384

T = TypeVar("T")

Tokens = tuple[list[int], list[int]]  # ids, and which of two texts each is of (0 or 1)


def batched_logits(
    classifier: Classifier, every: Sequence[Tokens], batch_size: int | None
) -> torch.Tensor:
    """The logits of sequences, computed by like length: float32 [sequences, labels]."""
    model = classifier.model
    if model.config.pad_token_id is None:
        batch_size = 1  # what pools the last token finds it by the padding
    most = BATCH_TOKENS if model.device.type == "cpu" else BATCH_TOKENS_ON_GPU
    padded = getattr(model.config, "model_type", None) not in PADDING_SENSITIVE
    batches = list(_batches([len(ids) for ids, _ in every], batch_size, most, padded=padded))
    logits = torch.empty(len(every), len(classifier.labels))

    def compute(places: list[int]) -> None:
        logits[places] = _logits(classifier, [every[i] for i in places])

    _each(compute, batches[::-1], _workers(model, len(batches)))  # the longest texts first
    return logits


def _workers(model: Any, batches: int) -> int:
    """How many batches to compute at once: on a CPU each core computes one of its own, where there
    are enough, which is faster than all cores at the same."""
    cores = torch.get_num_threads()
    rescaled = any(getattr(m, "rope_type", "") in LENGTH_DEPENDENT_ROPE for m in model.modules())
    return 1 if model.device.type != "cpu" or batches < 2 * cores or rescaled else cores


def _each(compute: Callable[[T], None], items: Sequence[T], workers: int) -> None:
    if workers == 1:
        for item in items:
            compute(item)
        return
    torch.set_num_threads(1)  # of each worker
    pool = ThreadPoolExecutor(workers)
    try:
        for _ in pool.map(compute, items):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(workers)


def _batches(
    lengths: Sequence[int], batch_size: int | None, most: int, *, padded: bool
) -> Iterator[list[int]]:
    """Places of sequences of like length, without padding of one length: so many a batch, else by
    their padded tokens."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch_size:
            full = len(batch) == batch_size
        else:
            full = (len(batch) + 1) * lengths[place] > most
        if batch and (full or not (padded or lengths[place] == lengths[batch[0]])):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


@torch.inference_mode()
def _logits(classifier: Classifier, batch: Sequence[Tokens]) -> torch.Tensor:
    """The logits of sequences padded to the longest: float32 [sequences, labels]."""
    config, device = classifier.model.config, classifier.model.device
    width = max(len(ids) for ids, _ in batch)
    pad = config.pad_token_id or 0
    inputs = {
        "input_ids": [ids + [pad] * (width - len(ids)) for ids, _ in batch],
        "attention_mask": [[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in batch],
    }
    if any(types for _, types in batch) and (getattr(config, "type_vocab_size", 0) or 0) > 1:
        inputs["token_type_ids"] = [types + [0] * (width - len(types)) for _, types in batch]
    tensors = {name: torch.tensor(rows, device=device) for name, rows in inputs.items()}
    with model_errors():
        logits: torch.Tensor = classifier.model(**tensors).logits.float().cpu()
    return logits

"""Compute the logits of many sequences, in batches of similar length."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from hftool.models.classifier import Classifier
from hftool.models.model_errors import model_errors
from hftool.nn.architectures import LENGTH_DEPENDENT_ROPE, PADDING_SENSITIVE
from hftool.nn.threads import for_each
from hftool.nn.weights import unknown_token

WINDOW = 1024  # texts that are sorted by length together
# Padded tokens of a batch. On a CPU a layer's results for so few stay in the cache of a core.
BATCH_TOKENS = 1024
BATCH_TOKENS_ON_GPU = 16_384

Tokens = tuple[list[int], list[int]]  # token ids, and their type (segment) ids


def batched_logits(
    classifier: Classifier, sequences: Sequence[Tokens], batch_size: int | None
) -> torch.Tensor:
    """Return the logits of sequences in their order, computed in batches of similar length.

    Args:
        batch_size: sequences per batch; None bounds the padded tokens of a batch instead.

    Returns:
        float32 [sequences, labels], on the CPU.

    Raises:
        HftoolError: the model fails, or has no embedding for a token id.
    """
    model = classifier.model
    for ids, _ in sequences:
        if ids and max(ids) >= classifier.embedding_rows:
            raise unknown_token(max(ids), classifier.embedding_rows)
    if model.config.pad_token_id is None:
        batch_size = 1  # models that pool the last token find it by the padding
    max_tokens = BATCH_TOKENS if model.device.type == "cpu" else BATCH_TOKENS_ON_GPU
    kinds = [_kind(ids, classifier) for ids, _ in sequences]
    lengths = [len(ids) for ids, _ in sequences]
    batches = list(_batches(lengths, kinds, batch_size, max_tokens))
    logits = torch.empty(len(sequences), len(classifier.labels))

    def compute(batch: list[int]) -> None:
        logits[batch] = _logits(classifier, [sequences[i] for i in batch])

    # The longest first: at the end, cores then wait for short batches only.
    for_each(compute, batches[::-1], _workers(model, len(batches)))
    return logits


def _workers(model: Any, batches: int) -> int:
    """Return how many batches to compute simultaneously.

    On a CPU, given enough batches, one batch per core is faster than all cores on the same batch.
    """
    cores = torch.get_num_threads()
    rescaled = any(getattr(m, "rope_type", "") in LENGTH_DEPENDENT_ROPE for m in model.modules())
    return 1 if model.device.type != "cpu" or batches < 2 * cores or rescaled else cores


def _kind(ids: Sequence[int], classifier: Classifier) -> tuple[int, int]:
    """Return what sequences must have in common to be in one batch."""
    config = classifier.model.config
    # BART and T5 pool the last end token, and require equally many of them in each sequence.
    ends = ids.count(config.eos_token_id) if getattr(config, "is_encoder_decoder", False) else 0
    pads = config.pad_token_id is None or 0 <= config.pad_token_id < classifier.embedding_rows
    padded = pads and getattr(config, "model_type", None) not in PADDING_SENSITIVE
    return ends, 0 if padded else len(ids)


def _batches(
    lengths: Sequence[int],
    kinds: Sequence[tuple[int, int]],
    batch_size: int | None,
    max_tokens: int,
) -> Iterator[list[int]]:
    """Yield batches of indices of one kind, sorted by length: `batch_size` each, or up to
    `max_tokens` padded tokens."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: (kinds[index], lengths[index])):
        if batch_size:
            full = len(batch) == batch_size
        else:
            full = (len(batch) + 1) * lengths[index] > max_tokens
        if batch and (full or kinds[index] != kinds[batch[0]]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@torch.inference_mode()
def _logits(classifier: Classifier, batch: Sequence[Tokens]) -> torch.Tensor:
    """Return the logits of sequences, padded to the longest: float32 [sequences, labels]."""
    config, device = classifier.model.config, classifier.model.device
    width = max(len(ids) for ids, _ in batch)
    pad = config.pad_token_id or 0
    inputs = {
        "input_ids": [ids + [pad] * (width - len(ids)) for ids, _ in batch],
        "attention_mask": [[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in batch],
    }
    if any(any(types) for _, types in batch) and classifier.takes_type_ids:
        inputs["token_type_ids"] = [types + [0] * (width - len(types)) for _, types in batch]
    most = max(max(ids) for ids, _ in batch)
    if most >= classifier.embedding_rows:
        raise unknown_token(most, classifier.embedding_rows)
    tensors = {name: torch.tensor(rows, device=device) for name, rows in inputs.items()}
    with model_errors():
        logits: torch.Tensor = classifier.model(**tensors).logits.float().cpu()
    return logits

"""Compute the logits that score the tokens of many sequences, in batches of similar length.

Sequences are padded on the right: a causal model does not see the padding that comes after a text.
A masked model gets a copy of the text for each token, and only texts of the same length together.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch

from hftool.errors import HftoolError
from hftool.generation.batched_model import PADDING_ERROR, PADDING_ERROR_HALF
from hftool.generation.drawing import check_finite
from hftool.generation.mask_filling import mask_id
from hftool.generation.prefix_cache import CachedModel
from hftool.generation.scored_sequences import ScoredSequence
from hftool.models.language_model import LanguageModel
from hftool.nn.decoder import Decoder
from hftool.nn.products import OneDnnProducts

BATCH_TOKENS = 256  # padded tokens of a batch, at most: more would leave a core's cache
SHARED_TOKENS = 64  # given ones that are not computed again: fewer take less than another pass
BATCH_TOKENS_ON_GPU = 16_384
BATCH_LOGITS = 2**26  # of a batch, at most: padded tokens times vocabulary
BATCH_LOGITS_ON_GPU = 2**29
CAUSAL_SAMPLE = 16  # tokens


def batches(
    language_models: Sequence[LanguageModel],
    sequences: Sequence[ScoredSequence],
    size: int | None = None,
) -> Iterator[list[int]]:
    """Yield the indices of the sequences that have tokens to score, in batches sorted by length.

    Args:
        size: sequences per batch; None bounds the padded tokens of a batch instead.

    Raises:
        HftoolError: a model is neither causal nor masked.
    """
    scored = [i for i, sequence in enumerate(sequences) if len(sequence.ids) > sequence.start]
    if scored:
        for model in language_models:
            _require_causal(model, sequences[scored[0]])
    masked = any(model.is_masked for model in language_models)
    most = min(_most_tokens(model) for model in language_models)
    if not masked and size != 1:
        groups = _groups({i: sequences[i] for i in scored})
        for group in groups:
            width = size or len(group)
            yield from (group[i : i + width] for i in range(0, len(group), width))
        scored = sorted({*scored} - {i for group in groups for i in group})
    lengths = {i: len(sequences[i].ids) + len(sequences[i].source) for i in scored}
    for batch in _sorted_batches(lengths, size, most, equal=masked):
        together = [sequences[i] for i in batch]
        if masked or all(_can_pad(model, together) for model in language_models):
            yield batch
        else:
            yield from ([i] for i in batch)


def _groups(sequences: Mapping[int, ScoredSequence]) -> list[list[int]]:
    """Return the keys of the sequences that are given the same tokens, enough of them to compute
    them once; those of each group sorted by length."""
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for key in sorted(sequences, key=lambda key: len(sequences[key].ids)):
        groups.setdefault((sequences[key].source, sequences[key].given), []).append(key)
    return [
        group
        for (_, given), group in groups.items()
        if (len(group) - 1) * len(given) >= SHARED_TOKENS
    ]


def _sorted_batches(
    lengths: Mapping[int, int], size: int | None, most: int, *, equal: bool
) -> Iterator[list[int]]:
    """Yield batches of the keys of `lengths`, sorted by length: `size` each, or up to `most` padded
    tokens; with `equal` only of one length."""
    batch: list[int] = []
    for key in sorted(lengths, key=lambda key: lengths[key]):
        full = len(batch) == size if size else (len(batch) + 1) * lengths[key] > most
        if batch and (full or (equal and lengths[key] != lengths[batch[0]])):
            yield batch
            batch = []
        batch.append(key)
    if batch:
        yield batch


def _most_tokens(language_model: LanguageModel) -> int:
    """Return how many padded tokens a batch may have."""
    vocabulary = language_model.model.config.get_text_config().vocab_size
    if language_model.model.device.type == "cpu":
        return int(min(BATCH_TOKENS, max(1, BATCH_LOGITS // vocabulary)))
    return int(min(BATCH_TOKENS_ON_GPU, max(1, BATCH_LOGITS_ON_GPU // vocabulary)))


def _can_pad(language_model: LanguageModel, sequences: Sequence[ScoredSequence]) -> bool:
    """Return whether sequences can be computed together, without an effect of the padding."""
    longest = max(len(sequence.ids) for sequence in sequences)
    dependence = language_model.length_dependence
    return len(sequences) > 1 and (dependence is None or not dependence.differ(0, longest))


def scored_logits(
    language_model: LanguageModel, sequences: Sequence[ScoredSequence], *, ends: bool = False
) -> Iterator[torch.Tensor]:
    """Yield the logits of each scored token of a batch of sequences, in their order, in slices
    [tokens, vocabulary] that together hold all.

    Args:
        ends: whether those after each sequence's last token follow its own.

    Raises:
        HftoolError: the model fails, or its logits are not numbers.
    """
    if language_model.is_masked:
        slices = _masked(language_model, sequences)
    elif _groups(dict(enumerate(sequences))) == [[*range(len(sequences))]]:
        slices = _branched(language_model, sequences, ends=ends)
    elif len(sequences) > 1:
        slices = _padded(language_model, sequences, ends=ends)
    else:
        slices = _sliced(language_model, sequences[0], ends=ends)
    while True:
        with OneDnnProducts():
            logits = next(slices, None)
        if logits is None:
            return
        check_finite(logits, language_model.model.dtype)
        yield logits


def _sliced(
    language_model: LanguageModel, sequence: ScoredSequence, *, ends: bool
) -> Iterator[torch.Tensor]:
    """Yield the logits [tokens, vocabulary] of one sequence, which may be long, in slices."""
    position = 1  # of the token that follows the first of the logits
    ids = sequence.ids if ends else sequence.ids[:-1]
    for logits in CachedModel(language_model.reading(sequence.source)).all_logits(ids):
        skipped = min(len(logits), max(0, sequence.start - position))
        if skipped < len(logits):
            yield logits[skipped:]
        position += len(logits)


def _branched(
    language_model: LanguageModel, sequences: Sequence[ScoredSequence], *, ends: bool
) -> Iterator[torch.Tensor]:
    """Yield the logits [tokens, vocabulary] of several sequences that are given the same tokens."""
    first = sequences[0]
    ids = [s.ids if ends else s.ids[:-1] for s in sequences]
    model = CachedModel(language_model.reading(first.source), rewinds=True)
    yield from model.branch_logits(first.given, [each[len(first.given) :] for each in ids])


@torch.inference_mode()
def _padded(
    language_model: LanguageModel, sequences: Sequence[ScoredSequence], *, ends: bool
) -> Iterator[torch.Tensor]:
    """Yield the logits [tokens, vocabulary] of each of several sequences, computed together."""
    width = max(len(sequence.ids) for sequence in sequences) - (not ends)
    padded = [[*s.ids, *[0] * width][:width] for s in sequences]
    sources = language_model.encode([s.source for s in sequences])
    ids = torch.tensor(padded, device=language_model.model.device)
    logits = language_model.forward(ids, **sources)
    for row, sequence in zip(logits, sequences, strict=True):
        yield row[sequence.start - 1 : len(sequence.ids) - (not ends)]


@torch.inference_mode()
def _masked(
    language_model: LanguageModel, sequences: Sequence[ScoredSequence]
) -> Iterator[torch.Tensor]:
    """Yield the logits [tokens, vocabulary] that a masked model has for each token in its place:
    where it and the tokens of its word that follow are masked (Kauf and Ivanova 2023,
    https://arxiv.org/abs/2305.10588)."""
    mask = mask_id(language_model.tokenizer)
    copies = [copy for sequence in sequences for copy in _masked_copies(sequence, mask)]
    count = max(1, _most_tokens(language_model) // len(copies[0][1]))
    for first in range(0, len(copies), count):
        some = copies[first : first + count]
        ids = torch.tensor([ids for _, ids in some], device=language_model.model.device)
        logits = language_model.forward(ids, attention_mask=torch.ones_like(ids))
        yield logits[range(len(some)), [position for position, _ in some]]


def _masked_copies(sequence: ScoredSequence, mask: int) -> Iterator[tuple[int, list[int]]]:
    """Yield the position of each scored token, and the ids with masks for it and for the rest of
    its word."""
    words = (*[None] * sequence.start, *sequence.words)
    for position in range(sequence.start, len(sequence.ids)):
        ids = [*sequence.ids, *sequence.suffix]
        ids[position] = mask
        for later in range(position + 1, len(sequence.ids)):
            if words[later] is not None and words[later] == words[position]:
                ids[later] = mask
        yield position, ids


def _require_causal(language_model: LanguageModel, sequence: ScoredSequence) -> None:
    """Raise where the logits after a token depend on the tokens that follow it, as in models made
    to fill masks, some of which have configs that call them causal.

    Raises:
        HftoolError: they do, and the model is not known as a masked one.
    """
    if language_model.is_masked:
        return
    if language_model.is_causal is None:
        language_model.is_causal = _is_causal(language_model, sequence)
    if not language_model.is_causal:
        raise HftoolError(
            f"{language_model.name} is not a causal language model: what it expects after a token"
            " depends on the tokens that follow"
        )


@torch.inference_mode()
def _is_causal(language_model: LanguageModel, sequence: ScoredSequence) -> bool:
    if isinstance(language_model.model, Decoder):
        return True
    dependence = language_model.length_dependence
    shorter = list(sequence.ids[:CAUSAL_SAMPLE])
    if dependence is not None:  # so that all angles are those of short texts
        shorter = shorter[: max(1, dependence.switch // 2)]
    some = [*shorter, *shorter]
    device = language_model.model.device
    source = language_model.encode([sequence.source])
    whole = language_model.forward(torch.tensor([some], device=device), **source)
    whole = whole[0, : len(shorter)]
    alone = language_model.forward(torch.tensor([shorter], device=device), **source)[0]
    check_finite(alone, language_model.model.dtype)
    error = float((whole - alone).norm() / (alone - alone.mean()).norm())
    exact = language_model.model.dtype.itemsize == 4
    return error < (PADDING_ERROR if exact else PADDING_ERROR_HALF)

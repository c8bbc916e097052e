"""Measure the tokens of many sequences by a model's logits, computed together.

Sequences are padded on the right: a causal model does not see the padding that comes after a text.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hftool.errors import HftoolError
from hftool.generation.batch import PADDING_ERROR, PADDING_ERROR_HALF
from hftool.generation.drawing import check_finite
from hftool.generation.next_token import (
    entropy_bits,
    rank_of,
)
from hftool.generation.prefix_cache import CachedModel
from hftool.generation.scored_sequences import ScoredSequence
from hftool.models.language_model import LanguageModel
from hftool.nn.llama import Llama

BATCH_TOKENS = 1024  # padded tokens of a batch, at most
BATCH_LOGITS = 2**26  # of a batch, at most: padded tokens times vocabulary
CAUSAL_SAMPLE = 16  # tokens

# Given the logits after some tokens of a sequence [tokens, vocabulary] and the ids that follow them
# (one fewer if the last of the logits are those after the end), return something for each.
Measure = Callable[[torch.Tensor, Sequence[int]], list[Any]]


def logprobs(logits: torch.Tensor, following: Sequence[int]) -> list[float]:
    """Return the natural log-probability of each following id."""
    logits = logits[: len(following)]
    chosen = logits.gather(1, torch.tensor(following, device=logits.device)[:, None])[:, 0]
    result: list[float] = (chosen.double() - logits.logsumexp(1).double()).tolist()
    return result


def ranked_tokens(logits: torch.Tensor, following: Sequence[int]) -> list[Any]:
    """Return the id, log-probability, rank, and entropy (in bits) before it of each following
    id."""
    rows = torch.log_softmax(logits[: len(following)].cpu().double(), dim=-1)
    return [
        (i, float(row[i]), rank_of(row, i), entropy_bits(row))
        for row, i in zip(rows, following, strict=True)
    ]


@dataclass(frozen=True)
class WordMeasure:
    """Measures tokens for the scores of words.

    Attributes:
        word_beginnings: the ids of the tokens that begin a word.
    """

    word_beginnings: torch.Tensor

    def __call__(self, logits: torch.Tensor, following: Sequence[int]) -> list[Any]:
        """Return for each of the logits the log-probability of the id that follows (0 where none
        does), and of any token that begins a word."""
        beginnings = logits[:, self.word_beginnings.to(logits.device)].logsumexp(1)
        ends = (beginnings.double() - logits.logsumexp(1).double()).tolist()
        chosen = [*logprobs(logits, following), 0.0]
        return list(zip(chosen, ends, strict=False))


def measure_sequences(
    language_model: LanguageModel,
    sequences: Sequence[ScoredSequence],
    measure: Measure,
    batch_size: int | None = None,
) -> list[list[Any]]:
    """Return the measures of each sequence's scored tokens, in the order of the sequences.

    Args:
        batch_size: sequences per batch; None bounds the padded tokens of a batch instead.

    Raises:
        HftoolError: the model fails, or its logits are not numbers.
    """
    results: list[list[Any]] = [[] for _ in sequences]
    vocabulary = language_model.model.config.get_text_config().vocab_size
    most = min(BATCH_TOKENS, max(1, BATCH_LOGITS // vocabulary))
    scored = [i for i, sequence in enumerate(sequences) if len(sequence.ids) > sequence.start]
    if scored:
        _require_causal(language_model, sequences[scored[0]])
    for batch in _batches({i: len(sequences[i].ids) - 1 for i in scored}, batch_size, most):
        together = [sequences[i] for i in batch]
        if _can_pad(language_model, together):
            values = _measure_batch(language_model, together, measure)
        else:
            values = [_measure_single(language_model, each, measure) for each in together]
        for i, of_sequence in zip(batch, values, strict=True):
            results[i] = of_sequence
    return results


def _can_pad(language_model: LanguageModel, sequences: Sequence[ScoredSequence]) -> bool:
    """Return whether sequences can be computed together, without an effect of the padding."""
    longest = max(len(sequence.ids) for sequence in sequences)
    dependence = language_model.length_dependence
    return len(sequences) > 1 and (dependence is None or not dependence.differ(0, longest))


def _require_causal(language_model: LanguageModel, sequence: ScoredSequence) -> None:
    """Raise where the logits after a token depend on the tokens that follow it, as in models made
    to fill masks, some of which have configs that call them causal.

    Raises:
        HftoolError: they do.
    """
    if language_model.is_causal is None:
        language_model.is_causal = _is_causal(language_model, sequence)
    if not language_model.is_causal:
        raise HftoolError(
            f"{language_model.name} is not a causal language model: what it expects after a token"
            " depends on the tokens that follow"
        )


@torch.inference_mode()
def _is_causal(language_model: LanguageModel, sequence: ScoredSequence) -> bool:
    if isinstance(language_model.model, Llama):
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
    error = float((whole - alone).norm() / (alone - alone.mean()).norm())
    exact = language_model.model.dtype.itemsize == 4
    return error < (PADDING_ERROR if exact else PADDING_ERROR_HALF)


def _batches(lengths: Mapping[int, int], size: int | None, most: int) -> Iterator[list[int]]:
    """Yield batches of the keys of `lengths`, sorted by length: `size` each, or up to `most` padded
    tokens."""
    batch: list[int] = []
    for key in sorted(lengths, key=lambda key: lengths[key]):
        full = len(batch) == size if size else (len(batch) + 1) * lengths[key] > most
        if batch and full:
            yield batch
            batch = []
        batch.append(key)
    if batch:
        yield batch


def _measure_single(
    language_model: LanguageModel, sequence: ScoredSequence, measure: Measure
) -> list[Any]:
    """Return the measures of one sequence, whose logits are computed in slices."""
    values: list[Any] = []
    position = 1  # of the token that follows the first of the logits
    ids = sequence.ids if isinstance(measure, WordMeasure) else sequence.ids[:-1]
    for logits in CachedModel(language_model.reading(sequence.source)).all_logits(ids):
        skipped = min(len(logits), max(0, sequence.start - position))
        following = sequence.ids[position + skipped : position + len(logits)]
        values += measure(logits[skipped:], following)
        position += len(logits)
    return values


@torch.inference_mode()
def _measure_batch(
    language_model: LanguageModel, sequences: Sequence[ScoredSequence], measure: Measure
) -> list[list[Any]]:
    """Return the measures of several sequences, computed together."""
    model = language_model.model
    unread = 0 if isinstance(measure, WordMeasure) else 1  # what follows the last token is unknown
    width = max(len(sequence.ids) for sequence in sequences) - unread
    padded = [[*s.ids, *[0] * width][:width] for s in sequences]
    sources = language_model.encode([s.source for s in sequences])
    logits = language_model.forward(torch.tensor(padded, device=model.device), **sources)
    values = []
    for row, sequence in zip(logits, sequences, strict=True):
        scored = row[sequence.start - 1 : len(sequence.ids) - unread]
        check_finite(scored, model.dtype)
        values.append(measure(scored, sequence.ids[sequence.start :]))
    return values

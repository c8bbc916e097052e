"""Rank the tokens of the vocabulary by their probability."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from hftool.generation.candidates import Candidate
from hftool.generation.drawing import sampled_probs
from hftool.generation.filters import build_filters
from hftool.generation.prefix_cache import CachedModel
from hftool.generation.sampling import SamplingSettings, apply_filters
from hftool.models.language_model import LanguageModel


def next_tokens(
    language_model: LanguageModel,
    ids: Sequence[int],
    k: int,
    wanted: Sequence[int] = (),
    settings: SamplingSettings | None = None,
    logits: torch.Tensor | None = None,
) -> Iterator[Candidate]:
    """Yield the `k` most probable tokens after `ids`, then those of `wanted` that rank below.

    With `settings`, give the probabilities after the filters as well.

    Args:
        logits: those after `ids` [vocabulary], if they have been computed already.

    Raises:
        HftoolError: `ids` is longer than the context.
    """
    if logits is None:
        logits = CachedModel(language_model).next_logits(ids)
    sampled = probs_after_filters(language_model, logits, ids, settings)
    yield from rank_tokens(language_model, logits.cpu(), len(ids) - 1, k, wanted, sampled)


def probs_after_filters(
    language_model: LanguageModel,
    logits: torch.Tensor,
    ids: Sequence[int],
    settings: SamplingSettings | None,
) -> torch.Tensor | None:
    """Return the probabilities with which the next token is drawn [vocabulary]; None without
    settings.

    Args:
        logits: those after `ids` [vocabulary].
    """
    if settings is None:
        return None
    scores = apply_filters(logits, ids, build_filters(settings, language_model, ids))
    return sampled_probs(scores.cpu(), settings)


def score_continuation(
    cached_model: CachedModel,
    language_model: LanguageModel,
    ids: Sequence[int],
    text: str,
    continuation: Sequence[int],
    logits: torch.Tensor,
) -> Iterator[Candidate]:
    """Yield each token of a continuation, then the continuation as a whole.

    Args:
        text: the text of the continuation.
        logits: those after `ids` [vocabulary].

    Raises:
        HftoolError: the tokens do not fit the context.
    """
    total = 0.0
    for i, token_id in enumerate(continuation):
        if i:
            logits = cached_model.next_logits([*ids, *continuation[:i]]).cpu()
        for candidate in rank_tokens(language_model, logits, len(ids) - 1 + i, 0, [token_id]):
            total += candidate.logprob
            yield replace(candidate, target=text)
    prob = math.exp(total)
    yield Candidate(len(ids) - 1, None, None, text, prob, total, None, None, target=text)


def rank_of(logprobs: torch.Tensor, token_id: int) -> int:
    """Return the rank of a token, from 1, in a distribution [vocabulary]; of equally probable ones
    that with the lower id comes first."""
    chosen = logprobs[token_id]
    better = (logprobs > chosen).sum() + (logprobs[:token_id] == chosen).sum()
    return int(better) + 1


def rank_tokens(
    language_model: LanguageModel,
    logits: torch.Tensor,
    position: int,
    k: int,
    wanted: Sequence[int] = (),
    sampled: torch.Tensor | None = None,
) -> Iterator[Candidate]:
    """Yield the `k` most probable tokens, then those of `wanted` that rank below, best first.

    Args:
        logits: the model's [vocabulary].
        position: the position to name in the records.
        sampled: the probabilities after the sampling filters [vocabulary].
    """
    logprobs = torch.log_softmax(logits.double(), dim=-1)
    probs = logprobs.exp()
    entropy = entropy_bits(logprobs)
    sampled_entropy = None if sampled is None else entropy_bits(sampled.double().log())
    ordered, order = probs.sort(descending=True, stable=True)
    cumulative = ordered.cumsum(0)
    indices = list(range(min(k, len(order))))
    others = (int((order == token_id).nonzero()[0, 0]) for token_id in dict.fromkeys(wanted))
    indices += sorted(index for index in others if index >= k)
    for index in indices:
        token_id = int(order[index])
        yield Candidate(
            position=position,
            rank=index + 1,
            id=token_id,
            token=language_model.tokenizer.token_text(token_id),
            prob=float(ordered[index]),
            logprob=float(logprobs[token_id]),
            cumulative=min(float(cumulative[index]), 1.0),
            entropy=entropy,
            sampled_prob=None if sampled is None else float(sampled[token_id]),
            sampled_entropy=sampled_entropy,
        )


def entropy_bits(logprobs: torch.Tensor) -> float:
    """Return the entropy of a distribution in bits, from natural log-probabilities [vocabulary]."""
    terms = torch.where(logprobs == -torch.inf, 0.0, logprobs.exp() * logprobs)
    return max(0.0, float(-terms.sum()) / math.log(2))

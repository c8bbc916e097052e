"""What a model expects next."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from hftool.decoding import Decoder
from hftool.models.load import LanguageModel


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that may come next after position `position` (0 is the prompt's first token).

    `prob` and its natural logarithm `logprob`; `cumulative` the probability of this and all better
    ranks; `entropy` in bits, of the whole distribution.
    """

    position: int
    rank: int
    id: int
    token: str
    prob: float
    logprob: float
    cumulative: float
    entropy: float


def next_tokens(
    language_model: LanguageModel, ids: Sequence[int], k: int, wanted: Sequence[int] = ()
) -> Iterator[Candidate]:
    """The `k` most probable tokens after `ids`, then each of `wanted` that is not among them.

    Raises:
        HftoolError: `ids` is longer than the context.
    """
    logits = Decoder(language_model).next_logits(ids).cpu()
    yield from rank_tokens(language_model, logits, len(ids) - 1, k, wanted)


def rank_tokens(
    language_model: LanguageModel,
    logits: torch.Tensor,
    position: int,
    k: int,
    wanted: Sequence[int] = (),
) -> Iterator[Candidate]:
    """The records of one distribution, from logits [vocabulary]."""
    logprobs = torch.log_softmax(logits.double(), dim=-1)
    probs = logprobs.exp()
    entropy = entropy_bits(logprobs)
    ordered, order = probs.sort(descending=True, stable=True)
    cumulative = ordered.cumsum(0)
    places = list(range(min(k, len(order))))
    asked = (int((order == token_id).nonzero()[0, 0]) for token_id in dict.fromkeys(wanted))
    places += sorted(place for place in asked if place >= k)
    for place in places:
        token_id = int(order[place])
        yield Candidate(
            position=position,
            rank=place + 1,
            id=token_id,
            token=language_model.tokenizer.token_text(token_id),
            prob=float(ordered[place]),
            logprob=float(logprobs[token_id]),
            cumulative=min(float(cumulative[place]), 1.0),
            entropy=entropy,
        )


def entropy_bits(logprobs: torch.Tensor) -> float:
    """The entropy of a distribution in bits, from its log-probabilities (natural) [vocabulary]."""
    terms = torch.where(logprobs == -torch.inf, 0.0, logprobs.exp() * logprobs)
    return max(0.0, float(-terms.sum()) / math.log(2))

"""Measure the tokens of many sequences by the logits of one model, or of several."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hftool.generation.ranking import entropy_bits, rank_of
from hftool.generation.scored_logits import batches, scored_logits
from hftool.generation.scored_sequences import ScoredSequence
from hftool.models.language_model import LanguageModel
from hftool.nn.threads import for_each

# Given token ids and the logits that each model has for them [tokens, vocabulary], return something
# for each.
Measure = Callable[..., list[Any]]
COMPARED = 32  # tokens whose distributions are compared together, in double precision


def logprobs(following: Sequence[int], logits: torch.Tensor) -> list[float]:
    """Return the natural log-probability of each id.

    Args:
        logits: those before each [tokens, vocabulary].
    """
    chosen = logits.gather(1, torch.tensor(following, device=logits.device)[:, None])[:, 0]
    result: list[float] = (chosen.double() - logits.logsumexp(1).double()).tolist()
    return result


def ranked_tokens(following: Sequence[int], logits: torch.Tensor) -> list[Any]:
    """Return each id, its natural log-probability and rank, and the entropy (in bits) of the logits
    [tokens, vocabulary]."""
    rows = torch.log_softmax(logits.cpu().double(), dim=-1)
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

    def __call__(self, following: Sequence[int], logits: torch.Tensor) -> list[Any]:
        """Return the natural log-probability of each id, and of any token that begins a word, from
        the logits [tokens, vocabulary]."""
        beginnings = logits[:, self.word_beginnings.to(logits.device)].logsumexp(1)
        starts = (beginnings.double() - logits.logsumexp(1).double()).tolist()
        return list(zip(logprobs(following, logits), starts, strict=True))


@dataclass(frozen=True, slots=True)
class TokenComparison:
    """What two models expect in the place of a token: the log-probabilities of the token, the
    Kullback-Leibler divergence in nats of the first from the second (`baseline`), and whether their
    most probable tokens are the same."""

    logprob: float
    baseline: float
    divergence: float
    same_best: bool


def compared(
    following: Sequence[int], logits: torch.Tensor, baseline: torch.Tensor
) -> list[TokenComparison]:
    """Compare the logits [tokens, vocabulary] of two models with the same vocabulary. Embeddings
    that only one of them has are padding, and don't count for the divergence."""
    width = min(logits.shape[1], baseline.shape[1])
    divergences: list[float] = []
    same: list[bool] = []
    pairs = zip(*(torch.split(x[:, :width], COMPARED) for x in (logits, baseline)), strict=True)
    for ours, theirs in pairs:
        q = torch.log_softmax(ours.cpu().double(), -1)
        p = torch.log_softmax(theirs.cpu().double(), -1)
        divergences += (p.exp() * (p - q)).sum(1).clamp(min=0).tolist()
        same += (p.argmax(1) == q.argmax(1)).tolist()
    values = (logprobs(following, logits), logprobs(following, baseline), divergences, same)
    return [TokenComparison(*each) for each in zip(*values, strict=True)]


def measure_sequences(
    language_models: Sequence[LanguageModel],
    sequences: Sequence[ScoredSequence],
    measure: Measure,
    batch_size: int | None = None,
    *,
    ends: bool = False,
) -> list[list[Any]]:
    """Return the measures of each sequence's scored tokens, in the order of the sequences.

    Args:
        batch_size: sequences per batch; None bounds the padded tokens of a batch instead.
        ends: whether the place after each last token is measured as well, with the id 0.

    Raises:
        HftoolError: a model fails, or its logits are not numbers.
    """
    results: list[list[Any]] = [[] for _ in sequences]

    def compute(batch: list[int]) -> None:
        together = [sequences[i] for i in batch]
        following = [[*s.ids[s.start :], *[0] * ends] for s in together]
        flat = [token_id for ids in following for token_id in ids]
        values: list[Any] = []
        each = [scored_logits(model, together, ends=ends) for model in language_models]
        for logits in _aligned(each):
            values += measure(flat[len(values) : len(values) + len(logits[0])], *logits)
        for i, ids in zip(batch, following, strict=True):
            results[i], values = values[: len(ids)], values[len(ids) :]

    all_batches = list(batches(language_models, sequences, batch_size))
    # The longest first: at the end, cores then wait for short batches only.
    for_each(compute, all_batches[::-1], _workers(language_models, len(all_batches)))
    return results


def _workers(language_models: Sequence[LanguageModel], batches: int) -> int:
    """Return how many batches to compute simultaneously.

    On a CPU, given enough batches, one batch per core is faster than all cores on the same batch.
    In other precisions than float32, a model adapts the number of threads by itself.
    """
    cores = torch.get_num_threads()
    alone = any(
        m.model.device.type != "cpu" or m.model.dtype != torch.float32 or m.length_dependence
        for m in language_models
    )
    return 1 if alone or batches < 2 * cores else cores


def _aligned(streams: Sequence[Iterator[torch.Tensor]]) -> Iterator[list[torch.Tensor]]:
    """Yield the rows of all streams of logits [tokens, vocabulary] together, in slices of equally
    many."""
    slices = [next(stream, None) for stream in streams]
    while all(each is not None for each in slices):
        known = [each for each in slices if each is not None]
        rows = min(map(len, known))
        yield [each[:rows] for each in known]
        slices = [
            each[rows:] if len(each) > rows else next(stream, None)
            for each, stream in zip(known, streams, strict=True)
        ]

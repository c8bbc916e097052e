"""What a model expects next."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from hftool.errors import UsageError
from hftool.generation.prefix_cache import CachedModel, require_context
from hftool.generation.sampling import (
    SamplingSettings,
    filtered,
    filters,
    resolve_sampling,
    sampled_probs,
)
from hftool.models.load import LanguageModel, load_language_model
from hftool.options.generation import SamplingOptions
from hftool.options.inputs import PromptOptions
from hftool.options.model import LoadOptions
from hftool.prompting.prompt import prompt_ids

log = logging.getLogger("hftool")

OPTIONAL = {"optional": True}  # left out of a record where it is None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that may come next after position `position` (0 is the prompt's first token).

    `prob` and its natural logarithm `logprob`; `cumulative` the probability of this and all better
    ranks; `entropy` in bits, of the whole distribution; `sampled_prob` the probability after the
    sampling filters that were asked for; `model` where several were asked, `index` where several
    texts were given.

    A continuation of several tokens has no rank and id; its `prob` is the product of theirs.
    """

    position: int
    rank: int | None
    id: int | None
    token: str
    prob: float
    logprob: float
    cumulative: float | None
    entropy: float | None
    sampled_prob: float | None = field(default=None, metadata=OPTIONAL)
    model: str | None = field(default=None, metadata=OPTIONAL)
    index: int | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token of a text, and what the model thought of it there: its probability, its rank, its
    surprisal (-log2 of the probability) and the distribution's entropy, both in bits; `bytes` in
    hex, None for a special token.

    The first token follows nothing: it has only its name.
    """

    position: int
    id: int
    token: str
    bytes: str | None
    prob: float | None
    rank: int | None
    surprisal: float | None
    entropy: float | None
    model: str | None = field(default=None, metadata=OPTIONAL)
    index: int | None = field(default=None, metadata=OPTIONAL)

    @property
    def kind(self) -> Literal["token"]:
        """Tells it from the perplexity at the end."""
        return "token"


@dataclass(frozen=True, slots=True)
class Perplexity:
    """The mean surprisal (bits a token) of the tokens that were scored, and 2 to its power."""

    tokens: int
    surprisal: float | None
    perplexity: float | None
    model: str | None = field(default=None, metadata=OPTIONAL)
    index: int | None = field(default=None, metadata=OPTIONAL)

    @property
    def kind(self) -> Literal["perplexity"]:
        """Tells it from the tokens before it."""
        return "perplexity"


NextTokenRecord = Candidate | ScoredToken | Perplexity


@dataclass(frozen=True)
class NextTokenQuery:
    """What to ask of a distribution: the `k` best tokens, the tokens or continuations `texts`, the
    position ("all" scores every token of the text; None is after the last one), and with which
    sampling options the probabilities after the filters are wanted too."""

    k: int
    texts: tuple[str, ...] = ()
    position: str | None = None
    sampling: SamplingOptions | None = None


def next_token_records(
    load: LoadOptions,
    models: Sequence[str],
    texts: Sequence[str],
    prompting: PromptOptions,
    ask: NextTokenQuery,
) -> Iterator[NextTokenRecord]:
    """The answers of one model after the other to each text; where there are several models or
    texts, each answer says which it is about.

    Raises:
        HftoolError: a model can't be loaded, or the prompt does not fit.
        UsageError: there is no such position.
    """
    if ask.position == "all" and ask.sampling is not None:
        log.warning("--position all has the model's own probabilities: no sampling option counts")
    for name in models:
        language_model = load_language_model(replace(load, model=name))
        for index, text in enumerate(texts):
            ids = prompt_ids(language_model.tokenizer, text, prompting)
            answers: Iterator[NextTokenRecord] = (
                score_tokens(language_model, ids)
                if ask.position == "all"
                else _candidates(language_model, ids[: _end(ask.position, len(ids))], ask)
            )
            model = name if len(models) > 1 else None
            number = index if len(texts) > 1 else None
            yield from (replace(answer, model=model, index=number) for answer in answers)


def _end(position: str | None, count: int) -> int:
    """How many tokens stand before the position asked about."""
    if position is None:
        return count
    try:
        number = int(position)
    except ValueError:
        raise UsageError(f"--position: '{position}' is no number and not 'all'") from None
    if not -count <= number < count:
        raise UsageError(f"--position {number}: the prompt has the positions 0 to {count - 1}")
    return number % count + 1


def _candidates(
    language_model: LanguageModel, ids: Sequence[int], ask: NextTokenQuery
) -> Iterator[Candidate]:
    tokenizer = language_model.tokenizer
    continuations = [tokenizer.encode(text, special=False).ids for text in ask.texts]
    if not all(continuations):
        raise UsageError("--target: the text is empty")
    decoder = CachedModel(language_model)
    singles = [c[0] for c in continuations if len(c) == 1]
    settings = None
    if ask.sampling is not None:
        settings = resolve_sampling(ask.sampling, language_model.generation_config)
    yield from next_tokens(language_model, ids, ask.k, singles, settings, decoder)
    for text, continuation in zip(ask.texts, continuations, strict=True):
        if len(continuation) > 1:
            yield from continue_with(decoder, language_model, ids, text, continuation)


def next_tokens(
    language_model: LanguageModel,
    ids: Sequence[int],
    k: int,
    wanted: Sequence[int] = (),
    settings: SamplingSettings | None = None,
    decoder: CachedModel | None = None,
) -> Iterator[Candidate]:
    """The `k` most probable tokens after `ids`, then each of `wanted` that is not among them.

    With `settings` each has its probability after the filters as well.

    Raises:
        HftoolError: `ids` is longer than the context.
    """
    logits = (decoder or CachedModel(language_model)).next_logits(ids).cpu()
    sampled = None
    if settings is not None:
        scores = filtered(logits, ids, filters(settings))
        sampled = sampled_probs(scores, settings)
    yield from rank_tokens(language_model, logits, len(ids) - 1, k, wanted, sampled)


def continue_with(
    decoder: CachedModel,
    language_model: LanguageModel,
    ids: Sequence[int],
    text: str,
    continuation: Sequence[int],
) -> Iterator[Candidate]:
    """Each token of a continuation after those before it, then the continuation as a whole.

    Raises:
        HftoolError: it does not fit the context.
    """
    total = 0.0
    for i, token_id in enumerate(continuation):
        logits = decoder.next_logits([*ids, *continuation[:i]]).cpu()
        for candidate in rank_tokens(language_model, logits, len(ids) - 1 + i, 0, [token_id]):
            total += candidate.logprob
            yield candidate
    yield Candidate(len(ids) - 1, None, None, text, math.exp(total), total, None, None)


def score_tokens(
    language_model: LanguageModel, ids: Sequence[int]
) -> Iterator[ScoredToken | Perplexity]:
    """Every token of a text as the model expected it, then the perplexity of the whole.

    Raises:
        HftoolError: the text is longer than the context.
    """
    limit = language_model.context_length
    if limit is not None and len(ids) > limit + 1:  # nothing is asked of the last token
        require_context(language_model, len(ids))
    name, data = language_model.tokenizer.token_text, language_model.tokenizer.token_hex
    yield ScoredToken(0, ids[0], name(ids[0]), data(ids[0]), None, None, None, None)
    total, position = 0.0, 0
    for logits in CachedModel(language_model).all_logits(ids[:-1]):
        logprobs = torch.log_softmax(logits.double(), dim=-1)
        for row in logprobs:
            position += 1
            token_id = ids[position]
            chosen = row[token_id]
            better = (row > chosen).sum() + (row[:token_id] == chosen).sum()
            surprisal = -float(chosen) / math.log(2)
            total += surprisal
            yield ScoredToken(
                position=position,
                id=token_id,
                token=name(token_id),
                bytes=data(token_id),
                prob=float(chosen.exp()),
                rank=int(better) + 1,
                surprisal=surprisal,
                entropy=entropy_bits(row),
            )
    mean = total / position if position else None
    yield Perplexity(position, mean, None if mean is None else 2.0**mean)


def rank_tokens(
    language_model: LanguageModel,
    logits: torch.Tensor,
    position: int,
    k: int,
    wanted: Sequence[int] = (),
    sampled: torch.Tensor | None = None,
) -> Iterator[Candidate]:
    """The records of one distribution, from logits [vocabulary]; `sampled` are the probabilities
    after the sampling filters [vocabulary]."""
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
            sampled_prob=None if sampled is None else float(sampled[token_id]),
        )


def entropy_bits(logprobs: torch.Tensor) -> float:
    """The entropy of a distribution in bits, from its log-probabilities (natural) [vocabulary]."""
    terms = torch.where(logprobs == -torch.inf, 0.0, logprobs.exp() * logprobs)
    return max(0.0, float(-terms.sum()) / math.log(2))

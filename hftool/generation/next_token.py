"""The probabilities that a model gives to the next token, after a text or anywhere in it."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from hftool.errors import UsageError
from hftool.generation.candidates import Candidate
from hftool.generation.distribution import distribution
from hftool.generation.mask_filling import mask_logits, with_own_mask
from hftool.generation.prefix_cache import CachedModel, require_context
from hftool.generation.ranking import (
    next_tokens,
    probs_after_filters,
    rank_of,
    rank_tokens,
    score_continuation,
)
from hftool.generation.records import Distribution
from hftool.generation.resolution import resolve_sampling
from hftool.generation.sampling import SamplingSettings
from hftool.models.language_model import LanguageModel
from hftool.models.load import load_language_model
from hftool.options.inputs import PromptOptions
from hftool.options.model import LoadOptions
from hftool.options.sampling import SamplingOptions
from hftool.prompting.prompt import Prompt, prompt_ids

log = logging.getLogger("hftool")


@dataclass(frozen=True)
class NextTokenQuery:
    """What to report about the next token.

    Attributes:
        k: how many of the most probable tokens.
        texts: further tokens or continuations.
        position: the position to predict after; "all" means each of the text, None the last one.
        sampling: report the probabilities after these options' filters as well.
        page: also yield the whole distribution, for a page with sliders; not at all positions.
    """

    k: int
    texts: tuple[str, ...] = ()
    position: str | None = None
    sampling: SamplingOptions | None = None
    page: bool = False


def next_token_records(
    load: LoadOptions,
    models: Sequence[str],
    texts: Sequence[Prompt],
    prompting: PromptOptions,
    query: NextTokenQuery,
) -> Iterator[Candidate | Distribution]:
    """Answer a query for each text, with one model after another.

    Records name the model if there are several, and the text if there are several.

    Raises:
        HftoolError: a model cannot be loaded, or a prompt does not fit the context.
        UsageError: the prompt does not have this position.
    """
    return answers(load, models, texts, prompting, partial(_answer, query=query))


Answer = Callable[[LanguageModel, list[int]], Iterator[Any]]
"""Yields the records of a prompt's ids, which have the fields `model` and `index`."""


def answers(
    load: LoadOptions,
    models: Sequence[str],
    texts: Sequence[Prompt],
    prompting: PromptOptions,
    answer: Answer,
    *,
    fast: bool = True,
) -> Iterator[Any]:
    """Yield the records of each text by one model after another, as `next_token_records`.

    Args:
        fast: whether models may be computed by other code than transformers'.
    """
    for name in models:
        model = name if len(models) > 1 else None
        # Only this generator has the model, and is gone before the next one is loaded.
        of_model = _answers_of_model(replace(load, model=name), texts, prompting, answer, fast)
        yield from (replace(record, model=model) for record in of_model)


def _answers_of_model(
    load: LoadOptions,
    texts: Sequence[Prompt],
    prompting: PromptOptions,
    answer: Answer,
    fast: bool,
) -> Iterator[Any]:
    language_model = load_language_model(load, masked=True, fast=fast)
    for index, text in enumerate(texts):
        if language_model.is_masked and isinstance(text, str):
            text = with_own_mask(language_model.tokenizer, text)
        ids = prompt_ids(language_model.tokenizer, text, prompting)
        number = index if len(texts) > 1 else None
        yield from (replace(record, index=number) for record in answer(language_model, ids))


def _answer(
    language_model: LanguageModel, ids: list[int], query: NextTokenQuery
) -> Iterator[Candidate | Distribution]:
    if language_model.is_masked:
        return _mask_candidates(language_model, ids, query)
    if query.position == "all":
        return candidates_everywhere(language_model, ids, query)
    return _candidates(language_model, ids[: end_of(query.position, len(ids))], query)


def end_of(position: str | None, count: int) -> int:
    """Return how many of a prompt's `count` tokens to give to the model."""
    if position is None:
        return count
    try:
        number = int(position)
    except ValueError:
        raise UsageError(f"--position must be a whole number or 'all', not '{position}'") from None
    if not -count <= number < count:
        raise UsageError(f"--position {number}: the prompt has positions 0 to {count - 1}")
    return number % count + 1


def _candidates(
    language_model: LanguageModel, ids: Sequence[int], query: NextTokenQuery
) -> Iterator[Candidate | Distribution]:
    """Yield the candidates after `ids`, then the tokens of each continuation to look for.

    Raises:
        UsageError: the text of a continuation is empty.
        HftoolError: the ids do not fit the context.
    """
    tokenizer = language_model.tokenizer
    continuations = [tokenizer.encode(text, special=False).ids for text in query.texts]
    if not all(continuations):
        raise UsageError("--target: the text is empty")
    for continuation in continuations:
        language_model.require_known(continuation)
    ids, source = language_model.split_prompt(ids)
    language_model = language_model.reading(source)
    cached_model = CachedModel(language_model)
    single_tokens = [c[0] for c in continuations if len(c) == 1]
    settings = _settings(language_model, query)
    logits = cached_model.next_logits(ids)
    if query.page:
        prompt = tokenizer.decode(source or ids)
        yield distribution(language_model, logits.cpu(), prompt, len(ids) - 1, settings)
    yield from next_tokens(language_model, ids, query.k, single_tokens, settings, logits)
    for text, continuation in dict(zip(query.texts, continuations, strict=True)).items():
        _log_better_with_space(language_model, text, continuation, logits)
        if len(continuation) > 1:
            # The same logits: computed again, they would be rounded differently.
            yield from score_continuation(
                cached_model, language_model, ids, text, continuation, logits.cpu()
            )


def _settings(language_model: LanguageModel, query: NextTokenQuery) -> SamplingSettings | None:
    if query.sampling is None:
        return None
    return resolve_sampling(query.sampling, language_model.generation_config)


def _log_better_with_space(
    language_model: LanguageModel, text: str, ids: Sequence[int], logits: torch.Tensor
) -> None:
    """Log where the text with a space before it would rank, if it would rank better as a token.

    Args:
        logits: those after the prompt [vocabulary].
    """
    spaced = language_model.tokenizer.encode(f" {text}", special=False).ids
    if text[:1].isspace() or len(ids) != 1 or len(spaced) != 1 or spaced == ids:
        return
    ranks = [rank_of(logits.cpu(), i) for i in (*ids, *spaced)]
    if ranks[1] < ranks[0]:
        log.info('"%s" is not the token " %s", which has rank %d', text, text, ranks[1])


def candidates_everywhere(
    language_model: LanguageModel, ids: Sequence[int], query: NextTokenQuery
) -> Iterator[Candidate]:
    """Yield the candidates after each of `ids`, as `_candidates` does after the last."""
    if language_model.is_encoder_decoder:
        raise UsageError(
            f"{language_model.name} is an encoder-decoder: its prompt is a source, which it does"
            " not continue"
        )
    wanted = single_tokens(language_model, query, "with --position all a target")
    settings = _settings(language_model, query)
    end = 0
    for some in CachedModel(language_model).all_logits(ids):
        for logits in some:
            end += 1
            token = language_model.tokenizer.token_text(ids[end - 1])
            before = ids[:end]
            for found in next_tokens(language_model, before, query.k, wanted, settings, logits):
                yield replace(found, after=token)


def single_tokens(language_model: LanguageModel, query: NextTokenQuery, what: str) -> list[int]:
    """Return the ids of the texts to look for, each of which must be one token.

    Raises:
        UsageError: one is not.
    """
    ids = []
    for text in query.texts:
        encoded = language_model.tokenizer.encode(text, special=False).ids
        if len(encoded) != 1:
            raise UsageError(f"--target {text}: {what} is one token, and this is {len(encoded)}")
        ids += encoded
    language_model.require_known(ids)
    return ids


def _mask_candidates(
    language_model: LanguageModel, ids: Sequence[int], query: NextTokenQuery
) -> Iterator[Candidate | Distribution]:
    """Yield the candidates for each mask in `ids`, as `_candidates` does for the next token."""
    require_no_position(language_model, query)
    require_context(language_model, len(ids))
    wanted = single_tokens(language_model, query, "a mask")
    settings = _settings(language_model, query)
    for number, (position, logits) in enumerate(mask_logits(language_model, ids)):
        sampled = probs_after_filters(language_model, logits, ids, settings)
        logits = logits.cpu()
        if query.page:
            prompt = language_model.tokenizer.decode(ids)
            of_mask = distribution(language_model, logits, prompt, position, settings)
            yield replace(of_mask, mask=number)
        for candidate in rank_tokens(language_model, logits, position, query.k, wanted, sampled):
            yield replace(candidate, mask=number)


def require_no_position(language_model: LanguageModel, query: NextTokenQuery) -> None:
    """Raise where a position is named for a masked model, whose masks are the positions.

    Raises:
        UsageError: with what to do instead.
    """
    if query.position is not None:
        raise UsageError(
            f"{language_model.name} is a masked model: --position needs one that continues texts",
            "put its mask token in the place of the token to predict",
        )

"""Build the filters for a text: those of the options, and those that only the model's
generation_config asks for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from hftool.errors import HftoolError, exclude, is_little_memory, raised_by_us
from hftool.generation.constraint_state import ConstraintProcessor, constraint_state
from hftool.generation.drawing import are_finite
from hftool.generation.samplers import (
    EachRow,
    RowFilter,
    dry,
    exclude_top_choices,
    keep_top_n_sigma,
    penalize_frequency,
    penalize_presence,
    step_number,
)
from hftool.generation.sampling import Filter, SamplingSettings, ordered, own_filters
from hftool.generation.text_bias import BannedTexts, banned_texts, biases, dry_breakers
from hftool.generation.thought_budget import ThoughtBudget
from hftool.models.language_model import LanguageModel
from hftool.tokenization.tokenizer import Tokenizer


def build_filters(
    settings: SamplingSettings,
    language_model: LanguageModel,
    prompt_ids: Sequence[int],
    limit: int | None = None,
) -> list[Filter]:
    """Return the filters that the settings turn on, in the order in which they are applied.

    Args:
        prompt_ids: the tokens before the generated ones.
        limit: the number of tokens to generate; None if another one always follows.

    Raises:
        UsageError: the tokenizer has no tokens for a text.
        HftoolError: a value of the generation_config is one that transformers does not accept.
    """
    filters = [
        *own_filters(settings),
        *_penalties(settings, language_model.tokenizer, len(prompt_ids)),
        *_cutoffs(settings, len(prompt_ids)),
        *_of_texts(settings, language_model, len(prompt_ids)),
        *_of_thoughts(settings, language_model.tokenizer, prompt_ids),
        *_of_the_end(settings, language_model, len(prompt_ids)),
        *_of_config(settings, language_model, prompt_ids, limit),
        *_of_constraint(settings, language_model, prompt_ids),
    ]
    return ordered(filters, settings.samplers)


def _penalties(
    settings: SamplingSettings, tokenizer: Tokenizer, prompt_length: int
) -> Iterator[Filter]:
    """Yield the penalties for repetition that transformers does not have."""
    if presence := settings.presence_penalty:
        yield _by_row(
            "presence_penalty",
            lambda ids, logits: penalize_presence(ids[prompt_length:], logits, presence),
        )
    if frequency := settings.frequency_penalty:
        yield _by_row(
            "frequency_penalty",
            lambda ids, logits: penalize_frequency(ids[prompt_length:], logits, frequency),
        )
    if settings.dry_multiplier:
        how = (settings.dry_multiplier, settings.dry_base, settings.dry_allowed_length)
        breakers = dry_breakers(tokenizer)
        yield _by_row("dry", lambda ids, logits: dry(ids, logits, *how, breakers))


def _cutoffs(settings: SamplingSettings, prompt_length: int) -> Iterator[Filter]:
    """Yield the filters of less or of more probable tokens that transformers does not have."""
    n, threshold, seed = settings.top_n_sigma, settings.xtc_threshold, settings.seed
    if n:
        yield Filter("top_n_sigma", EachRow(lambda ids, logits: keep_top_n_sigma(logits, n)))
    if settings.xtc_probability and seed is not None:

        def exclude(ids: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
            happens = step_number(seed, len(ids) - prompt_length) < settings.xtc_probability
            return exclude_top_choices(logits, threshold) if happens else logits

        yield _by_row("xtc", exclude)


def _of_texts(
    settings: SamplingSettings, language_model: LanguageModel, prompt_length: int
) -> Iterator[Filter]:
    """Yield the filters of `--bias` and `--ban`."""
    tokenizer = language_model.tokenizer
    if settings.bias:
        from transformers import SequenceBiasLogitsProcessor

        known: Any = known_biases(settings, language_model)
        yield Filter("bias", SequenceBiasLogitsProcessor(known), reads_ids=True)
    if settings.ban:
        texts = banned_texts(tokenizer, settings.ban, any_case=settings.any_case)
        yield Filter("ban", BannedTexts(tokenizer, texts, prompt_length), reads_ids=True)


def known_biases(
    settings: SamplingSettings, language_model: LanguageModel
) -> dict[tuple[int, ...], float]:
    """Return the biases of those tokens that the model has.

    Raises:
        HftoolError: it has none of them.
    """
    given = biases(language_model.tokenizer, settings.bias, any_case=settings.any_case)
    known = {ids: bias for ids, bias in given.items() if max(ids) < language_model.embedding_rows}
    if not known:
        language_model.require_known([i for ids in given for i in ids])
    return known


def _of_thoughts(
    settings: SamplingSettings, tokenizer: Tokenizer, prompt_ids: Sequence[int]
) -> Iterator[Filter]:
    """Yield the filter that ends the model's reasoning."""
    if settings.think_tokens is not None:
        budget = ThoughtBudget(tokenizer, prompt_ids, settings.think_tokens)
        yield _by_row("think_tokens", budget)


def _of_the_end(
    settings: SamplingSettings, language_model: LanguageModel, prompt_length: int
) -> Iterator[Filter]:
    """Yield the filters that keep a text from ending."""
    ends = sorted(i for i in language_model.end_ids if i < language_model.embedding_rows)
    if not ends or not (settings.min_new_tokens or settings.ignore_eos):
        return
    import transformers

    device = language_model.model.device
    if settings.min_new_tokens:
        make: Any = transformers.MinNewTokensLengthLogitsProcessor
        processor = make(prompt_length, settings.min_new_tokens, ends, device=device)
        yield Filter("min_new_tokens", processor, reads_ids=True)
    if settings.ignore_eos:
        make = transformers.SuppressTokensLogitsProcessor
        yield Filter("ignore_eos", make(ends, device=device))


def _of_constraint(
    settings: SamplingSettings, language_model: LanguageModel, prompt_ids: Sequence[int]
) -> Iterator[Filter]:
    """Yield the filter of what a constraint does not allow."""
    state = constraint_state(settings, language_model, prompt_ids)
    if state is not None:
        exclude({f"--{state.constraint.kind}": True, "--ignore-eos": settings.ignore_eos})
        processor = ConstraintProcessor(state, len(prompt_ids))
        yield Filter(state.constraint.kind, processor, reads_ids=True)


def _by_row(name: str, function: RowFilter) -> Filter:
    return Filter(name, EachRow(function), reads_ids=True)


def _of_config(
    settings: SamplingSettings,
    language_model: LanguageModel,
    prompt_ids: Sequence[int],
    limit: int | None,
) -> Iterator[Filter]:
    """Yield the filters that only the model's generation_config asks for."""
    if not settings.further:
        return
    if settings.constraint is not None:
        limit = None  # an end that is forced would cut off the text
    from hftool.generation.processors import named_processors  # imports much of transformers

    with config_errors():
        named = named_processors(
            language_model, settings.further, prompt_ids, limit, sampled=not settings.greedy
        )
    for name, processor in named:
        yield _ConfigFilter(name, processor, reads_ids=True)


@dataclass(frozen=True)
class _ConfigFilter(Filter):
    """A filter whose values come from a model's generation_config, so that they may fit nothing."""

    def __call__(self, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        with config_errors():
            scores = super().__call__(ids, logits)
        if not bool(are_finite(scores).all()):
            does = "leaves no token" if bool(torch.isneginf(scores).all()) else "is not finite"
            raise HftoolError(f"{self.name} of the model's generation_config {does}")
        return scores


@contextmanager
def config_errors() -> Iterator[None]:
    """Report what transformers raises about a value of a model's generation_config.

    Raises:
        HftoolError: with the cause.
    """
    try:
        yield
    except HftoolError:
        raise
    except Exception as error:  # any kind, by the type of the value
        if is_little_memory(error) or raised_by_us(error):
            raise
        raise HftoolError(
            "the model's generation_config has a value that no sampling filter accepts:"
            f" {' '.join(str(error).split())[:300]}",
            "correct its generation_config.json, or override it with an option",
        ) from error

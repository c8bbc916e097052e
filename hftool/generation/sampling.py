"""Settle the sampling settings, and filter the logits.

The filters are transformers' own logits processors, in the order in which its `generate` applies
them (transformers 5.23, `GenerationMixin._get_logits_processor`): repetition penalty and no-repeat
n-gram, then, when sampling, temperature, top-k, top-p, min-p and typical-p. Between them are those
that only a model's generation_config asks for (`hftool.generation.processors`). Each filter works
on what the filters before it left, with probabilities that sum to 1 again. docs/sampling.md follows
a token through all of them.
"""

import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from hftool.errors import HftoolError, UsageError
from hftool.models.generation_config import PROCESSOR_FIELDS, has_effect
from hftool.options.generation import SamplingOptions

if TYPE_CHECKING:
    from transformers import LogitsProcessor

DEFAULT_TOP_K = 50  # transformers, GenerationConfig._get_default_generation_params

_DRAWING_FIELDS = ("top_h", "epsilon_cutoff", "eta_cutoff")

LEAST_TEMPERATURE = 1e-6  # lower values mean greedy: dividing the logits by less can overflow


@dataclass(frozen=True)
class SamplingSettings:
    """The resolved settings: the user's options, completed by the model's generation_config.

    A filter at its neutral value (temperature 1, top-k 0, …) is off. `seed` is None when greedy.
    `further` has the fields of the generation_config that change the logits and are not options,
    such as `suppress_tokens`.
    """

    greedy: bool
    seed: int | None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    further: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Filter:
    """A logits processor and its name."""

    name: str
    processor: "LogitsProcessor"

    def __call__(self, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return logits [sequences, vocabulary] after the filter.

        Args:
            ids: the tokens so far [sequences, tokens].
        """
        return self.processor(ids, logits)  # type: ignore[no-any-return]


def resolve_sampling(options: SamplingOptions, config: Mapping[str, Any]) -> SamplingSettings:
    """Complete the options by a model's generation_config, and draw a seed if none is given.

    hftool samples unless `--greedy`, temperature 0, or a generation_config with
    `"do_sample": false` turns sampling off.

    Raises:
        UsageError: an option has a value that no filter accepts.
        HftoolError: the generation_config has such a value.
    """
    penalty = options.repetition_penalty
    if penalty is not None and not 0 < penalty < math.inf:
        raise UsageError("--repetition-penalty must be above 0")
    try:
        settings = _complete(options, config)
        own_filters(settings)  # the filters check their values
    except (TypeError, ValueError, OverflowError) as error:
        raise HftoolError(
            f"the model's generation_config has a value that no sampling filter accepts: {error}",
            "override it with an option on the command line",
        ) from None
    return settings


def _complete(options: SamplingOptions, config: Mapping[str, Any]) -> SamplingSettings:
    def value(name: str, neutral: Any) -> Any:
        option = getattr(options, name)
        given = config.get(name) if option is None else option
        if given is not None and (type(given) not in (int, float) or math.isnan(given)):
            raise TypeError(f"{name} is {str(given)[:40]!r}")
        return neutral if given is None else given

    greedy = options.greedy
    if not greedy and (temperature := value("temperature", 1.0)) < LEAST_TEMPERATURE:
        if temperature < 0:
            raise ValueError(f"temperature is {temperature}")
        greedy = True
    drawing = (options.temperature, options.top_k, options.top_p, options.min_p, options.typical_p)
    if config.get("do_sample") is False and options.seed is None and drawing == (None,) * 5:
        greedy = True
    settings = SamplingSettings(
        greedy=greedy,
        seed=None,
        repetition_penalty=value("repetition_penalty", 1.0),
        no_repeat_ngram_size=value("no_repeat_ngram_size", 0),
        further={
            name: config[name]
            for name, neutral in PROCESSOR_FIELDS.items()
            if has_effect(config.get(name), neutral) and not (greedy and name in _DRAWING_FIELDS)
        },
    )
    if greedy:
        return settings
    return replace(
        settings,
        seed=secrets.randbits(32) if options.seed is None else options.seed,
        temperature=value("temperature", 1.0),
        top_k=value("top_k", DEFAULT_TOP_K),
        top_p=value("top_p", 1.0),
        min_p=value("min_p", 0.0),
        typical_p=value("typical_p", 1.0),
    )


def own_filters(settings: SamplingSettings) -> list[Filter]:
    """Return the filters of hftool's own options that the settings turn on, in transformers' order.

    Raises:
        TypeError, ValueError: a filter does not accept its value.
    """
    active: list[tuple[str, str, float]] = []
    if settings.repetition_penalty != 1.0:
        penalty = settings.repetition_penalty
        active.append(("repetition_penalty", "RepetitionPenaltyLogitsProcessor", penalty))
    if settings.no_repeat_ngram_size > 0:
        size = settings.no_repeat_ngram_size
        active.append(("no_repeat_ngram", "NoRepeatNGramLogitsProcessor", size))
    if not settings.greedy:
        if settings.temperature != 1.0:
            active.append(("temperature", "TemperatureLogitsWarper", float(settings.temperature)))
        if settings.top_k > 0:
            active.append(("top_k", "TopKLogitsWarper", settings.top_k))
        if settings.top_p < 1.0:
            active.append(("top_p", "TopPLogitsWarper", float(settings.top_p)))
        if settings.min_p > 0.0:
            active.append(("min_p", "MinPLogitsWarper", float(settings.min_p)))
        if 0.0 < settings.typical_p < 1.0:
            active.append(("typical_p", "TypicalLogitsWarper", float(settings.typical_p)))
    if not active:
        return []
    import transformers  # slow to import, and often not needed

    return [Filter(name, getattr(transformers, kind)(value)) for name, kind, value in active]


def apply_filters_in_turn(
    logits: torch.Tensor, ids: Sequence[int], filters: Sequence[Filter]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each filter's name and the logits [vocabulary] after it, -inf for removed tokens.

    Args:
        logits: float32 [vocabulary].
        ids: all tokens so far, for the penalties.
    """
    scores = logits[None]
    sequence = torch.tensor([list(ids)], device=logits.device)
    for item in filters:
        scores = item(sequence, scores)
        yield item.name, scores[0]


def apply_filters(
    logits: torch.Tensor, ids: Sequence[int], filters: Sequence[Filter]
) -> torch.Tensor:
    """Return the logits after all filters. Args: as `apply_filters_in_turn`."""
    for _, after in apply_filters_in_turn(logits, ids, filters):
        logits = after
    return logits

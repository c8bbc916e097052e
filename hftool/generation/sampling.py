"""Choose the next token: filter the logits, then draw.

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


def sampled_probs(scores: torch.Tensor, settings: SamplingSettings) -> torch.Tensor:
    """Return each token's probability of being chosen: float64 [vocabulary].

    Args:
        scores: the logits after the filters [vocabulary].
    """
    if settings.greedy:
        return torch.nn.functional.one_hot(scores.argmax(), len(scores)).double()
    return torch.softmax(scores.double(), dim=-1)


@dataclass(frozen=True)
class Draw:
    """A token and the random number that chose it, uniform in [0, 1).

    The token is the first one, from the most probable down, at which the cumulative probability
    exceeds the number.
    """

    id: int
    uniform: float


class Sampler:
    """Draws tokens. The same seed gives the same draws on every device."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, probs: torch.Tensor) -> Draw:
        """Draw a token from probabilities [vocabulary]; equally probable ones are ordered by id."""
        uniform = torch.rand((), generator=self._generator, dtype=torch.float64)
        probs = probs.cpu().double()
        ids = probs.nonzero()[:, 0]
        ordered, order = probs[ids].sort(descending=True, stable=True)
        cumulative = ordered.cumsum(0)
        # The probabilities may not sum to exactly 1.
        index = int(torch.searchsorted(cumulative, uniform * cumulative[-1], right=True))
        return Draw(int(ids[order[min(index, len(ids) - 1)]]), float(uniform))


def sample_batch(
    logits: torch.Tensor,
    sequences: Sequence[list[int]],
    settings: Sequence[SamplingSettings],
    filters: Sequence[list[Filter]],
    samplers: Sequence[Sampler | None],
) -> list[int]:
    """Return the next token of each of several sequences.

    Args:
        logits: float32 [sequences, vocabulary].
        sequences: the tokens of each sequence so far, for the penalties.
        filters: those of each sequence's settings.
        samplers: one for each sequence, None for a greedy one.
    """
    chosen = [0] * len(settings)
    same_settings: dict[SamplingSettings, list[int]] = {}
    for row, setting in enumerate(settings):
        same_settings.setdefault(replace(setting, seed=None), []).append(row)
    for setting, rows in same_settings.items():
        scores = _filter_rows(
            logits[rows], [sequences[row] for row in rows], setting, [filters[row] for row in rows]
        )
        if setting.greedy:
            for row, best in zip(rows, scores.argmax(-1).tolist(), strict=True):
                chosen[row] = best
            continue
        for row, probs in zip(rows, torch.softmax(scores, dim=-1), strict=True):
            sampler = samplers[row]
            assert sampler is not None  # a sequence that is not greedy has a seed
            chosen[row] = sampler.draw(probs).id
    return chosen


def _filter_rows(
    logits: torch.Tensor,
    sequences: Sequence[list[int]],
    settings: SamplingSettings,
    filters: Sequence[list[Filter]],
) -> torch.Tensor:
    """Return logits [sequences, vocabulary] after the filters."""
    if settings.repetition_penalty != 1.0 or settings.no_repeat_ngram_size or settings.further:
        # These look at the tokens, and the sequences differ in length.
        rows = zip(logits, sequences, filters, strict=True)
        return torch.stack([apply_filters(*row) for row in rows])
    ids = torch.zeros(len(sequences), 0, dtype=torch.long)
    for item in filters[0]:
        logits = item(ids, logits)
    return logits


def are_finite(logits: torch.Tensor) -> torch.Tensor:
    """Return whether logits [..., vocabulary] are usable: without NaN, the largest one finite.

    The result is bool [...].
    """
    return torch.isfinite(logits.amax(-1))  # the maximum is NaN where any logit is


def check_finite(logits: torch.Tensor, dtype: torch.dtype) -> None:
    """Raise where the model's logits are not numbers, as when float16 overflows.

    Raises:
        HftoolError: a logit is NaN, or the largest one is not finite.
    """
    if not bool(are_finite(logits).all()):
        broken = "its weights may be broken: use another checkpoint"
        raise HftoolError(
            f"the model's logits are not numbers (in {str(dtype).removeprefix('torch.')})",
            broken
            if dtype == torch.float32
            else f"try --dtype float32; if that does not help, {broken}",
        )

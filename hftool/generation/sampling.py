"""How the next token is chosen: filters over the logits, and the draw.

The filters are transformers' own logits processors in the order in which `generate` applies them
(transformers 5.23, `GenerationMixin._get_logits_processor`): repetition penalty, no-repeat n-gram,
then for sampling temperature, top-k, top-p, min-p, typical-p. Each sees what those before it left,
its probabilities summing up to 1 again; docs/sampling.md follows a token through all of them.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from hftool.errors import HftoolError, UsageError
from hftool.options.generation import SamplingOptions

if TYPE_CHECKING:
    from transformers import LogitsProcessor

DEFAULT_TOP_K = 50  # transformers, GenerationConfig._get_default_generation_params

LEAST_TEMPERATURE = 1e-6  # below it is greedy: logits divided by less can become infinite


@dataclass(frozen=True)
class SamplingSettings:
    """The settings in force: options, completed by the model's generation_config.

    A filter at its neutral value (temperature 1, top-k 0, …) is off. `seed` is None when greedy.
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


@dataclass(frozen=True)
class Filter:
    """A named logits processor."""

    name: str
    processor: "LogitsProcessor"


def resolve_sampling(options: SamplingOptions, config: Mapping[str, Any]) -> SamplingSettings:
    """Complete the options by a model's generation_config; without a seed one is drawn.

    hftool samples unless it is told not to: by `--greedy`, by temperature 0, or by a
    generation_config that says `"do_sample": false`.

    Raises:
        UsageError: a value no filter can work with.
        HftoolError: such a value in the generation_config.
    """
    try:
        settings = _completed(options, config)
        filters(settings)  # they check their values
    except (TypeError, ValueError, OverflowError) as error:
        raise HftoolError(
            f"the model's generation_config has a value no sampling filter takes: {error}",
            "an option on the command line comes before it",
        ) from None
    return settings


def _completed(options: SamplingOptions, config: Mapping[str, Any]) -> SamplingSettings:
    def value(name: str, neutral: Any) -> Any:
        asked = getattr(options, name)
        given = config.get(name) if asked is None else asked
        if given is not None and type(given) not in (int, float):
            raise TypeError(f"{name} is {str(given)[:40]!r}")
        return neutral if given is None else given

    cold = options.temperature is not None and options.temperature < LEAST_TEMPERATURE
    greedy = options.greedy or cold
    asked = (options.temperature, options.top_k, options.top_p, options.min_p, options.typical_p)
    if config.get("do_sample") is False and options.seed is None and asked == (None,) * 5:
        greedy = True
    settings = SamplingSettings(
        greedy=greedy,
        seed=None,
        repetition_penalty=value("repetition_penalty", 1.0),
        no_repeat_ngram_size=value("no_repeat_ngram_size", 0),
    )
    if settings.repetition_penalty <= 0:
        raise UsageError("--repetition-penalty must be above 0")
    if greedy:
        return settings
    return replace(
        settings,
        seed=secrets.randbits(32) if options.seed is None else options.seed,
        temperature=value("temperature", 1.0) or 1.0,
        top_k=value("top_k", DEFAULT_TOP_K),
        top_p=value("top_p", 1.0),
        min_p=value("min_p", 0.0),
        typical_p=value("typical_p", 1.0),
    )


def filters(settings: SamplingSettings) -> list[Filter]:
    """The filters that are on, in transformers' order."""
    on: list[tuple[str, str, float]] = []
    if settings.repetition_penalty != 1.0:
        penalty = settings.repetition_penalty
        on.append(("repetition_penalty", "RepetitionPenaltyLogitsProcessor", penalty))
    if settings.no_repeat_ngram_size > 0:
        size = settings.no_repeat_ngram_size
        on.append(("no_repeat_ngram", "NoRepeatNGramLogitsProcessor", size))
    if not settings.greedy:
        if settings.temperature != 1.0:
            on.append(("temperature", "TemperatureLogitsWarper", float(settings.temperature)))
        if settings.top_k > 0:
            on.append(("top_k", "TopKLogitsWarper", settings.top_k))
        if settings.top_p < 1.0:
            on.append(("top_p", "TopPLogitsWarper", float(settings.top_p)))
        if settings.min_p > 0.0:
            on.append(("min_p", "MinPLogitsWarper", float(settings.min_p)))
        if 0.0 < settings.typical_p < 1.0:
            on.append(("typical_p", "TypicalLogitsWarper", float(settings.typical_p)))
    if not on:
        return []
    import transformers  # takes a while

    return [Filter(name, getattr(transformers, kind)(value)) for name, kind, value in on]


def stages(
    logits: torch.Tensor, ids: Sequence[int], chain: Sequence[Filter]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The name of each filter and the logits after it, -inf for what it or one before removed.

    Args:
        logits: float32 [vocabulary].
        ids: all tokens so far, for the penalties.
    """
    scores = logits[None]
    seen = torch.tensor([list(ids)], device=logits.device)
    for item in chain:
        scores = item.processor(seen, scores)
        yield item.name, scores[0]


def filtered(logits: torch.Tensor, ids: Sequence[int], chain: Sequence[Filter]) -> torch.Tensor:
    """Logits after all filters. Args: as `stages`."""
    for _, after in stages(logits, ids, chain):
        logits = after
    return logits


def sampled_probs(scores: torch.Tensor, settings: SamplingSettings) -> torch.Tensor:
    """The probabilities a token is chosen with, from logits after the filters [vocabulary]."""
    if settings.greedy:
        return torch.nn.functional.one_hot(scores.argmax(), len(scores)).double()
    return torch.softmax(scores.double(), dim=-1)


@dataclass(frozen=True)
class Draw:
    """A token drawn by the number `drawn` in [0, 1): the first, from the most probable down, at
    which the cumulative probability exceeds it."""

    id: int
    drawn: float


class Sampler:
    """Draws tokens; the same seed gives the same draws, on every device."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, probs: torch.Tensor) -> Draw:
        """Draw from probabilities [vocabulary]; equal ones are ordered by id."""
        number = torch.rand((), generator=self._generator, dtype=torch.float64)
        kept = probs.cpu().double()
        ids = kept.nonzero()[:, 0]
        ordered, order = kept[ids].sort(descending=True, stable=True)
        cumulative = ordered.cumsum(0)
        place = int(torch.searchsorted(cumulative, number * cumulative[-1], right=True))
        return Draw(int(ids[order[min(place, len(ids) - 1)]]), float(number))


def sample_batch(
    logits: torch.Tensor,
    known: Sequence[list[int]],
    settings: Sequence[SamplingSettings],
    samplers: Sequence[Sampler | None],
) -> list[int]:
    """The next token of each of several sequences; a `Sampler` belongs to each that is sampled.

    Args:
        logits: float32 [sequences, vocabulary].
        known: the tokens of each so far, for the penalties.
    """
    chosen = [0] * len(settings)
    alike: dict[SamplingSettings, list[int]] = {}
    for row, setting in enumerate(settings):
        alike.setdefault(replace(setting, seed=None), []).append(row)
    for setting, rows in alike.items():
        scores = _filtered_rows(logits[rows], [known[row] for row in rows], setting)
        if setting.greedy:
            for row, best in zip(rows, scores.argmax(-1).tolist(), strict=True):
                chosen[row] = best
            continue
        for row, probs in zip(rows, torch.softmax(scores, dim=-1), strict=True):
            sampler = samplers[row]
            assert sampler is not None  # what is not greedy has a seed
            chosen[row] = sampler.draw(probs).id
    return chosen


def _filtered_rows(
    logits: torch.Tensor, known: Sequence[list[int]], settings: SamplingSettings
) -> torch.Tensor:
    """Logits [sequences, vocabulary] after the filters, at once where none looks at the tokens."""
    chain = filters(settings)
    if settings.repetition_penalty != 1.0 or settings.no_repeat_ngram_size:
        rows = zip(logits, known, strict=True)
        return torch.stack([filtered(row, ids, chain) for row, ids in rows])
    ids = torch.zeros(len(known), 0, dtype=torch.long)
    for item in chain:
        logits = item.processor(ids, logits)
    return logits


def are_finite(logits: torch.Tensor) -> torch.Tensor:
    """Whether logits [..., vocabulary] are numbers: none NaN, and the largest finite [...]."""
    return torch.isfinite(logits.amax(-1))  # a NaN is the largest


def check_finite(logits: torch.Tensor, dtype: torch.dtype) -> None:
    """Raise where the model gave numbers that are none (NaN), as float16 does when it overflows.

    Raises:
        HftoolError: a logit is NaN, or none is finite.
    """
    if not bool(are_finite(logits).all()):
        raise HftoolError(
            f"the model's logits are not numbers (in {str(dtype).removeprefix('torch.')})",
            "try --dtype float32",
        )

"""The sampling settings, and the filters that they turn on.

The filters are transformers' own logits processors where it has them, in the order in which its
`generate` applies them (transformers 5.24, `GenerationMixin._get_logits_processor`), with those of
`hftool.generation.samplers` and those that only a model's generation_config asks for
(`hftool.generation.processors`) between them. Each filter works on what the filters before it left,
with probabilities that sum to 1 again. docs/sampling.md follows a token through all of them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from hftool.options.constraints import CONSTRAINTS, Constraint

PENALTIES = ("repetition_penalty", "frequency_penalty", "presence_penalty")
DRAWING = (
    *("top_n_sigma", "temperature", "top_h", "top_k", "top_p", "min_p", "typical_p"),
    *("epsilon_cutoff", "eta_cutoff", "xtc"),
)
"""The filters that only matter when tokens are drawn."""
SAMPLERS = (*PENALTIES, "dry", "no_repeat_ngram", *DRAWING)
"""The filters that `--samplers` puts in order."""
FILTER_ORDER = (
    *("guidance_scale", "sequence_bias", "bias", "encoder_repetition_penalty", *PENALTIES, "dry"),
    *("no_repeat_ngram", "encoder_no_repeat_ngram_size", "bad_words_ids", "ban", "min_length"),
    *("min_new_tokens", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values"),
    *("exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens"),
    *(
        "ignore_eos",
        "think_tokens",
        *CONSTRAINTS,
        *DRAWING,
        "watermarking_config",
        "renormalize_logits",
    ),
)
"""All filters in the order in which they are applied."""
FIELDS = {
    **{name: name for name in SAMPLERS},
    **{"dry": "dry_multiplier", "xtc": "xtc_probability"},
    "no_repeat_ngram": "no_repeat_ngram_size",
}
"""The field of the settings that turns each filter on."""


@dataclass(frozen=True)
class SamplingSettings:
    """The resolved settings: the user's options, completed by the model's generation_config.

    A filter at its neutral value (temperature 1, top-k 0, …) is off. `seed` is None when greedy.
    `samplers` is the order of the filters if it is not the usual one. `further` has the fields of
    the generation_config that change the logits and are not options, such as `suppress_tokens`.
    `constraint` is what the text must look like.
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
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75  # as in llama.cpp, like the other two defaults
    dry_allowed_length: int = 2
    top_n_sigma: float = 0.0
    top_h: float = 0.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    samplers: tuple[str, ...] = ()
    bias: tuple[str, ...] = ()
    ban: tuple[str, ...] = ()
    any_case: bool = False
    min_new_tokens: int = 0
    ignore_eos: bool = False
    think_tokens: int | None = None
    further: Mapping[str, Any] = field(default_factory=dict, hash=False)
    constraint: Constraint | None = None


@dataclass(frozen=True)
class Filter:
    """A logits processor and its name.

    Attributes:
        reads_ids: what it does depends on the tokens so far, or on their number.
    """

    name: str
    processor: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    reads_ids: bool = False

    def __call__(self, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return logits [sequences, vocabulary] after the filter.

        Args:
            ids: the tokens so far [sequences, tokens].
        """
        return self.processor(ids, logits)


_TRANSFORMERS = {
    "repetition_penalty": "RepetitionPenaltyLogitsProcessor",
    "no_repeat_ngram": "NoRepeatNGramLogitsProcessor",
    "temperature": "TemperatureLogitsWarper",
    "top_h": "TopHLogitsWarper",
    "top_k": "TopKLogitsWarper",
    "top_p": "TopPLogitsWarper",
    "min_p": "MinPLogitsWarper",
    "typical_p": "TypicalLogitsWarper",
    "epsilon_cutoff": "EpsilonLogitsWarper",
    "eta_cutoff": "EtaLogitsWarper",
}


_BELOW_1 = ("typical_p", "epsilon_cutoff", "eta_cutoff")  # which are off at 1 and beyond


def own_filters(settings: SamplingSettings) -> list[Filter]:
    """Return those of transformers' filters that the settings turn on, in transformers' order.

    Raises:
        TypeError, ValueError: a filter does not accept its value.
    """
    active: list[tuple[str, str, float]] = []
    for name, kind in _TRANSFORMERS.items():
        value = getattr(settings, FIELDS[name])
        if _is_on(name, value) and not (settings.greedy and name in DRAWING):
            whole = name in ("no_repeat_ngram", "top_k")
            active.append((name, kind, value if whole else float(value)))
    if not active:
        return []
    import transformers  # slow to import, and often not needed

    return [
        Filter(name, getattr(transformers, kind)(value), reads_ids=name not in DRAWING)
        for name, kind, value in active
    ]


def _is_on(name: str, value: float) -> bool:
    if name in ("repetition_penalty", "temperature"):
        return value != 1.0
    if name == "top_p":
        return value < 1.0
    return 0.0 < value < 1.0 if name in _BELOW_1 else value > 0


def ordered(filters: Iterable[Filter], samplers: Sequence[str]) -> list[Filter]:
    """Return filters in the order in which they are applied.

    Args:
        samplers: the order of those in `SAMPLERS`, if it is not the usual one.
    """
    by_name = {item.name: item for item in filters}
    order: Sequence[str] = FILTER_ORDER
    if samplers:
        others = [name for name in FILTER_ORDER if name not in SAMPLERS]
        last = others.index("watermarking_config")
        order = [*others[:last], *samplers, *others[last:]]
    return [by_name[name] for name in order if name in by_name]


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
    """Return the logits [vocabulary] after all filters. Args: as `apply_filters_in_turn`."""
    for _, after in apply_filters_in_turn(logits, ids, filters):
        logits = after
    return logits

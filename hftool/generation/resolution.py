"""Settle the sampling settings: the user's options, completed by what the model's files say."""

import math
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hftool.errors import HftoolError, UsageError
from hftool.generation.sampling import (
    DRAWING,
    FIELDS,
    PENALTIES,
    SAMPLERS,
    SamplingSettings,
    own_filters,
)
from hftool.generation.text_bias import parse_bias
from hftool.models.generation_config import PROCESSOR_FIELDS, has_effect
from hftool.options.sampling import SamplingOptions

DEFAULT_TOP_K = 50  # transformers, GenerationConfig._get_default_generation_params

_LLAMA_CPP = {"penalties": PENALTIES, "typ_p": ("typical_p",), "temp": ("temperature",)}
"""Names of llama.cpp's that `--samplers` takes too."""
LEAST_TEMPERATURE = 1e-6  # lower values mean greedy: dividing the logits by less can overflow


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
    return _steered(settings, options)


def _complete(options: SamplingOptions, config: Mapping[str, Any]) -> SamplingSettings:
    def value(name: str, neutral: Any) -> Any:
        option = getattr(options, name, None)
        given = config.get(name) if option is None else option
        if given is not None and (type(given) not in (int, float) or math.isnan(given)):
            raise TypeError(f"{name} is {str(given)[:40]!r}")
        return neutral if given is None else given

    def values(names: Sequence[str]) -> dict[str, Any]:
        return {name: value(name, getattr(SamplingSettings, name)) for name in names}

    greedy = options.greedy
    if not greedy and (temperature := value("temperature", 1.0)) < LEAST_TEMPERATURE:
        if temperature < 0:
            raise ValueError(f"temperature is {temperature}")
        greedy = True
    asked = any(getattr(options, FIELDS[name]) is not None for name in DRAWING)
    if config.get("do_sample") is False and options.seed is None and not asked:
        greedy = True
    settings = SamplingSettings(
        greedy=greedy,
        seed=None,
        **values(("repetition_penalty", "no_repeat_ngram_size")),
        further={
            name: config[name]
            for name, neutral in PROCESSOR_FIELDS.items()
            if has_effect(config.get(name), neutral)
        },
    )
    if greedy:
        return settings
    names = [name for name in DRAWING if name not in ("top_k", "top_n_sigma", "xtc")]
    return replace(
        settings,
        seed=secrets.randbits(32) if options.seed is None else options.seed,
        top_k=value("top_k", DEFAULT_TOP_K),
        **values(names),
    )


def _steered(settings: SamplingSettings, options: SamplingOptions) -> SamplingSettings:
    """Add what only options can ask for, and the order of the filters.

    Raises:
        UsageError: a bias or a list of samplers cannot be read, or an option has no effect.
    """
    needed = {"dry_base": "dry_multiplier", "dry_allowed_length": "dry_multiplier"}
    for name, other in {**needed, "xtc_threshold": "xtc_probability"}.items():
        if getattr(options, name) is not None and getattr(options, other) is None:
            raise UsageError(f"{_written(name)} has no effect without {_written(other)}")
    if options.any_case and not (options.bias or options.ban):
        raise UsageError("--any-case has no effect without --bias or --ban")
    if "" in (options.ban or ()):
        raise UsageError("a banned text is empty")
    for item in options.bias or ():
        parse_bias(item)
    names = ["presence_penalty", "frequency_penalty", "min_new_tokens", "ignore_eos", "any_case"]
    names += ["think_tokens"]
    names += ["dry_multiplier", *needed]
    if not settings.greedy:
        names += ["top_n_sigma", "xtc_probability", "xtc_threshold"]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    further = dict(settings.further)
    if options.min_new_tokens is not None:
        further.pop("min_new_tokens", None)
        further.pop("min_length", None)
    bias, ban = tuple(options.bias or ()), tuple(options.ban or ())
    settings = replace(settings, **given, bias=bias, ban=ban, further=further)
    if options.samplers is None:
        return settings
    samplers = parse_samplers(options.samplers)
    left_out = [name for name in SAMPLERS if name not in samplers]
    for name in left_out:
        if getattr(options, FIELDS[name]) is not None:
            raise UsageError(
                f"{_written(FIELDS[name])} was given, but --samplers leaves out {name}"
            )
    neutral = {FIELDS[name]: getattr(SamplingSettings, FIELDS[name]) for name in left_out}
    return replace(settings, **neutral, samplers=samplers)


def _written(name: str) -> str:
    return "--" + name.replace("_", "-")


def parse_samplers(text: str) -> tuple[str, ...]:
    """Return the filters of a list, separated by semicolons, commas or spaces.

    Raises:
        UsageError: a name is unknown or comes twice, or there is none.
    """
    given = [name.replace("-", "_") for name in re.split(r"[;,\s]+", text.lower()) if name]
    names = [name for item in given for name in _LLAMA_CPP.get(item, (item,))]
    unknown = [name for name in names if name not in SAMPLERS]
    if not names or unknown:
        raise UsageError(
            f"unknown sampler '{unknown[0][:40]}'" if unknown else "--samplers has no names",
            f"they are {', '.join(SAMPLERS)}; penalties stands for the first three",
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"--samplers has {twice} twice")
    return tuple(names)

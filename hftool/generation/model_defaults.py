"""Complete the options for generated text by what the model's generation_config says."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hftool.errors import HftoolError, UsageError
from hftool.models.generation_config import PROCESSOR_FIELDS, UNUSED_FIELDS, has_effect
from hftool.models.language_model import LanguageModel
from hftool.options.constraints import Constraint
from hftool.options.generation import GenerationOptions
from hftool.options.ranges import option_ranges

log = logging.getLogger("hftool")

_NEUTRAL = {"num_beams": 1, "length_penalty": 1.0, "num_return_sequences": 1}


def complete_options(options: GenerationOptions, config: Mapping[str, Any]) -> GenerationOptions:
    """Return the options with values for all that depend on no prompt.

    Raises:
        HftoolError: the generation_config has a value that an option does not take.
        UsageError: there are fewer beams than texts to return.
    """
    missing: dict[str, Any] = {
        name: neutral if config.get(name) is None else _checked(name, config[name])
        for name, neutral in _NEUTRAL.items()
        if getattr(options, name) is None
    }
    options = replace(options, **missing)
    beams, sequences = options.num_beams or 1, options.num_return_sequences or 1
    if 1 < beams < sequences:
        raise UsageError(
            f"{beams} beams cannot give {sequences} sequences",
            "--num-beams must be at least --num-return-sequences",
        )
    return options


def most_new_tokens(
    option: int | None, config: Mapping[str, Any], prompt_tokens: int, default: int
) -> int:
    """Return how many tokens to generate at most: the option, else the model's `max_new_tokens`,
    else what its `max_length` leaves after the prompt, else the default.

    Raises:
        HftoolError: the prompt is not shorter than `max_length`, or a value is not a number of
            tokens.
    """
    if option is not None:
        return option
    if config.get("max_new_tokens") is not None:
        return int(_checked("max_new_tokens", config["max_new_tokens"]))
    length = config.get("max_length")
    if length is None:
        return default
    if type(length) is not int or length <= prompt_tokens:
        raise HftoolError(
            f"the prompt has {prompt_tokens} tokens; max_length of the model's generation_config"
            f" is {str(length)[:40]}",
            "set the number of new tokens with --max-new-tokens",
        )
    return length - prompt_tokens


def stop_strings(
    option: Sequence[str] | None, config: Mapping[str, Any], constraint: Constraint | None = None
) -> tuple[str, ...]:
    """Return the strings that end a text: those of the option, else the model's. A text with a
    constraint has none, since it must not be cut.

    Raises:
        UsageError: a string of the option is empty, or there is a constraint.
        HftoolError: the generation_config has something other than strings.
    """
    if option is not None and "" in option:
        raise UsageError("a stop text is empty")
    if constraint is not None:
        if option:
            raise UsageError(f"--stop would cut off the text that --{constraint.kind} asks for")
        return ()
    stop = config.get("stop_strings") or [] if option is None else option
    texts = [stop] if isinstance(stop, str) else stop
    if not isinstance(texts, list | tuple) or not all(isinstance(t, str) and t for t in texts):
        raise HftoolError(f"stop_strings of the model's generation_config is {str(stop)[:40]}")
    return tuple(texts)


def log_unused_fields(language_model: LanguageModel, *more: str) -> None:
    """Warn about fields of a model's generation_config that would change the text but are not used.

    Args:
        more: further fields that this command does not use, with 1 as their neutral value.
    """
    config, fields = language_model.generation_config, UNUSED_FIELDS | dict.fromkeys(more, 1)
    if language_model.is_encoder_decoder:  # which predicts nothing without its source
        fields["guidance_scale"] = PROCESSOR_FIELDS["guidance_scale"]
    names = [n for n, neutral in fields.items() if has_effect(config.get(n), neutral)]
    if names:
        log.warning("the model's generation_config asks for %s: ignored", ", ".join(names))


def _checked(name: str, value: Any) -> Any:
    try:
        return option_ranges(GenerationOptions)[name].checked(value)
    except UsageError as error:
        raise HftoolError(f"the model's generation_config: {error.message}") from None

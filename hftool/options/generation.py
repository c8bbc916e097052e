"""Options that control how text is generated."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from hftool.options.completion import known_models
from hftool.options.constraints import Constraint
from hftool.options.inputs import PromptOptions
from hftool.options.sampling import SamplingOptions
from hftool.options.shared import option

DEFAULT_MAX_NEW_TOKENS = 256
DEFAULT_STEPS = 20  # of `sample`
CHAT_MAX_NEW_TOKENS = 1024

Overflow = Literal["drop", "stop"]
"""The reaction of a chat to a full context: drop its oldest turns, or stop."""

_sampling = functools.partial(option, panel="Sampling")
_generation = functools.partial(option, panel="Generation")


@dataclass(frozen=True)
class AnswerOptions(SamplingOptions):
    """Options for the answers in a chat; `/set` changes them."""

    max_new_tokens: Annotated[
        int | None,
        _sampling(
            "--max-new-tokens",
            "--max-tokens",
            "-n",
            metavar="N",
            min=1,
            show_default=f"by the model, else {CHAT_MAX_NEW_TOKENS}",
            help="Maximum tokens per answer.",
            common=True,
        ),
    ] = None


@dataclass(frozen=True)
class GenerationOptions:
    """Options for what is generated, and where it ends; None leaves one to the model's
    generation_config."""

    max_new_tokens: Annotated[
        int | None,
        _generation(
            "--max-new-tokens",
            "--max-tokens",
            "-n",
            metavar="N",
            min=1,
            show_default=f"by the model, else {DEFAULT_MAX_NEW_TOKENS}",
            help="Maximum number of new tokens.",
            common=True,
        ),
    ] = None
    stop: Annotated[
        list[str] | None,
        _generation("--stop", metavar="TEXT", help="End before TEXT (repeatable).", common=True),
    ] = None
    skip_special: Annotated[
        bool,
        _generation(
            "--skip-special/--keep-special",
            help="Leave special tokens out of the text, or keep them.",
        ),
    ] = True
    echo: Annotated[bool, _generation("--echo", help="Begin the text with the prompt.")] = False
    logprobs: Annotated[
        bool, _generation("--logprobs", help="Add each token's log-probability to the records.")
    ] = False
    top_logprobs: Annotated[
        int | None,
        _generation(
            "--top-logprobs",
            metavar="N",
            min=0,
            help="Also add the N most probable tokens at each step.",
        ),
    ] = None
    num_beams: Annotated[
        int | None,
        _generation(
            "--num-beams",
            metavar="N",
            min=1,
            show_default="by the model, else 1",
            help="Beam search with N beams.",
        ),
    ] = None
    length_penalty: Annotated[
        float | None,
        _generation(
            "--length-penalty",
            metavar="X",
            min=-100,  # beyond, a length to this power is not a finite number
            max=100,
            show_default="by the model, else 1",
            help="Above 0, beam search prefers long texts; below 0, short ones.",
        ),
    ] = None
    num_return_sequences: Annotated[
        int | None,
        _generation(
            "--num-return-sequences",
            metavar="N",
            min=1,
            show_default="by the model, else 1",
            help="Number of texts per prompt.",
        ),
    ] = None
    assistant_model: Annotated[
        str | None,
        _generation(
            "--assistant-model",
            "--draft-model",
            metavar="REF",
            help="A smaller model that drafts tokens, for speed.",
            autocompletion=known_models,
        ),
    ] = None
    prompt_lookup: Annotated[
        int | None,
        _generation(
            "--prompt-lookup",
            metavar="N",
            min=1,
            help="Draft N tokens from repetitions in the text, for speed.",
        ),
    ] = None


@dataclass(frozen=True)
class BatchOptions:
    """A file of prompts, and how many of them run together."""

    batch: Annotated[
        Path | None,
        option(
            "--batch",
            metavar="FILE",
            help="Run the prompts in FILE (JSON Lines, or OpenAI's).",
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        option(
            "--batch-size",
            metavar="N",
            min=1,
            show_default="as memory allows",
            help="Number of prompts run together.",
        ),
    ] = None


@dataclass(frozen=True)
class GenerateOptions:
    """All options that determine a generated text."""

    prompting: PromptOptions
    sampling: SamplingOptions
    generation: GenerationOptions
    show_probs: bool = False
    constraint: Constraint | None = None

"""The shared options that say how text is made, as those in `hftool.options.model`."""

import functools
from dataclasses import dataclass
from typing import Annotated, Literal

from hftool.options.completion import known_models
from hftool.options.shared import panel_option

DEFAULT_MAX_NEW_TOKENS = 256
CHAT_MAX_NEW_TOKENS = 1024

_sampling = functools.partial(panel_option, panel="Sampling")
_generation = functools.partial(panel_option, panel="Generation")


@dataclass(frozen=True)
class FilterOptions:
    """What changes the probabilities; None leaves it to the model's generation_config."""

    temperature: Annotated[
        float | None,
        _sampling(
            "--temperature", "--temp", metavar="T", min=0, help="Divides the logits; 0 is greedy."
        ),
    ] = None
    top_k: Annotated[
        int | None,
        _sampling("--top-k", metavar="K", min=0, help="Keep the K most probable tokens; 0: all."),
    ] = None
    top_p: Annotated[
        float | None,
        _sampling(
            "--top-p",
            metavar="P",
            min=0,
            max=1,
            help="Keep the most probable tokens that sum up to P.",
        ),
    ] = None
    min_p: Annotated[
        float | None,
        _sampling(
            "--min-p",
            metavar="P",
            min=0,
            max=1,
            help="Keep tokens of at least P times the best one's.",
        ),
    ] = None
    typical_p: Annotated[
        float | None,
        _sampling(
            "--typical-p",
            metavar="P",
            min=0,
            max=1,
            help="Keep tokens of typical surprisal, up to P.",
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        _sampling(
            "--repetition-penalty",
            "--repeat-penalty",
            metavar="X",
            help="Above 1: tokens seen get less likely.",
        ),
    ] = None
    no_repeat_ngram_size: Annotated[
        int | None,
        _sampling("--no-repeat-ngram-size", metavar="N", min=0, help="No N-gram of tokens twice."),
    ] = None


@dataclass(frozen=True)
class SamplingOptions(FilterOptions):
    """How the next token is chosen."""

    greedy: Annotated[bool, _sampling("--greedy", help="Always the most probable token.")] = False
    seed: Annotated[
        int | None,
        _sampling(
            "--seed",
            metavar="SEED",
            min=0,
            max=2**63 - 1,
            help="Makes a run repeatable; else drawn.",
        ),
    ] = None


@dataclass(frozen=True)
class AnswerOptions(SamplingOptions):
    """How the answers of a chat are made; what `/set` changes."""

    max_new_tokens: Annotated[
        int,
        _sampling(
            *("--max-new-tokens", "--max-tokens", "-n"),
            metavar="N",
            min=1,
            help="The most tokens of an answer.",
        ),
    ] = CHAT_MAX_NEW_TOKENS


@dataclass(frozen=True)
class GenerationOptions:
    """How a text is generated, and where it ends."""

    max_new_tokens: Annotated[
        int,
        _generation(
            "--max-new-tokens",
            "--max-tokens",
            "-n",
            metavar="N",
            min=1,
            help="The most tokens to generate.",
        ),
    ] = DEFAULT_MAX_NEW_TOKENS
    stop: Annotated[
        list[str] | None,
        _generation("--stop", metavar="TEXT", help="End before this text (repeatable)."),
    ] = None
    skip_special: Annotated[
        bool, _generation("--skip-special/--keep-special", help="Special tokens in the text.")
    ] = True
    echo: Annotated[bool, _generation("--echo", help="Begin the text with the prompt.")] = False
    logprobs: Annotated[
        bool, _generation("--logprobs", help="Each token's log-probability, in the records.")
    ] = False
    top_logprobs: Annotated[
        int | None,
        _generation(
            "--top-logprobs",
            metavar="N",
            min=0,
            help="The N most probable tokens at each place as well.",
        ),
    ] = None
    num_beams: Annotated[
        int, _generation("--num-beams", metavar="N", min=1, help="Beam search over N beams.")
    ] = 1
    length_penalty: Annotated[
        float,
        _generation(
            "--length-penalty", metavar="X", help="Above 0, beams prefer long texts; below, short."
        ),
    ] = 1.0
    num_return_sequences: Annotated[
        int,
        _generation("--num-return-sequences", metavar="N", min=1, help="So many texts a prompt."),
    ] = 1
    assistant_model: Annotated[
        str | None,
        _generation(
            "--assistant-model",
            "--draft-model",
            metavar="REF",
            help="A smaller model that guesses ahead.",
            autocompletion=known_models,
        ),
    ] = None
    prompt_lookup: Annotated[
        int | None,
        _generation(
            "--prompt-lookup",
            metavar="N",
            min=1,
            help="Guess N tokens ahead from what the text has said before.",
        ),
    ] = None


Overflow = Literal["drop", "stop"]

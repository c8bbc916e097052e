"""Requests for generated text, and the events that answer them: pieces of text and records.

This module imports nothing heavy, because `hftool.output` imports it as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from hftool.generation.sampling import SamplingSettings

OPTIONAL = {"optional": True}
"""Metadata of a field that is left out of a record where it is None."""

SLIDER_TEMPERATURES = tuple(step / 20 for step in range(1, 41))
"""The temperatures of a page's slider, but for 0."""

FinishReason = Literal["stop", "length"]

CandidateGenerator = Callable[[Sequence[int]], list[int]]
"""Guesses the tokens that follow a sequence. Wrong guesses cost time but never change the text."""


@dataclass(frozen=True)
class Distribution:
    """A model's own distribution over the next token, or over the token in a mask's place, for the
    page of `--save`; no format writes it.

    Attributes:
        prompt: the text before the token; of a masked model the whole text.
        ids, tokens, logprobs: the best tokens, and the natural logarithms of their probabilities.
        others: how many tokens are not among them.
        rest: for each of `SLIDER_TEMPERATURES` the logarithm of the sum over those of
            exp(logprob / temperature).
        entropy: of the whole distribution, in bits.
        settings: the temperature, top-k, top-p and min-p to begin with.
    """

    prompt: str
    position: int
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]
    others: int
    rest: tuple[float, ...]
    entropy: float
    settings: tuple[float, int, float, float]
    mask: int | None = None
    model: str | None = None
    index: int | None = None


@dataclass(frozen=True)
class BeamSettings:
    """How beam search runs: with `num_beams` beams, of which it returns the best
    `num_return_sequences`.

    `length_penalty` is the exponent of a beam's length, by which its log-probability is divided.
    """

    num_beams: int
    num_return_sequences: int
    length_penalty: float


@dataclass(frozen=True)
class Request:
    """A prompt and how to continue it.

    Attributes:
        prompt: the prompt as the user gave it.
        ids: the prompt's tokens, including those of the chat template and special tokens; for an
            encoder-decoder what the decoder begins with.
        source: what an encoder-decoder reads.
        stop: strings that end the text, which does not include them.
        logprobs: how many of the most probable tokens to report at each step beside the chosen
            one; None leaves all log-probabilities out.
        with_probs: whether pieces have probabilities.
        echo: what to put before the generated text.
        opened_thought: for an answer in a chat: whether the prompt has opened the model's
            reasoning; None for any other text, which has none.
        beams: run beam search instead of generating a single sequence.
        index: the number of the text in the output, from 0.
        id, line: the `id` and the line number (from 1) of the batch record that this comes from.
    """

    prompt: str
    ids: tuple[int, ...]
    settings: "SamplingSettings"
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    skip_special: bool = True
    logprobs: int | None = None
    with_probs: bool = False
    echo: str = ""
    opened_thought: bool | None = None
    beams: BeamSettings | None = None
    index: int = 0
    id: Any = None
    line: int = 0
    source: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a text that is still being generated.

    A record with the whole text follows its last piece. `prob` is the probability of its tokens
    together, by the model alone; None unless the request asks for it. `is_reasoning` tells what the
    model thinks before its answer.
    """

    text: str
    prob: float | None = None
    is_reasoning: bool = False


@dataclass(frozen=True)
class Usage:
    """Numbers of tokens. A generated end-of-sequence token counts."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Alternative:
    """A token and its log-probability: natural, and the model's own (before any filter). The `id`
    is null at an endpoint. `constrained_logprob` is the log-probability among the tokens that a
    constraint allows; it is left out without one, and for a token that is not allowed."""

    id: int | None
    token: str
    logprob: float
    constrained_logprob: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class TokenLogprob:
    """A generated token with its log-probability (natural, before any filter), and the `top` most
    probable tokens at the same step. The `id` is null at an endpoint. With a constraint, there are
    also the log-probability among the tokens that it allows, and the most probable of these."""

    id: int | None
    token: str
    logprob: float
    top: tuple[Alternative, ...]
    constrained_logprob: float | None = field(default=None, metadata=OPTIONAL)
    constrained_top: tuple[Alternative, ...] | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A generated text. `seconds` and `tokens_per_second` do not include loading the model; `id`
    is that of the batch record. `reasoning` is what the model has thought before its answer, if
    anything. `usage` and `tokens_per_second` are null where an
    endpoint does not count tokens. `valid` is whether the text satisfies its constraint, if it has
    one: it may not where it was cut off."""

    id: Any = field(default=None, metadata=OPTIONAL)
    index: int
    prompt: str
    text: str
    reasoning: str | None = field(default=None, metadata=OPTIONAL)
    finish_reason: FinishReason
    stop: str | None
    usage: Usage | None
    seed: int | None
    seconds: float
    tokens_per_second: float | None
    valid: bool | None = field(default=None, metadata=OPTIONAL)
    logprobs: tuple[TokenLogprob, ...] | None = field(default=None, metadata=OPTIONAL)

    @property
    def completion_tokens(self) -> int:
        """How many tokens were generated, 0 if that is not known."""
        return self.usage.completion_tokens if self.usage else 0


@dataclass(frozen=True)
class FailedRequest:
    """A line that failed: the `id` of a batch record, else None; the number of the line, from 1;
    and the cause."""

    id: Any
    line: int
    error: str

"""What a generation is asked for, and the records it yields."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hftool.generation.sampling import SamplingSettings

OPTIONAL = {"optional": True}  # left out of a record where it is None

FinishReason = Literal["stop", "length"]

CandidateGenerator = Callable[[Sequence[int]], list[int]]
"""Guesses how a sequence of tokens goes on; wrong guesses cost time and change nothing."""


@dataclass(frozen=True)
class Beams:
    """How a beam search goes: `width` beams, of which the best `returned` are given.

    `length_penalty` is the power of its length that a beam's log-probability is divided by.
    """

    width: int
    returned: int
    length_penalty: float


@dataclass(frozen=True)
class Request:
    """What one generation is asked for.

    Attributes:
        prompt: as it was given; `ids` are its tokens, chat template and special tokens included.
        stop: texts that end the generation; they are not part of it.
        logprobs: how many of the most probable tokens are told at each step beside the chosen one;
            None leaves the log-probabilities out.
        echo: what stands before the generated text.
        beams: a beam search instead of one sequence.
        id, line: of the batch record this is.
    """

    prompt: str
    ids: tuple[int, ...]
    settings: SamplingSettings
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    skip_special: bool = True
    logprobs: int | None = None
    echo: str = ""
    beams: Beams | None = None
    index: int = 0
    id: Any = None
    line: int = 0


@dataclass(frozen=True)
class Usage:
    """Counts of tokens; an end-of-sequence token that was generated counts."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Alternative:
    """A token and the natural logarithm of the model's own probability of it."""

    id: int
    token: str
    logprob: float


@dataclass(frozen=True)
class TokenLogprob:
    """A generated token with its log-probability (natural, before any filter), and the `top` most
    probable tokens at its place."""

    id: int
    token: str
    logprob: float
    top: tuple[Alternative, ...]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A continuation. `seconds` and `tokens_per_second` are those of the generation alone; `id` is
    that of its batch record."""

    id: Any = field(default=None, metadata=OPTIONAL)
    index: int
    prompt: str
    text: str
    finish_reason: FinishReason
    stop: str | None
    usage: Usage
    seed: int | None
    seconds: float
    tokens_per_second: float
    logprobs: tuple[TokenLogprob, ...] | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Failure:
    """A batch record that could not be done: its `id` where it has one, its line (from 1)."""

    id: Any
    line: int
    error: str

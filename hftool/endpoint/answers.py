"""Read what a server answers: texts, why they end, and log-probabilities."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hftool.errors import HftoolError
from hftool.generation.records import Alternative, FinishReason, TokenLogprob, Usage

_REASONS: dict[str, FinishReason] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "stop_sequence", "end_turn"), "stop"),
    **dict.fromkeys(("length", "max_tokens"), "length"),
}


@dataclass(frozen=True)
class Answer:
    """A text, or a piece of one in a stream.

    Attributes:
        text: without the reasoning.
        reasoning: what a server has taken out of the text as the model's reasoning.
        reason: why the text ends; None as long as it goes on.
        stop: the stop text that ended it, where the server says so.
        usage: None where the server says nothing.
    """

    text: str
    reasoning: str
    reason: FinishReason | None
    stop: str | None
    usage: Usage | None
    logprobs: tuple[TokenLogprob, ...] | None


def read_answer(answer: Any) -> Answer:
    """Read the answer to a request, or an event of a stream.

    Raises:
        HftoolError: it is an error, or not what OpenAI's API gives.
    """
    if not isinstance(answer, dict):
        raise _strange("no object")
    if answer.get("error"):
        error = answer["error"]
        said = error.get("message") if isinstance(error, dict) else error
        raise HftoolError(f"the server reports an error: {str(said)[:300]}")
    usage = _usage(answer.get("usage"))
    choices = answer.get("choices")
    if choices == []:  # an event of a stream that tells something else, such as the usage
        return Answer("", "", None, None, usage, None)
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _strange("no choices")
    choice = choices[0]
    message = choice.get("message", choice.get("delta"))
    message = message if isinstance(message, dict) else {"content": choice.get("text")}
    if message.get("tool_calls"):
        raise HftoolError("the model calls a tool, and hftool writes only texts")
    stop = choice.get("stop_reason", choice.get("matched_stop"))
    return Answer(
        _text(message.get("content")),
        _text(message.get("reasoning_content") or message.get("reasoning")),
        _reason(choice.get("finish_reason")),
        stop if isinstance(stop, str) else None,
        usage,
        _logprobs(choice.get("logprobs")),
    )


def _strange(what: str) -> HftoolError:
    return HftoolError(f"the server's answer is not one of OpenAI's API: {what}")


def _text(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise _strange("a text is none")
    return value or ""


def _reason(value: Any) -> FinishReason | None:
    if value is not None and value not in _REASONS:
        raise HftoolError(f"the server ended the text for another reason: {str(value)[:40]}")
    return None if value is None else _REASONS[value]


def _usage(value: Any) -> Usage | None:
    names = ("prompt_tokens", "completion_tokens")
    counts = [value.get(name) if isinstance(value, dict) else None for name in names]
    prompt, completion = counts
    if type(prompt) is not int or type(completion) is not int:
        return None
    return Usage(prompt, completion)


def _logprobs(value: Any) -> tuple[TokenLogprob, ...] | None:
    """Return log-probabilities of either form: that of chats has `content`, the other lists."""
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("content"), list):
        return tuple(_of_chat(token) for token in value["content"])
    tokens, chosen = value.get("tokens"), value.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(chosen, list):
        return None
    tops = value.get("top_logprobs")
    tops = tops if isinstance(tops, list) and len(tops) == len(tokens) else [None] * len(tokens)
    if len(chosen) != len(tokens):
        raise _strange("lists of log-probabilities of different lengths")
    return tuple(
        TokenLogprob(None, _text(token), _number(logprob), _ranked(top))
        for token, logprob, top in zip(tokens, chosen, tops, strict=True)
    )


def _of_chat(token: Any) -> TokenLogprob:
    if not isinstance(token, dict):
        raise _strange("a token is not an object")
    listed = token.get("top_logprobs") or ()
    if not all(isinstance(each, dict) for each in listed):
        raise _strange("a token is not an object")
    top = {_text(each.get("token")): each.get("logprob") for each in listed}
    return TokenLogprob(
        None, _text(token.get("token")), _number(token.get("logprob")), _ranked(top)
    )


def _ranked(top: Any) -> tuple[Alternative, ...]:
    """Return the most probable tokens, best first."""
    if not isinstance(top, dict):
        return ()
    alternatives = [Alternative(None, token, _number(value)) for token, value in top.items()]
    return tuple(sorted(alternatives, key=lambda each: -each.logprob))


def _number(value: Any) -> float:
    """Return a log-probability, NaN for that of a text's first token, which has none."""
    if value is None:
        return math.nan
    if type(value) not in (int, float) or not value <= 1e-3:
        raise _strange("a log-probability is above 0, or no number")
    return min(float(value), 0.0)


def with_reasoning(answers: Sequence[Answer]) -> str:
    """Return the text of answers; their reasoning comes first, between `<think>` and `</think>` as
    models write it."""
    thought = "".join(answer.reasoning for answer in answers)
    text = "".join(answer.text for answer in answers)
    return f"<think>\n{thought.strip()}\n</think>\n\n{text}" if thought else text

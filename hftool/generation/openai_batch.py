"""OpenAI's batch file: requests in its form, and answers in its form.

https://platform.openai.com/docs/guides/batch describes it; `vllm run-batch` takes the same file.
"""

import time
from collections.abc import Mapping
from typing import Any

from hftool.errors import HftoolError
from hftool.generation.records import FailedRequest, Generation, TokenLogprob

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
_RENAMED = {
    **{"max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens"},
    **{"min_tokens": "min_new_tokens"},
}
# What changes no text: it is for accounting, or says what hftool does anyway.
_WITHOUT_EFFECT = ("model", "user", "metadata", "store", "service_tier", "stream_options")
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    **{"n": (1,), "best_of": (1,), "stream": (False,), "echo": (False,), "suffix": ("",)},
    **{"logit_bias": ({},), "response_format": ({"type": "text"},), "tool_choice": ("auto",)},
    **{"function_call": ("auto",)},
}
"""Fields that are accepted with these values, for which there is no option."""


class CustomId(str):
    """The `custom_id` of a request in OpenAI's form, whose answer has that form too.

    Attributes:
        url: which of OpenAI's addresses the request is for.
    """

    url: str

    def __new__(cls, value: str, url: str = "") -> "CustomId":
        """Make one of a text."""
        made = super().__new__(cls, value)
        made.url = url
        return made


def is_openai(record: Mapping[str, Any]) -> bool:
    """Return whether a record has OpenAI's form."""
    return "custom_id" in record


def own_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of hftool's form for one of OpenAI's.

    Raises:
        HftoolError: it is for another address, or asks for something that hftool does not do.
    """
    if unknown := record.keys() - {"custom_id", "method", "url", "body"}:
        raise HftoolError(f"unknown field {', '.join(sorted(unknown))}")
    url, body = record.get("url"), record.get("body")
    if record.get("method", "POST") != "POST" or url not in (CHAT, TEXT):
        raise HftoolError(f"the record must be for POST {CHAT} or POST {TEXT}")
    if not isinstance(body, dict):
        raise HftoolError('the record has no "body"')
    own: dict[str, Any] = {"id": given_id(record)}
    for name, value in body.items():
        if value is None or name in _WITHOUT_EFFECT or value in _NEUTRAL.get(name, ()):
            continue
        if name in _NEUTRAL and name != "response_format":
            raise HftoolError(f"hftool has no option for {name}")
        own[_RENAMED.get(str(name), str(name))] = value
    if own.get("top_k") == -1:  # vLLM's "all"
        own["top_k"] = 0
    if url == TEXT and "logprobs" in own:  # the number of alternatives
        own["top_logprobs"] = own.pop("logprobs")
    if "add_generation_prompt" in own:
        own["no_generation_prompt"] = own.pop("add_generation_prompt") is False
    return own


def given_id(record: Mapping[str, Any]) -> Any:
    """Return the id of a record in either form."""
    if not is_openai(record):
        return record.get("id")
    custom_id = record["custom_id"]
    if not isinstance(custom_id, str):
        raise HftoolError("custom_id must be text")
    return CustomId(custom_id, str(record.get("url")))


def answer_of(record: Generation | FailedRequest, model: str) -> dict[str, Any]:
    """Return the answer in OpenAI's form to a request with a `CustomId`."""
    answer = {"id": f"batch_req_{record.id}", "custom_id": str(record.id)}
    if isinstance(record, FailedRequest):
        error = {"code": "failed", "message": record.error, "line": record.line}
        return {**answer, "response": None, "error": error}
    response = {"status_code": 200, "request_id": f"req_{record.index}"}
    return {**answer, "response": {**response, "body": _body(record, model)}, "error": None}


def _body(record: Generation, model: str) -> dict[str, Any]:
    chat = record.id.url == CHAT
    said: dict[str, Any] = {"text": record.text}
    if chat:
        message = {"role": "assistant", "content": record.text}
        said = {"message": message}
        if record.reasoning is not None:
            message["reasoning_content"] = record.reasoning
    logprobs = None
    if record.logprobs is not None:
        logprobs = _of_chat(record.logprobs) if chat else _of_text(record.logprobs)
    choice = {"index": 0, **said, "logprobs": logprobs, "finish_reason": record.finish_reason}
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{record.index}",
        "object": "chat.completion" if chat else "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{**choice, "stop_reason": record.stop}],
        "usage": record.usage
        and {
            "prompt_tokens": record.usage.prompt_tokens,
            "completion_tokens": record.usage.completion_tokens,
            "total_tokens": record.usage.prompt_tokens + record.usage.completion_tokens,
        },
        "seed": record.seed,
    }


def _of_chat(tokens: tuple[TokenLogprob, ...]) -> dict[str, Any]:
    def shown(token: Any) -> dict[str, Any]:
        data = list(token.token.encode())
        return {"token": token.token, "logprob": token.logprob, "bytes": data}

    return {"content": [{**shown(t), "top_logprobs": [*map(shown, t.top)]} for t in tokens]}


def _of_text(tokens: tuple[TokenLogprob, ...]) -> dict[str, Any]:
    offsets = [0]
    for token in tokens:
        offsets.append(offsets[-1] + len(token.token))
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{t.token: t.logprob for t in token.top} for token in tokens],
        "text_offset": offsets[:-1],
    }

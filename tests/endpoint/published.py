"""What servers publish of their requests: of the fields in their OpenAPI schema (vLLM, SGLang, TGI,
llama-cpp-python) those that hftool has options for; OpenAI, llama-server and Ollama have no schema.
"""

from typing import Any

_OPENAI = (
    *("model", "frequency_penalty", "presence_penalty", "logprobs", "max_tokens", "seed", "stop"),
    *("stream", "stream_options", "temperature", "top_p", "n"),
)
_VLLM = (
    *(*_OPENAI, "top_k", "min_p", "repetition_penalty", "ignore_eos", "min_tokens", "echo"),
    *("skip_special_tokens", "add_special_tokens", "structured_outputs", "length_penalty"),
    *("use_beam_search", "bad_words"),
)
_SGLANG = (
    *(*_OPENAI, "top_k", "min_p", "repetition_penalty", "ignore_eos", "min_tokens", "echo"),
    *("skip_special_tokens", "regex", "ebnf", "json_schema"),
)
_LLAMA_CPP_PYTHON = (
    *("model", "frequency_penalty", "presence_penalty", "logprobs", "max_tokens", "seed", "stop"),
    *("stream", "temperature", "top_p", "n", "top_k", "min_p", "min_tokens", "repeat_penalty"),
    *("mirostat_mode", "grammar"),
)
_TGI = (
    *("model", "frequency_penalty", "max_tokens", "seed", "stop", "stream", "temperature"),
    "top_p",
)


def _format(types: tuple[str, ...], value: str) -> dict[str, Any]:
    return {"properties": {"type": {"type": "string", "enum": list(types)}, value: {}}}


_VLLM_FORMAT = {
    "anyOf": [
        _format(("text", "json_object", "json_schema"), "json_schema"),
        _format(("structural_tag",), "format"),
        {"type": "null"},
    ]
}
_TGI_FORMAT = {"oneOf": [_format((name,), "value") for name in ("json", "regex", "json_schema")]}
_LLAMA_FORMAT = {"anyOf": [_format(("text", "json_object"), "schema"), {"type": "null"}]}


def _fields(names: tuple[str, ...], **described: Any) -> dict[str, Any]:
    return {**{name: {} for name in names}, **described}


PUBLISHED: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "OpenAI": ("openai", {}),
    "llama-server": ("llamacpp", {}),
    "Ollama": ("library", {}),
    "vLLM": (
        "vllm",
        {
            "/v1/completions": _fields(_VLLM, response_format=_VLLM_FORMAT),
            "/v1/chat/completions": _fields(
                (*_VLLM, "top_logprobs", "thinking_token_budget", "chat_template_kwargs"),
                response_format=_VLLM_FORMAT,
            ),
        },
    ),
    "SGLang": (
        "sglang",
        {
            "/v1/completions": _fields(_SGLANG),
            "/v1/chat/completions": _fields(
                (*_SGLANG, "top_logprobs"), response_format=_VLLM_FORMAT
            ),
        },
    ),
    "TGI": (
        "hf",
        {
            "/v1/completions": _fields((*_TGI, "repetition_penalty")),
            "/v1/chat/completions": _fields(
                (*_TGI, "presence_penalty", "logprobs", "top_logprobs", "stream_options"),
                response_format=_TGI_FORMAT,
            ),
        },
    ),
    "llama-cpp-python": (
        "me",
        {
            "/v1/completions": _fields((*_LLAMA_CPP_PYTHON, "echo")),
            "/v1/chat/completions": _fields(
                (*_LLAMA_CPP_PYTHON, "top_logprobs"), response_format=_LLAMA_FORMAT
            ),
        },
    ),
}
"""For each server the owner of its models, and the fields of its requests with their schemas."""

"""An endpoint: which server it is, its model, and what the server knows to do."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlsplit

from hftool.endpoint.client import Client, HttpError
from hftool.errors import HftoolError, UsageError
from hftool.options.model import ClassifierOptions, LoadOptions
from hftool.options.shared import option_name

log = logging.getLogger("hftool")

Path = Literal["completions", "chat/completions"]

_COMMON = {"model", "max_tokens", "temperature", "top_p", "stop", "seed", "stream"}
_OPENAI = _COMMON | {"frequency_penalty", "presence_penalty", "logprobs", "stream_options"}
_OPENAI_CHAT = _OPENAI | {"top_logprobs", "response_format"}
_LLAMA = {
    *("top_k", "min_p", "typical_p", "repeat_penalty", "ignore_eos", "top_n_sigma"),
    *("xtc_probability", "xtc_threshold", "dry_multiplier", "dry_base", "dry_allowed_length"),
    *("grammar", "json_schema"),
}
DOCUMENTED: dict[str, Mapping[Path, set[str]]] = {
    "OpenAI": {"completions": {*_OPENAI, "echo"}, "chat/completions": _OPENAI_CHAT},
    "llama.cpp": {
        "completions": _OPENAI | _LLAMA,
        "chat/completions": _OPENAI_CHAT
        | _LLAMA
        | {"chat_template_kwargs", "continue_final_message"},
    },
    "Ollama": {"completions": _OPENAI, "chat/completions": _OPENAI_CHAT},
    # It accepts the rest of OpenAI's fields and ignores them, and makes another penalty of
    # `frequency_penalty`.
    "transformers": {
        "completions": _COMMON | {"generation_config"},
        "chat/completions": _COMMON | {"generation_config", "chat_template_kwargs"},
    },
}
"""The fields of requests that servers know which don't say so themselves."""
FORMAT_VALUES = ("json_schema", "schema", "value")
"""The fields of a `response_format` beside its `type`: OpenAI's, llama-cpp-python's and TGI's."""
LOCAL = ("device", "dtype", "quantize", "revision", "trust_remote_code", "target_lang")
"""The options for loading a model, of which an endpoint has no use."""
_OWNERS = {"llamacpp": "llama.cpp", "library": "Ollama"}
_SCHEMAS = ("openapi.json", "api-doc/openapi.json")


class Endpoint:
    """A model behind an OpenAI-compatible server.

    Args:
        address: URL#NAME, where the name may be missing if the server has one model.
        client: for the URL.

    Attributes:
        name: the model's name, as the server calls it.

    Raises:
        HftoolError: the server can't be reached, or there is no such model.
    """

    def __init__(self, address: str, client: Client) -> None:
        url, _, name = address.partition("#")
        self._url, self.client = url.rstrip("/"), client
        self._models = self._listed()
        self.name = name or self._only_model()
        log.debug("%s at %s: %s", self.name, self.client.server, self.kind or "with a schema")

    def _listed(self) -> dict[str, str]:
        """Return the server's models, and who owns each; nothing if it does not list them."""
        try:
            answer = self.client.get(f"{self._url}/models")
        except HttpError as error:
            if error.http_status in (404, 405, 500, 501):
                return {}
            raise
        listed = answer.get("data") if isinstance(answer, dict) else None
        models = [model for model in listed or () if isinstance(model, dict)]
        return {str(model.get("id")): str(model.get("owned_by")) for model in models}

    def _only_model(self) -> str:
        if len(self._models) == 1:
            return next(iter(self._models))
        names = ", ".join(list(self._models)[:8])
        raise HftoolError(
            f"which model of {self.client.server}?",
            f"name it, as in {self._url}#NAME" + (f"; it has {names}" if names else ""),
        )

    @cached_property
    def kind(self) -> str:
        """The kind of server, a key of `DOCUMENTED`, or "" for one that publishes its schema."""
        if any(self._published.values()):
            return ""
        if self._has_systemone:
            return "transformers"
        owner = self._models.get(self.name) or next(iter(self._models.values()), "")
        return _OWNERS.get(owner, "OpenAI")

    @cached_property
    def _schema(self) -> Mapping[str, Any]:
        """The description of the server's API (OpenAPI), empty if it publishes none."""
        parts = urlsplit(self._url)
        for name in _SCHEMAS:
            try:
                answer = self.client.get(f"{parts.scheme}://{parts.netloc}/{name}")
            except HftoolError:  # most servers have none
                continue
            if isinstance(answer, dict) and isinstance(answer.get("paths"), dict):
                return answer
        return {}

    @cached_property
    def _has_systemone(self) -> bool:
        return "/v1/systemone" in self._schema.get("paths", {})

    @cached_property
    def _published(self) -> dict[Path, dict[str, Any]]:
        paths: tuple[Path, ...] = ("completions", "chat/completions")
        return {path: published_fields(self._schema, f"/v1/{path}") for path in paths}

    def knows(self, path: Path, field: str) -> bool:
        """Return whether the server knows a field of a request: whether it says so itself, or else
        whether its documentation does."""
        fields = self._published[path] or DOCUMENTED[self.kind or "OpenAI"][path]
        return field in fields

    def response_formats(self, path: Path) -> dict[str, str]:
        """Return what the field `response_format` can hold: for each `type` the name of the field
        with its value."""
        if not self.knows(path, "response_format"):
            return {}
        published = self._published[path].get("response_format")
        found: dict[str, str | None] = {}
        for node in _alternatives(self._schema, published, depth=8):
            properties = node.get("properties")
            properties = properties if isinstance(properties, dict) else {}
            kind = properties.get("type")
            kind = kind if isinstance(kind, dict) else {}
            for name in kind.get("enum", [kind.get("const")]):
                if isinstance(name, str) and not found.get(name):
                    found[name] = next((v for v in FORMAT_VALUES if v in properties), None)
        if not found:  # it does not say more
            return {"json_schema": "json_schema"}
        return {name: value for name, value in found.items() if value}


def published_fields(schema: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the fields of a request, as an OpenAPI schema describes them."""
    request: Any = schema
    for name in ("paths", path, "post", "requestBody", "content", "application/json", "schema"):
        request = request.get(name) if isinstance(request, dict) else None
    found: dict[str, Any] = {}
    for node in _alternatives(schema, request, depth=8):
        found |= node["properties"] if isinstance(node.get("properties"), dict) else {}
    return found


def _alternatives(schema: Mapping[str, Any], node: Any, depth: int) -> Iterator[dict[str, Any]]:
    """Yield a node of a schema, and the nodes that it refers to or is made of."""
    if not isinstance(node, dict) or not depth:
        return
    yield node
    reference = node.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        target: Any = schema
        for name in reference[2:].split("/"):
            target = target.get(name) if isinstance(target, dict) else None
        yield from _alternatives(schema, target, depth - 1)
    for several in ("allOf", "anyOf", "oneOf"):
        for part in node[several] if isinstance(node.get(several), list) else ():
            yield from _alternatives(schema, part, depth - 1)


def refuse(options: Mapping[str, Any]) -> None:
    """Raise where a command can't do at an endpoint what an option asks for.

    Args:
        options: the value of each such option.

    Raises:
        UsageError: with the first option that was given.
    """
    for name, value in options.items():
        if value:
            raise UsageError(f"{name} does not work with an endpoint")


def connect(address: str, load: LoadOptions | ClassifierOptions, connections: int = 1) -> Endpoint:
    """Return the endpoint that a command's `--model` names.

    Raises:
        UsageError: an option was given that only a model on this machine has a use for, or the
            address has a user or a password.
        HftoolError: as `Endpoint`.
    """
    if "@" in urlsplit(address).netloc:
        raise UsageError("the address has a password", "give a key with --api-key")
    defaults = {item.name: item.default for item in fields(load)}
    for name in LOCAL:
        if getattr(load, name, None) != defaults.get(name):
            raise UsageError(
                f"{option_name(load, name)} does not work with an endpoint",
                "the server decides how it loads its models",
            )
    return Endpoint(address, Client(address.partition("#")[0].rstrip("/"), load, connections))

"""Chats as programs write them: OpenAI's messages, and what comes with them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from hftool.errors import HftoolError

MESSAGES_HINT = 'as in [{"role": "user", "content": "Hello"}]'
TEMPLATE_FIELDS = ("tools", "documents", "chat_template_kwargs", "think")
"""What may come with messages: by the names that servers use, and hftool's own `think`."""
FUNCTIONS = "functions"
"""What OpenAI called `tools` at first: a list of the functions themselves."""
TEXT_PARTS = ("text", "input_text", "output_text")
MAX_DEPTH = 100  # of objects and lists in a message, a tool or a document
_MEDIA = ("image", "audio", "video", "file")
_SET_BY_OPTIONS = {
    "messages": "--messages",
    "tools": "--tools",
    "documents": "--documents",
    "chat_template": "--chat-template",
    "add_generation_prompt": "--no-generation-prompt",
    "continue_final_message": "--prefill",
}

Message = dict[str, Any]
"""A message: `role`, `content` (a text or a list of parts; a tool's result may be any JSON), and
any other fields, none of which is null."""


@dataclass(frozen=True)
class Chat:
    """A chat and everything else that a template receives.

    Attributes:
        tools: descriptions of functions that the model may call.
        documents: what the model may base its answer on.
        variables: the template's own variables, such as `date_string`.
        think: turn on or off the model's reasoning, by the variable that the template has for it.
        answer: end the prompt where the model's answer begins; otherwise the chat is complete.
    """

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    documents: list[dict[str, Any]] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    think: bool | None = None
    answer: bool = True

    @property
    def text(self) -> str:
        """The text of the last message."""
        return text_of(self.messages[-1].get("content"))


def parse_chat(text: str) -> tuple[Chat, list[str]]:
    """Parse a chat from JSON: a list of messages, or an object with it as "messages".

    Returns: the chat, and the names of the object's fields that are not part of a chat.

    Raises:
        HftoolError: the text is not JSON, or not a chat.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HftoolError(f"the messages are not valid JSON: {error}") from None
    if not isinstance(content, dict):
        return Chat(as_messages(content)), []
    return as_chat(content), sorted(content.keys() - {"messages", FUNCTIONS, *TEMPLATE_FIELDS})


def as_chat(content: Mapping[str, Any]) -> Chat:
    """Make a chat of the field "messages", and of `TEMPLATE_FIELDS` or `FUNCTIONS`.

    Raises:
        HftoolError: a field has something else than it should.
    """
    if "messages" not in content:
        raise HftoolError('the object has no "messages"', MESSAGES_HINT)
    variables = content.get("chat_template_kwargs") or {}
    if not isinstance(variables, dict):
        raise HftoolError('"chat_template_kwargs" must be an object')
    for name in variables:
        require_variable(name)
    think = content.get("think")
    if not isinstance(think, bool | None):
        raise HftoolError('"think" must be true or false')
    return Chat(
        as_messages(content.get("messages")),
        as_objects(content.get("tools"), "tools") or _older_tools(content.get(FUNCTIONS)),
        as_objects(content.get("documents"), "documents"),
        {name: checked(value, name) for name, value in variables.items()},
        think,
    )


def as_messages(messages: Any) -> list[Message]:
    """Check that a JSON value is a list of messages, and return them without fields that are null.

    The arguments of tool calls, which programs send as JSON text, become objects, as templates
    expect them.

    Raises:
        HftoolError: it is something else, or a message has a part that is not text.
    """
    if messages == []:
        raise HftoolError("the list of messages is empty", MESSAGES_HINT)
    if not isinstance(messages, list):
        raise HftoolError("the messages must be a list", MESSAGES_HINT)
    return [_as_message(message, number) for number, message in enumerate(messages, 1)]


def _as_message(given: Any, number: int) -> Message:
    if not isinstance(given, dict):
        raise HftoolError(f"message {number} is not an object", MESSAGES_HINT)
    message = {name: value for name, value in given.items() if value is not None}
    if not isinstance(message.get("role"), str) or not message["role"]:
        raise HftoolError(f"message {number} has no role", MESSAGES_HINT)
    checked(message, f"message {number}")
    if "content" not in message and message["role"] not in ("assistant", "tool"):
        raise HftoolError(f"message {number} has no content", MESSAGES_HINT)
    content = message.get("content", "")
    if is_parts(content):
        message["content"] = [_as_part(part, number) for part in content]
    elif not isinstance(content, str) and message["role"] != "tool":
        kinds = {dict: "an object", list: "a list of other things", bool: "true or false"}
        kind = kinds.get(type(content), "a number")
        raise HftoolError(
            f"the content of message {number} is {kind}: it must be a text or a list of parts",
            MESSAGES_HINT,
        )
    if calls := message.pop("tool_calls", None):
        message["tool_calls"] = _as_calls(calls, number)
    return message


def is_parts(content: Any) -> TypeGuard[list[Any]]:
    """Return whether a message's content is a list of parts, and not a tool's result."""
    return isinstance(content, list) and all(
        isinstance(part, str) or (isinstance(part, dict) and {"type", "text"} & part.keys())
        for part in content
    )


def _as_part(part: Any, number: int) -> Any:
    """Return a part of a message's content; a refusal becomes a text."""
    if isinstance(part, dict) and isinstance(part.get("refusal"), str):
        return {"type": "text", "text": part["refusal"]}
    _require_text(part, number)
    return part


def _require_text(part: Any, number: int) -> None:
    kind = part.get("type", "text") if isinstance(part, dict) else "text"
    text = part.get("text") if isinstance(part, dict) else part
    if isinstance(kind, str) and any(word in kind for word in _MEDIA):
        raise HftoolError(
            f"message {number} has a part of type {kind}: hftool gives models only text",
            "leave the part out of the message",
        )
    if kind in TEXT_PARTS and not isinstance(text, str):
        raise HftoolError(
            f"message {number} has a part without a text",
            'as in {"type": "text", "text": "Hello"}',
        )


def _as_calls(calls: Any, number: int) -> list[Any]:
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise HftoolError(
            f"the tool_calls of message {number} must be a list of objects",
            'as in [{"type": "function", "function": {"name": "time", "arguments": {}}}]',
        )
    return [with_arguments(call, object_of) for call in calls]


def with_arguments(call: dict[str, Any], change: Any) -> dict[str, Any]:
    """Return a tool call with its arguments, if it has any, changed by a function."""
    if isinstance(call.get("function"), dict):
        return {**call, "function": with_arguments(call["function"], change)}
    if "arguments" in call:
        return {**call, "arguments": change(call["arguments"])}
    return call


def object_of(arguments: Any) -> Any:
    """Return the object in a JSON text; anything else unchanged."""
    if not isinstance(arguments, str):
        return arguments
    if not arguments.strip():
        return {}
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return parsed if isinstance(parsed, dict) else arguments


def as_objects(value: Any, name: str) -> list[dict[str, Any]] | None:
    """Check that a JSON value is a list of objects, such as tools; null or an empty list is None.

    Raises:
        HftoolError: it is something else.
    """
    if value is None or value == []:
        return None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise HftoolError(f"the {name} must be a list of objects")
    return [checked(item, f"one of the {name}") for item in value]


def _older_tools(value: Any) -> list[dict[str, Any]] | None:
    functions = as_objects(value, FUNCTIONS)
    return functions and [{"type": "function", "function": each} for each in functions]


def checked(value: Any, what: str) -> Any:
    """Return a JSON value if a template can be given it.

    Raises:
        HftoolError: it is nested too deeply, or not text that can be encoded.
    """
    if _is_deeper(value, MAX_DEPTH):
        raise HftoolError(f"{what} is nested too deeply")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise HftoolError(f"{what} has half of a surrogate pair") from None
    return value


def _is_deeper(value: Any, depth: int) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth < 0 or any(_is_deeper(item, depth - 1) for item in items)


def require_variable(name: str) -> None:
    """Raise where a template's variable is set by an option of its own.

    Raises:
        HftoolError: with that option.
    """
    if name in _SET_BY_OPTIONS:
        raise HftoolError(
            f"{name} is not a variable of the chat template", f"use {_SET_BY_OPTIONS[name]}"
        )


def text_of(content: Any) -> str:
    """Return the text of a message's content, with line breaks between its parts."""
    return "\n".join(texts_of(content))


def texts_of(content: Any) -> list[str]:
    """Return the texts in a message's content; that of a result that is an object is its JSON."""
    if content is None:
        return []
    if is_parts(content):
        return [part if isinstance(part, str) else part.get("text", "") for part in content]
    return [content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)]

"""Check that a prompt has every text of the chat that it was made from."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hftool.prompting.messages import Chat, Message, is_parts, object_of, texts_of
from hftool.prompting.reasoning import TAGS

_CLOSING = ["</thinking>", *(tags.closing for tags in TAGS if not tags.turn)]
_REASONING_ENDS = re.compile("|".join(map(re.escape, _CLOSING)))
_PART = re.compile(r"""["']type\\?["']: ?\\?["'](?:input_|output_)?text""")


@dataclass(frozen=True)
class GivenText:
    """A text of a chat, and where it comes from, in words."""

    text: str
    place: str


def missing_texts(messages: Sequence[Message], prompt: str) -> list[GivenText]:
    """Return the texts of messages that a prompt lacks: their content, and the names and arguments
    of tool calls.

    White space does not count, which templates trim, and a text may be escaped as in JSON. What
    answers say before `</think>` is left to the template.
    """
    given = [text for number, m in enumerate(messages, 1) for text in _texts_of_message(m, number)]
    return _missing(given, prompt)


def also_in(messages: Sequence[Message], other: str) -> dict[int, GivenText]:
    """Return the texts of messages that another text has too, by the index of their message."""
    squeezed = _squeezed(other)
    contents = ((i, message, message.get("content")) for i, message in enumerate(messages))
    return {
        i: GivenText(content, f"the text of message {i + 1} ({message['role']})")
        for i, message, content in contents
        if isinstance(content, str) and (short := _squeezed(content)) and short in squeezed
    }


def missing_extras(chat: Chat, prompt: str) -> list[str]:
    """Return which of a chat's "tools" and "documents" are not in a prompt at all."""
    groups = {
        "tools": [_description(tool) or tool_name(tool) for tool in chat.tools or ()],
        "documents": [
            max(_leaves(document), key=len, default="") for document in chat.documents or ()
        ],
    }
    return [
        name
        for name, texts in groups.items()
        if texts and len(_missing([GivenText(text, name) for text in texts], prompt)) == len(texts)
    ]


def is_garbled(messages: Sequence[Message], prompt: str) -> bool:
    """Return whether a template printed a list of parts, an object or null as Python shows it,
    because it expects a text."""
    texts = "\0".join(text for m in messages for text in texts_of(m.get("content")))
    in_parts = any(is_parts(m.get("content")) for m in messages)
    if in_parts and len(_PART.findall(prompt)) > len(_PART.findall(texts)):
        return True
    results = [c for m in messages if not isinstance(c := m.get("content"), str | None)]
    arguments = [a for m in messages for a in _arguments(m)]
    objects = [o for o in (*results, *arguments) if isinstance(o, dict | list)]
    shown = {repr(a) for a in objects} - {json.dumps(a, ensure_ascii=False) for a in objects}
    if any(m.get("content", "") is None for m in messages):
        shown.add("None")
    return any(prompt.count(form) > texts.count(form) for form in shown)


def tool_name(tool: dict[str, Any]) -> str:
    """Return the name of a tool, or of the one that is called."""
    function = tool.get("function")
    return str((function if isinstance(function, dict) else tool).get("name") or "")


def _description(tool: dict[str, Any]) -> str:
    function = tool.get("function")
    text = (function if isinstance(function, dict) else tool).get("description")
    return text if isinstance(text, str) else ""


def _texts_of_message(message: Message, number: int) -> Iterator[GivenText]:
    place = f"message {number} ({message['role']})"
    content = message.get("content")
    plain = content is None or isinstance(content, str) or is_parts(content)
    for text in texts_of(content) if plain else _leaves(content):
        if message["role"] == "assistant":
            text = _REASONING_ENDS.split(text)[-1]
        yield GivenText(text, f"the text of {place}")
    if isinstance(refusal := message.get("refusal"), str):
        yield GivenText(refusal, f"the refusal of {place}")
    for call in _calls(message):
        yield GivenText(tool_name(call), f"a tool call of {place}")
    for arguments in _arguments(message):
        for leaf in _leaves(arguments):
            yield GivenText(leaf, f"a tool call of {place}")


def _arguments(message: Message) -> Iterator[Any]:
    for call in _calls(message):
        function = call.get("function")
        yield object_of((function if isinstance(function, dict) else call).get("arguments"))


def _calls(message: Message) -> list[dict[str, Any]]:
    """Return the calls of a message, with the one that the older `function_call` has."""
    older = message.get("function_call")
    return [*message.get("tool_calls", ()), *([older] if isinstance(older, dict) else [])]


def _leaves(value: Any) -> Iterator[str]:
    """Yield the texts and numbers in a JSON value."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield json.dumps(value)


def _missing(given: Sequence[GivenText], prompt: str) -> list[GivenText]:
    """Return the texts that a prompt has less often than they were given."""
    squeezed = _squeezed(prompt)
    texts = {item.text: _squeezed(item.text) for item in given}
    # Almost always all of them are there, in their order, which takes one pass to see.
    position = 0
    for item in given:
        found = squeezed.find(texts[item.text], position)
        if found < 0:
            break
        position = found + len(texts[item.text])
    else:
        return []
    missing: set[str] = set()
    rest = "\0".join(texts[item.text] for item in given)
    # Longer ones first: what a missing text says too is not expected more often for that.
    for text, short in sorted(texts.items(), key=lambda pair: -len(pair[1])):
        there = sum(squeezed.count(form) for form in _forms(text, short))
        if short and there < rest.count(short):
            missing.add(text)
            rest = "\0".join(texts[item.text] for item in given if item.text not in missing)
    return [item for item in given if item.text in missing]


def _forms(text: str, short: str) -> set[str]:
    """Return how a text may be written in a prompt, without white space."""
    escaped = (json.dumps(text.strip(), ensure_ascii=ascii)[1:-1] for ascii in (True, False))
    return {short, *map(_squeezed, escaped)}


def _squeezed(text: str) -> str:
    return "".join(text.split())

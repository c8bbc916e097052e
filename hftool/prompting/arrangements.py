"""The ways to write one chat, of which a template may accept only some."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from hftool.prompting.messages import (
    TEXT_PARTS,
    Message,
    is_parts,
    object_of,
    text_of,
    with_arguments,
)

_LATER_SYSTEM = "takes only one system message: the text of others goes into the user's message"
_SYSTEM = "takes no system message: its text goes into the user's message"
_ALTERNATE = "wants roles to alternate: consecutive messages of a role are joined"
_DEVELOPER = "takes no developer message: it becomes a system message"
_CALLS = "takes no function_call: it becomes a tool call, and a function's message a tool's"
_JOINED = ("system", "user", "assistant")  # a tool's results answer calls of their own


@dataclass(frozen=True)
class Arrangement:
    """The messages of a chat in one way of writing them, and what that changes, if anything."""

    messages: list[Message]
    changes: tuple[str, ...] = ()


def arrangements(messages: Sequence[Message]) -> Iterator[Arrangement]:
    """Yield the ways to write a chat: first as it is, then in other notations of the same, and at
    last with messages moved or joined."""
    seen: list[list[Message]] = []
    for rearranged in _rearranged(list(messages)):
        for written in _notations(rearranged.messages):
            if written not in seen:
                seen.append(written)
                yield Arrangement(written, rearranged.changes)


def _rearranged(messages: list[Message]) -> Iterator[Arrangement]:
    yield Arrangement(messages)
    for calls, developer, system, alternating in product((0, 1), (0, 1), (0, 1, 2), (0, 1)):
        arranged, changes = messages, []
        if calls and (with_calls := list(_with_tool_calls(arranged))) != arranged:
            arranged = with_calls
            changes.append(_CALLS)
        if developer and any(m["role"] == "developer" for m in arranged):
            arranged = [_as_system(m) for m in arranged]
            changes.append(_DEVELOPER)
        if system:
            first = 1 if system == 1 and arranged[0]["role"] == "system" else 0
            if any(m["role"] == "system" for m in arranged[first:]):
                arranged = [*arranged[:first], *_without_system(arranged[first:])]
                changes.append(_LATER_SYSTEM if first else _SYSTEM)
        if alternating and (joined := list(_joined(arranged))) != arranged:
            arranged = joined
            changes.append(_ALTERNATE)
        yield Arrangement(arranged, tuple(changes))


def _with_tool_calls(messages: Sequence[Message]) -> Iterator[Message]:
    """Yield the messages with OpenAI's older `function_call`, and the result after it from the role
    `function`, as a tool call and its result. The ids have 9 letters and digits, as Mistral's
    templates want them."""
    call_id = {}
    for number, message in enumerate(messages):
        call = message.get("function_call")
        if message["role"] == "assistant" and isinstance(call, dict):
            call_id = {"id": f"call{number:05}"}
            function = with_arguments(call, object_of)
            calls = [{**call_id, "type": "function", "function": function}]
            rest = {name: value for name, value in message.items() if name != "function_call"}
            yield {**rest, "tool_calls": [*message.get("tool_calls", ()), *calls]}
        elif message["role"] == "function":
            answered = {"tool_call_id": call_id["id"]} if call_id else {}
            yield {**message, "role": "tool", **answered}
        else:
            yield message


def _as_system(message: Message) -> Message:
    return {**message, "role": "system"} if message["role"] == "developer" else message


def _without_system(messages: Sequence[Message]) -> Iterator[Message]:
    """Yield the messages, each system text put before the next user's message; without one, it
    becomes a user's message itself. So does a system message with other fields."""
    waiting: list[Message] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append({**message, "role": "user"})
        elif message["role"] == "user" and waiting and all(map(_is_plain, waiting)):
            content: Any = ""
            for part in (*waiting, message):
                content = _both(content, part.get("content", ""))
            yield {**message, "content": content}
            waiting = []
        else:
            yield from waiting
            waiting = []
            yield message
    yield from _joined(waiting)


def _is_plain(message: Message) -> bool:
    return message.keys() <= {"role", "content"}


def _joined(messages: Sequence[Message]) -> Iterator[Message]:
    """Yield the messages, consecutive ones of a role joined where no field is lost."""
    last: Message | None = None
    for message in messages:
        if last is not None and _can_join(last, message):
            content = _both(last.get("content", ""), message.get("content", ""))
            last = {**last, **message, "content": content}
            continue
        if last is not None:
            yield last
        last = message
    if last is not None:
        yield last


def _can_join(first: Message, second: Message) -> bool:
    others = [
        {k: v for k, v in m.items() if k not in ("content", "tool_calls")} for m in (first, second)
    ]
    return others[0] == others[1] and first["role"] in _JOINED and "tool_calls" not in first


def _both(first: Any, second: Any) -> Any:
    """Return the content of two messages as that of one."""
    if all(isinstance(c, str) or all(map(_is_text, c)) for c in (first, second)):
        return "\n\n".join(filter(None, map(text_of, (first, second))))
    return [*_parts(first), *_parts(second)]


def _parts(content: Any) -> list[Any]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return list(content)


def _notations(messages: list[Message]) -> Iterator[list[Message]]:
    """Yield the messages in every notation of the same contents."""
    contents = (_unchanged, _in_text, _in_parts)
    arguments = (_unchanged, _with_json_arguments)
    absent = (_unchanged, _with_null_content, _with_empty_content)
    refusals = (_unchanged, _with_refusal)
    for refusal, without, argument, content in product(refusals, absent, arguments, contents):
        yield [without(argument(content(refusal(message)))) for message in messages]


def _unchanged(message: Message) -> Message:
    return message


def _in_text(message: Message) -> Message:
    """Join a message's parts to one text, and write a result that is an object as JSON."""
    content = message.get("content")
    if content is None or (is_parts(content) and not all(_is_text(part) for part in content)):
        return message
    return {**message, "content": text_of(content)}


def _is_text(part: Any) -> bool:
    return isinstance(part, str) or part.get("type", "text") in TEXT_PARTS


def _in_parts(message: Message) -> Message:
    """Write a message's text as a list of one part, as templates of multimodal models want it."""
    content = message.get("content")
    if is_parts(content):
        typed = [{"type": "text", "text": p} if isinstance(p, str) else p for p in content]
        return {**message, "content": [{**p, "type": _usual_type(p)} for p in typed]}
    return {**message, "content": _parts(content)} if isinstance(content, str) else message


def _usual_type(part: dict[str, Any]) -> Any:
    return "text" if _is_text(part) else part["type"]


def _with_json_arguments(message: Message) -> Message:
    """Write the arguments of tool calls as JSON text."""
    if "tool_calls" not in message:
        return message
    return {**message, "tool_calls": [with_arguments(c, _json) for c in message["tool_calls"]]}


def _json(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _with_refusal(message: Message) -> Message:
    """Write a refusal as what the model has said."""
    if message.get("content") or not isinstance(message.get("refusal"), str):
        return message
    rest = {name: value for name, value in message.items() if name != "refusal"}
    return {**rest, "content": message["refusal"]}


def _with_empty_content(message: Message) -> Message:
    return {"content": "", **message} if message["role"] == "assistant" else message


def _with_null_content(message: Message) -> Message:
    answers = message["role"] == "assistant" and not message.get("content")
    return {**message, "content": None} if answers else message

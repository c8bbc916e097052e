"""Chat messages, from JSON and from options."""

import json
from typing import Any

from hftool.errors import HftoolError
from hftool.options.inputs import ChatOptions
from hftool.prompting.chat_template import Message

MESSAGES_HINT = 'as in [{"role": "user", "content": "Hello"}]'


def parse_messages(text: str) -> list[Message]:
    """Messages from JSON: a list of {"role", "content"}, or an object with it as "messages".

    Raises:
        HftoolError: it is no JSON, or no list of messages.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HftoolError(f"the messages are no JSON: {error}") from None
    return as_messages(content.get("messages") if isinstance(content, dict) else content)


def as_messages(messages: Any) -> list[Message]:
    """JSON's value as messages.

    Raises:
        HftoolError: it is no list of objects with role and content, or one holds half a character.
    """
    if not isinstance(messages, list) or not messages:
        raise HftoolError("the messages must be a list", MESSAGES_HINT)
    for number, message in enumerate(messages, 1):
        fields = message if isinstance(message, dict) else {}
        if not all(isinstance(fields.get(name), str) for name in ("role", "content")):
            raise HftoolError(f"message {number} has no role and content", MESSAGES_HINT)
        try:
            (fields["role"] + fields["content"]).encode()
        except UnicodeEncodeError:
            raise HftoolError(f"message {number} holds half a character (a surrogate)") from None
    return messages


def prompt_messages(text: str, options: ChatOptions) -> list[Message]:
    """The messages of a one-turn chat; a prefill stands last, as the assistant's."""
    messages = [{"role": "user", "content": text}]
    if options.system is not None:
        messages.insert(0, {"role": "system", "content": options.system})
    if options.prefill is not None:
        messages.append({"role": "assistant", "content": options.prefill})
    return messages

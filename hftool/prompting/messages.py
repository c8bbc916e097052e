"""Chat messages from JSON and from options."""

import json
from typing import Any

from hftool.errors import HftoolError
from hftool.options.inputs import ChatOptions
from hftool.prompting.chat_template import Message

MESSAGES_HINT = 'as in [{"role": "user", "content": "Hello"}]'


def parse_messages(text: str) -> list[Message]:
    """Parse messages from JSON: a list of {"role", "content"}, or an object with it as "messages".

    Raises:
        HftoolError: the text is not JSON, or not a list of messages.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HftoolError(f"the messages are not valid JSON: {error}") from None
    return as_messages(content.get("messages") if isinstance(content, dict) else content)


def as_messages(messages: Any) -> list[Message]:
    """Check that a JSON value is a list of messages, and return it.

    Raises:
        HftoolError: it is not a list of objects with role and content, or a message contains half
            of a surrogate pair.
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
            raise HftoolError(f"message {number} has half of a surrogate pair") from None
    return messages


def prompt_messages(text: str, options: ChatOptions) -> list[Message]:
    """Return the messages of a chat with one turn; a prefill becomes the assistant's beginning."""
    messages = [{"role": "user", "content": text}]
    if options.system is not None:
        messages.insert(0, {"role": "system", "content": options.system})
    if options.prefill is not None:
        messages.append({"role": "assistant", "content": options.prefill})
    return messages

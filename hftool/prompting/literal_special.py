"""Encode a chat so that special tokens in what it says are ordinary text, and only those of the
template are special."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hftool.errors import HftoolError
from hftool.prompting.messages import Chat
from hftool.tokenization.tokenizer import Tokenizer

_MARK = "90135577"  # put into the names of special tokens; templates neither change nor contain it


def literal_ids(
    tokenizer: Tokenizer, render: Callable[[Chat], str], chat: Chat
) -> list[int] | None:
    """Return the ids of a chat's prompt; None if the chat says no special token.

    The chat is rendered with a mark in each special token that it says. Those that are left are the
    template's, and the text between them is encoded by itself.

    Raises:
        HftoolError: the template changes what the chat says, or the tokenizer gives a text between
            special tokens other ids by itself.
    """
    names = {t.content: i for i, t in tokenizer.added_tokens.items() if t.special}
    pattern = "|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)"
    marked = _marked(chat, re.compile(pattern))
    if marked == chat:
        return None

    def encoded(text: str) -> list[int]:
        return list(tokenizer.encode(text, special=False).ids)

    def joined(text: str) -> list[int]:
        """Return the ids of a text whose parts between special tokens are encoded one by one."""
        parts = re.split(f"({pattern})", text)
        ids = encoded(parts[0].replace(_MARK, ""))
        for name, part in zip(parts[1::2], parts[2::2], strict=True):
            ids += [names[name], *encoded(part.replace(_MARK, ""))]
        return ids

    prompt, text = render(chat), render(marked)
    if text.replace(_MARK, "") != prompt or joined(prompt) != encoded(prompt):
        raise HftoolError(
            f"--no-parse-special: {tokenizer.name} does not keep the texts of a chat apart",
            "leave out the special tokens in the messages",
        )
    with tokenizer.literal_special():
        return joined(text)


def _marked(chat: Chat, special: re.Pattern[str]) -> Chat:
    """Return a chat with a mark in each special token that it says."""

    def changed(value: Any) -> Any:
        if isinstance(value, str):
            return special.sub(lambda match: match[0][0] + _MARK + match[0][1:], value)
        if isinstance(value, list):
            return [changed(item) for item in value]
        if isinstance(value, Mapping):
            return {name: changed(item) for name, item in value.items()}
        return value

    return replace(
        chat,
        messages=changed(chat.messages),
        tools=changed(chat.tools),
        documents=changed(chat.documents),
        variables=changed(chat.variables),
    )

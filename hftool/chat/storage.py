"""Save conversations to files and load them.

A file holds {"model", "settings", "messages"}, with messages as in chat APIs, and beside them what
else the template gets: {"tools", "documents", "chat_template_kwargs", "think"}.
"""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from hftool.atomic_files import atomic_file
from hftool.chat.conversation import Conversation
from hftool.chat.settings import settings_by_name
from hftool.errors import HftoolError
from hftool.options.generation import AnswerOptions
from hftool.prompting.messages import TEMPLATE_FIELDS, Chat, as_chat
from hftool.prompting.prompt import overlaid

_NOTHING = {"role": "user", "content": ""}

log = logging.getLogger("hftool")


def require_writable(path: Path) -> None:
    """Raise where a conversation cannot be saved, so that the chat need not start.

    Raises:
        HftoolError: the path is a folder, or its folder does not exist.
    """
    if path.is_dir() or not path.parent.is_dir():
        cause = "it is a folder" if path.is_dir() else "its folder does not exist"
        raise HftoolError(f"cannot save to {path}: {cause}")


def save(conversation: Conversation, path: Path) -> None:
    """Write a conversation to a file, completely or not at all. Only its owner can read a new file.

    Raises:
        HftoolError: the file cannot be written.
    """
    options = conversation.options
    settings = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    defaults = dataclasses.asdict(type(options)())
    content = {
        "model": conversation.model,
        "settings": {n: value for n, value in settings.items() if value != defaults[n]},
        **_beside_messages(conversation.arguments),
        "messages": conversation.messages,
    }
    require_writable(path)
    with atomic_file(path, private=True) as file:
        json.dump(content, file, ensure_ascii=False, indent=2)
        file.write("\n")


def _beside_messages(arguments: Chat) -> dict[str, Any]:
    """Return what the template gets beside the messages, as `as_chat` reads it."""
    values = (arguments.tools, arguments.documents, dict(arguments.variables), arguments.think)
    given = zip(TEMPLATE_FIELDS, values, strict=True)
    return {name: value for name, value in given if value not in (None, {})}


def load(conversation: Conversation, path: Path) -> None:
    """Continue a saved conversation, or a bare list of messages.

    Its settings apply where the conversation has the default; a seed is that of the next answer.

    Raises:
        HftoolError: the file cannot be read or does not hold a conversation, which then stays
            unchanged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        saved = content if isinstance(content, dict) else {"messages": content}
        if saved.get("messages") == []:  # nothing has been said yet
            chat = dataclasses.replace(as_chat({**saved, "messages": [_NOTHING]}), messages=[])
        else:
            chat = as_chat(saved)
        conversation.configure(_with_settings(conversation.options, saved.get("settings")))
    except OSError as error:
        raise HftoolError(f"cannot load {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise HftoolError(f"cannot load {path}: {error}") from None
    except HftoolError as error:
        raise HftoolError(f"cannot load {path}: {error.message}", error.hint) from None
    conversation.messages = chat.messages
    conversation.arguments = overlaid(chat, conversation.arguments)
    if saved.get("model", conversation.model) != conversation.model:
        log.warning("%s is a conversation with %s", path, saved["model"])


def _with_settings(options: AnswerOptions, saved: Any) -> AnswerOptions:
    """Return the options completed by saved settings; unknown names are ignored."""
    if not isinstance(saved, dict):
        return options
    for name, setting in settings_by_name().items():
        untouched = getattr(options, setting.name) == setting.default
        if saved.get(name) is not None and untouched:
            value = setting.checked(saved[name])
            options = dataclasses.replace(options, **{setting.name: value})
    return options

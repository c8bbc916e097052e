"""Conversations in files: {"model", "settings", "messages"}, messages as in the chat API."""

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
from hftool.prompting.messages import as_messages

log = logging.getLogger("hftool")


def require_place(path: Path) -> None:
    """Raise where a conversation can't be saved, before anything is said.

    Raises:
        HftoolError: there is no such folder, or a folder stands there.
    """
    if path.is_dir() or not path.parent.is_dir():
        cause = "it is a folder" if path.is_dir() else "there is no such folder"
        raise HftoolError(f"cannot save to {path}: {cause}")


def save(conversation: Conversation, path: Path) -> None:
    """Write a conversation, whole or not at all; a new file is readable by its owner alone.

    Raises:
        HftoolError: the file can't be written.
    """
    settings = dataclasses.asdict(conversation.options)
    content = {
        "model": conversation.model,
        "settings": {name: value for name, value in settings.items() if value is not None},
        "messages": conversation.messages,
    }
    require_place(path)
    with atomic_file(path, private=True) as file:
        json.dump(content, file, ensure_ascii=False, indent=2)
        file.write("\n")


def load(conversation: Conversation, path: Path) -> None:
    """Go on with a saved conversation, or with a bare list of messages.

    Of its settings those count that are not given here; a seed is the one that would come next.

    Raises:
        HftoolError: the file can't be read, or is no conversation. Then nothing has changed.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        saved = content if isinstance(content, dict) else {"messages": content}
        listed = saved.get("messages")
        messages = [] if listed == [] else as_messages(listed)
        conversation.configure(_with_settings(conversation.options, saved.get("settings")))
    except OSError as error:
        raise HftoolError(f"cannot load {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise HftoolError(f"cannot load {path}: {error}") from None
    except HftoolError as error:
        raise HftoolError(f"cannot load {path}: {error.message}", error.hint) from None
    conversation.messages = messages
    if saved.get("model", conversation.model) != conversation.model:
        log.warning("%s is a conversation with %s", path, saved["model"])


def _with_settings(options: AnswerOptions, saved: Any) -> AnswerOptions:
    """Options completed by saved ones; names that are unknown here don't count."""
    if not isinstance(saved, dict):
        return options
    for name, setting in settings_by_name().items():
        untouched = getattr(options, setting.name) == setting.default
        if saved.get(name) is not None and untouched:
            value = setting.checked(saved[name])
            options = dataclasses.replace(options, **{setting.name: value})
    return options

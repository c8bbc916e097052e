"""Prompts as they are given, and the token ids that a model receives for them."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError, UsageError, exclude
from hftool.inputs.texts import one_text, texts
from hftool.options.inputs import (
    ChatOptions,
    FileOptions,
    InputOptions,
    PartialPromptOptions,
    PromptOptions,
    TemplateOptions,
)
from hftool.prompting.chat_template import ChatTemplate, chat_template
from hftool.prompting.messages import (
    Chat,
    Message,
    as_objects,
    checked,
    parse_chat,
    require_variable,
)
from hftool.tokenization.given_ids import note_unusual_ids, parse_ids, require_in_vocabulary
from hftool.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hftool")


@dataclass(frozen=True)
class GivenIds:
    """Token ids that are a prompt as they are, and how they were written."""

    ids: tuple[int, ...]
    text: str


Prompt = str | Chat | GivenIds
"""A text or token ids that the model continues, or a chat that it answers."""


def prompts(argument: str | None, inputs: FileOptions, options: ChatOptions) -> Iterator[Prompt]:
    """Yield what a command is to work on: texts, or chats where an option asks for them.

    Raises:
        UsageError: there is nothing, or two things; or an option has a wrong value.
        HftoolError: a file cannot be read, or is not what it should be.
    """
    if options.messages is not None:
        _require_only_messages(argument, inputs, options)
        return iter([read_chat(options.messages, inputs, options)])
    by_ids = isinstance(options, PartialPromptOptions) and options.ids
    if by_ids and argument == "-":
        argument = None
    if isinstance(inputs, InputOptions):
        given = texts(argument, inputs)
    else:
        given = iter([one_text(argument, inputs)])
    if by_ids:
        return (GivenIds(parse_ids(text), text) for text in given)
    if not options.templated:
        return given
    return (chat_of_text(text, options) for text in given)


def _require_only_messages(argument: str | None, inputs: FileOptions, options: ChatOptions) -> None:
    others = {
        "a text": argument is not None,
        "--file": inputs.file is not None,
        "--lines": isinstance(inputs, InputOptions) and inputs.lines,
        "--system": options.system is not None,
        "--prefill": options.prefill is not None,
    }
    for name, is_given in others.items():
        exclude({"--messages": True, name: is_given})


def read_chat(path: Path, inputs: FileOptions, options: ChatOptions) -> Chat:
    """Read a chat from a JSON file (`-` is stdin); options come before what the file says.

    Raises: as `prompts`.
    """
    chat, ignored = parse_chat(one_text(None, FileOptions(path, inputs.errors)))
    if ignored:
        log.warning("%s: hftool does not use %s", path, ", ".join(ignored))
    return overlaid(chat, arguments_of(options))


def chat_of_text(text: str, options: ChatOptions) -> Chat:
    """Return a chat with one turn; a prefill becomes the assistant's beginning.

    Raises: as `prompts`.
    """
    messages: list[Message] = [{"role": "user", "content": text}]
    if options.system is not None:
        messages.insert(0, {"role": "system", "content": options.system})
    if options.prefill is not None:
        messages.append({"role": "assistant", "content": options.prefill})
    return replace(arguments_of(options), messages=messages)


def arguments_of(options: ChatOptions) -> Chat:
    """Return what options give to the template beside the messages, for chats as prompts.

    Raises: as `template_arguments`.
    """
    return template_arguments(options, no_generation_prompt=options.no_generation_prompt)


def template_arguments(options: TemplateOptions, *, no_generation_prompt: bool = False) -> Chat:
    """Return what options give to the template beside the messages.

    Raises:
        UsageError: a variable has a wrong name.
        HftoolError: a file cannot be read, or is not what it should be.
    """
    return Chat(
        [],
        None if options.tools is None else read_objects(options.tools, "tools"),
        None if options.documents is None else read_objects(options.documents, "documents"),
        dict(map(parse_variable, options.template_arg or ())),
        options.think,
        not no_generation_prompt,
    )


def with_variables(prompt: Prompt, given: Sequence[str]) -> Prompt:
    """Return a chat with more variables, each as KEY=VALUE; a text unchanged.

    Raises: as `parse_variable`.
    """
    if not isinstance(prompt, Chat):
        return prompt
    return replace(prompt, variables={**prompt.variables, **dict(map(parse_variable, given))})


def overlaid(chat: Chat, other: Chat) -> Chat:
    """Return a chat with what another says beside its messages, if it says anything."""
    return replace(
        chat,
        tools=other.tools or chat.tools,
        documents=other.documents or chat.documents,
        variables={**chat.variables, **other.variables},
        think=chat.think if other.think is None else other.think,
        answer=chat.answer and other.answer,
    )


@lru_cache(maxsize=4)  # a batch has one file for all its records
def read_objects(path: Path, name: str) -> list[dict[str, Any]]:
    """Read tools or documents from a JSON file: a list, or an object that has it by its name.

    Raises:
        HftoolError: the file cannot be read, or does not have them.
    """
    try:
        content = json.loads(one_text(None, FileOptions(path)))
    except (ValueError, RecursionError) as error:
        raise HftoolError(f"{path} is not valid JSON: {error}") from None
    objects = as_objects(content.get(name) if isinstance(content, dict) else content, name)
    if objects is None:
        raise HftoolError(f"{path} has no {name}")
    return objects


def parse_variable(text: str) -> tuple[str, Any]:
    """Parse KEY=VALUE; the value is JSON where it can be read so, else text.

    Raises:
        UsageError: there is no name, or it is that of another option.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise UsageError(
            f"'{text[:40]}' is not a variable and its value",
            "as in --template-arg enable_thinking=false",
        )
    try:
        require_variable(name)
    except HftoolError as error:
        raise UsageError(error.message, error.hint) from None
    try:
        return name, checked(json.loads(value, parse_constant=_no_constant), name)
    except (ValueError, RecursionError, HftoolError):
        return name, value


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are not JSON


def template_of(tokenizer: Tokenizer, options: TemplateOptions, chat: Chat) -> ChatTemplate:
    """Return the template for a chat. Raises: as `chat_template`."""
    with_tools = chat.tools is not None
    return chat_template(tokenizer, options.chat_template, options.template, tools=with_tools)


def rendered(tokenizer: Tokenizer, prompt: Prompt, options: ChatOptions) -> str:
    """Return a prompt as the text that is encoded. Raises: as `template_of` and `render`."""
    if not isinstance(prompt, Chat):
        return prompt if isinstance(prompt, str) else prompt.text
    return template_of(tokenizer, options, prompt).render(prompt)


def prompt_text(prompt: Prompt, tokenizer: Tokenizer) -> str:
    """Return what records show of a prompt: the text, or that of a chat's last message."""
    if isinstance(prompt, GivenIds):
        return tokenizer.decode(prompt.ids)
    return prompt if isinstance(prompt, str) else prompt.text


def prompt_ids(tokenizer: Tokenizer, prompt: Prompt, options: PartialPromptOptions) -> list[int]:
    """Return the token ids of a prompt.

    Raises:
        HftoolError: the prompt is empty, the chat template is missing or fails, or the vocabulary
            lacks a given id.
    """
    if isinstance(prompt, str) and options.templated:
        prompt = chat_of_text(prompt, options)
    literal = options.no_parse_special
    if isinstance(prompt, Chat):
        ids = template_of(tokenizer, options, prompt).ids(prompt, literal=literal)
    elif isinstance(prompt, GivenIds):
        ids = list(prompt.ids)
        require_in_vocabulary(tokenizer, ids)
        note_unusual_ids(tokenizer, ids)
    else:
        special = isinstance(options, PromptOptions) and options.special
        with tokenizer.literal_special(literal):
            ids = list(tokenizer.encode(prompt, special).ids)
    if not ids:
        raise HftoolError("the prompt is empty: the model needs at least one token")
    return ids

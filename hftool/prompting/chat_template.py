"""Render a chat as one text through a chat template, whatever messages that accepts."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError
from hftool.prompting import template_sandbox
from hftool.prompting.arrangements import Arrangement, arrangements
from hftool.prompting.given_texts import (
    GivenText,
    also_in,
    is_garbled,
    missing_extras,
    missing_texts,
)
from hftool.prompting.literal_special import literal_ids
from hftool.prompting.messages import Chat, Message, text_of
from hftool.prompting.reasoning import tags_of
from hftool.prompting.template_sandbox import OutOfBounds, TemplateError
from hftool.prompting.thinking import Switch, possible_switches
from hftool.tokenization.chat_templates import DEFAULT, read_template
from hftool.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hftool")

PLAIN_FRAME = (
    "{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}\n\n"
    "{% else %}{{ message.role | capitalize }}: {{ message.content | trim }}\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""The template for a model that has none."""
PLAIN_STOP = "\nUser:"  # how such a model would begin to write the user's next turn

TOOL_TEMPLATE = "tool_use"  # the template for chats with tools, if a model has one of its own
MAX_WARNINGS = 20  # per template: a batch may have thousands of chats with the same fault

_REASONING = ("reasoning_content", "thinking", "reasoning")
_QUESTION = [{"role": "user", "content": "What is that?"}]
_MARK = "73510091"  # templates neither change nor contain it


@lru_cache(maxsize=16)
def chat_template(
    tokenizer: Tokenizer,
    file: Path | None = None,
    name: str | None = None,
    *,
    tools: bool = False,
    plain: bool = False,
) -> "ChatTemplate":
    """Return the template of `file`, else the model's own, else (with `plain`) a plain frame.

    The result is cached, so that a template logs each of its warnings only once.

    Args:
        name: which of the model's templates; otherwise it is the one called "default", or with
            `tools` the one called "tool_use" if there is one.

    Raises:
        HftoolError: the model has no such template, or the file cannot be read.
    """
    if file is not None:
        return ChatTemplate(tokenizer, read_template(file), name=f"the chat template {file}")
    templates = tokenizer.chat_templates
    if name is None:
        name = TOOL_TEMPLATE if tools and TOOL_TEMPLATE in templates else DEFAULT
    elif name not in templates:
        raise _no_such_template(tokenizer, f"has no chat template '{name}'")
    if name in templates:
        kind = "chat template" if name == DEFAULT else f"chat template '{name}'"
        return ChatTemplate(tokenizer, templates[name], name=f"the {kind} of {tokenizer.name}")
    if templates:
        raise _no_such_template(tokenizer, "has several chat templates, and none is the default")
    if not plain:
        raise _no_such_template(tokenizer, "has no chat template")
    log.warning(
        "%s has no chat template: hftool uses a plain frame, User: and Assistant:", tokenizer.name
    )
    return ChatTemplate(tokenizer, PLAIN_FRAME, stop=PLAIN_STOP)


def _no_such_template(tokenizer: Tokenizer, cause: str) -> HftoolError:
    hint = "leave out --chat to continue the plain text, or give a template: --chat-template FILE"
    if tokenizer.chat_templates:
        hint = "choose one: " + ", ".join(f"--template {n}" for n in tokenizer.chat_templates)
    return HftoolError(f"{tokenizer.name} {cause}", hint)


class ChatTemplate:
    """A chat template (Jinja) and the tokenizer that encodes its output.

    A template gets a chat as it is. Only if it fails, or leaves out a text, it gets the same chat
    in another notation (parts as text, arguments as JSON), and then with messages rearranged: what
    is said in a system message put before the user's next message, consecutive messages of a role
    joined. That is logged once, and so is a text that is not in the prompt at all. The template
    itself decides whether to keep the reasoning in earlier answers.

    Args:
        name: what errors call it.
        stop: the string that ends an answer, if no token does; only the plain frame has one.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        source: str,
        *,
        name: str | None = None,
        stop: str | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._source = source
        self._name = name or f"the chat template of {tokenizer.name}"
        self.stop = stop
        self._warned: set[str] = set()

    def render(self, chat: Chat) -> str:
        """Render a chat as the model receives it.

        A chat that ends with an answer of the assistant is left open there, to be continued, unless
        the chat is complete or the answer calls a tool.

        Raises:
            HftoolError: the template fails, or it has no switch for `chat.think`.
        """
        try:
            prompt = self._prompt(chat, self._variables(chat))
        except (OutOfBounds, TemplateError) as error:
            raise HftoolError(f"{self._name} fails: {error}") from None
        for extra in missing_extras(chat, prompt):
            self._warn(f"does not use the {extra}: they are not in the prompt")
        return prompt

    def ids(self, chat: Chat, *, literal: bool = False) -> list[int]:
        """Return the token ids of `render`.

        Args:
            literal: special tokens in what the chat says are ordinary text.

        Raises:
            HftoolError: as `render` and `literal_ids`.
        """
        prompt = self.render(chat)
        if literal and (ids := literal_ids(self._tokenizer, self.render, chat)) is not None:
            return ids
        # Templates write special tokens themselves: the tokenizer would add a second BOS.
        special = self.stop is not None
        return list(self._tokenizer.encode(prompt, special).ids)

    def _variables(self, chat: Chat) -> dict[str, Any]:
        for name in chat.variables:
            if name not in self._own_variables:
                close = get_close_matches(name, self._own_variables, n=1)
                guess = f" (did you mean {close[0]}?)" if close else ""
                self._warn(f"has no variable {name}, so it has no effect{guess}")
        switched = {}
        if chat.think is not None:
            if self._switch is None:
                raise HftoolError(
                    f"{self._name} has no switch that turns thinking on or off",
                    "leave out --think and --no-think",
                )
            switched = self._switch.values(chat.think)
        extras = {"tools": chat.tools, "documents": chat.documents}
        return {**self._tokenizer.special_tokens, **extras, **switched, **chat.variables}

    @cached_property
    def _own_variables(self) -> dict[str, list[str]]:
        return template_sandbox.variables_of(self._source)

    @cached_property
    def _literals(self) -> str:
        return template_sandbox.literals_of(self._source)

    @cached_property
    def _switch(self) -> Switch | None:
        """The variable that turns thinking on or off, which is one that changes the prompt."""
        for switch in possible_switches(self._own_variables):
            try:
                on, off = (self._asked(switch.values(think)) for think in (True, False))
            except TemplateError:
                continue
            if on != off:
                return switch
        return None

    def _asked(self, variables: dict[str, Any]) -> str:
        common = {**self._tokenizer.special_tokens, "add_generation_prompt": True}
        return template_sandbox.render(self._source, _QUESTION, {**common, **variables})

    def _prompt(self, chat: Chat, variables: dict[str, Any]) -> str:
        *earlier, last = chat.messages
        calls = "tool_calls" in last or "function_call" in last
        if last["role"] == "assistant" and chat.answer and not calls:
            return self._continued(earlier, last, variables)
        asking = chat.answer and last["role"] != "assistant"
        return self._fitted(chat.messages, {**variables, "add_generation_prompt": asking})

    def _continued(
        self, earlier: list[Message], last: Message, variables: Mapping[str, Any]
    ) -> str:
        """Render a chat whose last answer has only begun."""
        beginning = text_of(last.get("content"))
        reasoning = next((name for name in _REASONING if last.get(name)), None)
        field = "content" if beginning.strip() else reasoning
        if field is not None or not earlier:
            how = {**variables, "continue_final_message": field or True}
            try:
                prompt = self._fitted([*earlier, last], how)
            except TemplateError:
                if not earlier or field != "content":
                    raise
            else:
                if field == "content" and not prompt.endswith(beginning):
                    self._warn("removes white space at the end of the answer's beginning")
                return prompt
        # The template does not keep the beginning as it is: it may be part of the reasoning.
        prompt = self._fitted(earlier, {**variables, "add_generation_prompt": True})
        opening = tags_of(self._tokenizer).opening
        if prompt.rstrip().endswith(opening) and beginning.lstrip().startswith(opening):
            prompt = prompt.rstrip().removesuffix(opening)
        return prompt + beginning

    def _fitted(self, messages: list[Message], variables: Mapping[str, Any]) -> str:
        """Render messages in the first arrangement that the template accepts and that loses no
        text; if all of them lose some, in the one that loses least."""
        best: _Attempt | None = None
        failure: TemplateError | None = None
        for arrangement in arrangements(messages):
            try:
                prompt = self._rendered(arrangement.messages, variables)
            except TemplateError as error:
                failure = failure or error
                continue
            missing = missing_texts(messages, prompt)
            if not missing and not arrangement.changes:
                missing = self._only_seemingly_there(arrangement.messages, variables)
            garbled = is_garbled(arrangement.messages, prompt)
            attempt = _Attempt(arrangement, prompt, garbled, missing)
            if best is None or attempt.faults < best.faults:
                best = attempt
            if not any(attempt.faults):
                break
        if best is None:
            raise failure or TemplateError("it accepts no chat")
        for change in best.arrangement.changes:
            self._warn(change)
        for place, group in groupby(best.missing, key=lambda text: text.place):
            texts = ", ".join(text.text.strip() for text in group)
            self._warn(f"leaves out {place}: {texts if len(texts) <= 60 else texts[:59] + '…'}")
        return best.prompt

    def _only_seemingly_there(
        self, messages: list[Message], variables: Mapping[str, Any]
    ) -> list[GivenText]:
        """Return the texts that a prompt has only because the template or a tool has them too,
        such as "time": those whose end, if it is marked, is not in the prompt."""
        suspects = also_in(messages, self._literals + json.dumps(variables, ensure_ascii=False))
        if not suspects:
            return []
        marked = [
            {**m, "content": f"{m['content']} {_MARK}{i}"} if i in suspects else m
            for i, m in enumerate(messages)
        ]
        try:
            prompt = self._rendered(marked, variables)
        except TemplateError:  # it depends on what the text is
            return []
        return [text for i, text in suspects.items() if f"{_MARK}{i}" not in prompt]

    def _rendered(self, messages: list[Message], variables: Mapping[str, Any]) -> str:
        return template_sandbox.render(self._source, messages, dict(variables))

    def _warn(self, what: str) -> None:
        if what not in self._warned and len(self._warned) < MAX_WARNINGS:
            log.warning("%s %s", self._name, what)
            if len(self._warned) == MAX_WARNINGS - 1:
                log.warning("further warnings about %s are left out", self._name)
        self._warned.add(what)


@dataclass(frozen=True)
class _Attempt:
    """A chat in one arrangement, and what is wrong with it."""

    arrangement: Arrangement
    prompt: str
    garbled: bool
    missing: list[GivenText]

    @property
    def faults(self) -> tuple[bool, int]:
        return self.garbled, len(self.missing)

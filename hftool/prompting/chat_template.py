"""Render a chat as one text through the model's chat template, whatever roles that accepts."""

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError
from hftool.prompting.template_sandbox import OutOfBounds, bounded
from hftool.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hftool")

Message = dict[str, str]

PLAIN_FRAME = (
    "{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}\n\n"
    "{% else %}{{ message.role | capitalize }}: {{ message.content | trim }}\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""The template for a model that has none."""
PLAIN_STOP = "\nUser:"  # how such a model would begin to write the user's next turn

MAX_ADDED = 1_000_000  # characters that a template may add to the chat
MAX_REPEATS = 10  # times that a template may repeat the chat

_PROBES = ("73510091", "73510092")  # texts that templates neither change nor contain


@lru_cache(maxsize=16)
def chat_template(
    tokenizer: Tokenizer, file: Path | None = None, *, plain: bool = False
) -> "ChatTemplate":
    """Return the template of `file`, else the model's own, else (with `plain`) a plain frame.

    The result is cached, so that a template logs each of its warnings only once.

    Raises:
        HftoolError: the model has no template, or the file cannot be read.
    """
    if file is not None:
        return ChatTemplate(tokenizer, _read(file))
    if tokenizer.chat_template is not None:
        return ChatTemplate(tokenizer, tokenizer.chat_template)
    if not plain:
        raise HftoolError(
            f"{tokenizer.name} has no chat template",
            "leave out --chat to continue the plain text, or give a template: --chat-template FILE",
        )
    log.warning(
        "%s has no chat template: hftool uses a plain frame, User: and Assistant:", tokenizer.name
    )
    return ChatTemplate(tokenizer, PLAIN_FRAME, stop=PLAIN_STOP)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise HftoolError(f"cannot read the chat template {file}: {cause}") from None


class ChatTemplate:
    """A chat template (Jinja) and the tokenizer that encodes its output.

    If the template does not accept a system message, its text is put before the next user's
    message. If the template requires roles to alternate, consecutive messages of one role are
    joined. Either is logged once. The template itself decides whether to keep the reasoning in
    earlier answers.

    Args:
        stop: the string that ends an answer, if no token does; only the plain frame has one.
    """

    def __init__(self, tokenizer: Tokenizer, source: str, *, stop: str | None = None) -> None:
        self._tokenizer = tokenizer
        self._source = source
        self.stop = stop
        self._warned: set[str] = set()

    def render(self, messages: Sequence[Message], *, answer: bool = True) -> str:
        """Render messages as the model receives them.

        Args:
            answer: end where the model's answer begins, or, if the last message is the
                assistant's, leave that open to be continued; otherwise render only the messages,
                all of them closed.

        Raises:
            HftoolError: the template fails.
        """
        arranged = self._arrange(messages)
        open_ended = answer and arranged[-1]["role"] == "assistant"
        return self._render(
            arranged,
            add_generation_prompt=answer and not open_ended,
            continue_final_message=open_ended,
        )

    def ids(self, messages: Sequence[Message], *, answer: bool = True) -> list[int]:
        """Return the token ids of `render`. Raises: as `render`."""
        # Templates write special tokens themselves: the tokenizer would add a second BOS.
        special = self.stop is not None
        return list(self._tokenizer.encode(self.render(messages, answer=answer), special).ids)

    @cached_property
    def opens_thinking(self) -> bool:
        """Whether the template itself opens the model's reasoning: `<think>` ends the prompt."""
        try:
            prompt = self.render([{"role": "user", "content": _PROBES[0]}])
        except HftoolError:
            return False
        return prompt.rstrip().endswith("<think>")

    @cached_property
    def _accepts_system(self) -> bool:
        return self._accepts("system", "user")

    @cached_property
    def _accepts_repeats(self) -> bool:
        return self._accepts("user", "user")

    def _accepts(self, *roles: str) -> bool:
        """Return whether a chat with these roles renders, with the text of every message."""
        chat = [{"role": r, "content": text} for r, text in zip(roles, _PROBES, strict=True)]
        try:
            rendered = self._render(chat, add_generation_prompt=True)
        except HftoolError:
            return False
        return all(message["content"] in rendered for message in chat)

    def _arrange(self, messages: Sequence[Message]) -> list[Message]:
        """Adapt messages to the roles that the template accepts."""
        arranged = list(messages)
        if any(m["role"] == "system" for m in arranged) and not self._accepts_system:
            self._warn_once("takes no system message: its text goes into the user's message")
            arranged = list(_without_system(arranged))
        if any(len(run) > 1 for run in _runs(arranged)) and not self._accepts_repeats:
            self._warn_once("wants roles to alternate: consecutive messages of a role are joined")
            texts = (("\n\n".join(m["content"] for m in run), run[0]) for run in _runs(arranged))
            arranged = [{**first, "content": text} for text, first in texts]
        return arranged

    def _warn_once(self, what: str) -> None:
        if what not in self._warned:
            log.warning("the chat template of %s %s", self._tokenizer.name, what)
        self._warned.add(what)

    def _render(self, messages: list[Message], **variables: Any) -> str:
        """Render messages in transformers' sandbox, with the variables of `apply_chat_template`."""
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            with bounded(self._source):
                rendered: Any = render_jinja_template(
                    conversations=[messages],
                    chat_template=self._source,
                    **{**self._tokenizer.special_tokens, **variables},
                )
            text = str(rendered[0][0])
            if len(text) > MAX_ADDED + MAX_REPEATS * sum(len(m["content"]) for m in messages):
                raise OutOfBounds(f"it makes {len(text):,} characters of the chat")
            text.encode()  # tokenizers reject half of a surrogate pair
        except Exception as error:  # the template is a program, which can fail in any way
            cause = str(error)[:300]
            raise HftoolError(
                f"the chat template of {self._tokenizer.name} fails: {cause}"
            ) from None
        return text


def _runs(messages: Sequence[Message]) -> list[list[Message]]:
    """Return the messages in groups of consecutive ones with the same role."""
    return [list(group) for _, group in groupby(messages, key=lambda m: m["role"])]


def _without_system(messages: Sequence[Message]) -> Iterator[Message]:
    """Yield the messages, each system text put before the next user's message; without one, it
    becomes a user's message itself."""
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
        elif message["role"] == "user" and waiting:
            yield {**message, "content": "\n\n".join(filter(None, (*waiting, message["content"])))}
            waiting = []
        else:
            yield message
    if waiting:
        yield {"role": "user", "content": "\n\n".join(waiting)}

"""Chats as the one text a model is given: its chat template, whatever roles that takes."""

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
"""What a model without a template is given in a chat."""
PLAIN_STOP = "\nUser:"  # where such a model goes on to speak for the user

LONGEST, TIMES = 1_000_000, 10  # characters a template may add; how often it may repeat the chat

_PROBES = ("73510091", "73510092")  # texts that no template changes, and that none holds


@lru_cache(maxsize=16)
def chat_template(
    tokenizer: Tokenizer, file: Path | None = None, *, plain: bool = False
) -> "ChatTemplate":
    """The template of `file`, else the model's own, else with `plain` a plain frame.

    The same one each time it is asked for: what it says once is said once.

    Raises:
        HftoolError: there is none, or the file can't be read.
    """
    if file is not None:
        return ChatTemplate(tokenizer, _read(file))
    if tokenizer.chat_template is not None:
        return ChatTemplate(tokenizer, tokenizer.chat_template)
    if not plain:
        raise HftoolError(
            f"{tokenizer.name} has no chat template",
            "leave out --chat to continue the plain text, or name one with --chat-template FILE",
        )
    log.warning(
        "%s has no chat template: it gets a plain frame, User: and Assistant:", tokenizer.name
    )
    return ChatTemplate(tokenizer, PLAIN_FRAME, stop=PLAIN_STOP)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise HftoolError(f"cannot read the chat template {file}: {cause}") from None


class ChatTemplate:
    """A chat template (Jinja) and the tokenizer that reads what it writes.

    Where it takes no system message, its text goes to the beginning of the next user's message;
    where it wants roles to alternate, messages of one role in a row are joined. Either is logged
    once. What becomes of reasoning in earlier answers is the template's own business.

    Args:
        stop: the text that ends an answer, where it is no token; only the plain frame has one.
    """

    def __init__(self, tokenizer: Tokenizer, source: str, *, stop: str | None = None) -> None:
        self._tokenizer = tokenizer
        self._source = source
        self.stop = stop
        self._said: set[str] = set()

    def render(self, messages: Sequence[Message], *, answer: bool = True) -> str:
        """Messages as the model is given them.

        Args:
            answer: up to where its answer begins, a last message of the assistant's left open to
                be continued; otherwise only what has been said, each message closed.

        Raises:
            HftoolError: the template fails.
        """
        arranged = self._arranged(messages)
        open_ended = answer and arranged[-1]["role"] == "assistant"
        return self._rendered(
            arranged,
            add_generation_prompt=answer and not open_ended,
            continue_final_message=open_ended,
        )

    def ids(self, messages: Sequence[Message], *, answer: bool = True) -> list[int]:
        """The tokens of `render`. Raises the same."""
        # A template writes the special tokens itself: a tokenizer's own BOS would be a second.
        special = self.stop is not None
        return list(self._tokenizer.encode(self.render(messages, answer=answer), special).ids)

    @cached_property
    def opens_thinking(self) -> bool:
        """Whether the template itself begins the model's reasoning: `<think>` ends the prompt."""
        try:
            prompt = self.render([{"role": "user", "content": _PROBES[0]}])
        except HftoolError:
            return False
        return prompt.rstrip().endswith("<think>")

    @cached_property
    def _takes_system(self) -> bool:
        return self._keeps("system", "user")

    @cached_property
    def _takes_repeats(self) -> bool:
        return self._keeps("user", "user")

    def _keeps(self, *roles: str) -> bool:
        """Whether a chat of these roles renders, with all its texts."""
        chat = [{"role": r, "content": text} for r, text in zip(roles, _PROBES, strict=True)]
        try:
            rendered = self._rendered(chat, add_generation_prompt=True)
        except HftoolError:
            return False
        return all(message["content"] in rendered for message in chat)

    def _arranged(self, messages: Sequence[Message]) -> list[Message]:
        arranged = list(messages)
        if any(m["role"] == "system" for m in arranged) and not self._takes_system:
            self._say_once("takes no system message: its text goes into the user's message")
            arranged = list(_without_system(arranged))
        if any(len(run) > 1 for run in _runs(arranged)) and not self._takes_repeats:
            self._say_once("wants roles to alternate: messages of one role in a row are joined")
            texts = (("\n\n".join(m["content"] for m in run), run[0]) for run in _runs(arranged))
            arranged = [{**first, "content": text} for text, first in texts]
        return arranged

    def _say_once(self, what: str) -> None:
        if what not in self._said:
            log.warning("the chat template of %s %s", self._tokenizer.name, what)
        self._said.add(what)

    def _rendered(self, messages: list[Message], **variables: Any) -> str:
        """Rendered by transformers (a sandbox), with what `apply_chat_template` gives it."""
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            with bounded(self._source):
                rendered: Any = render_jinja_template(
                    conversations=[messages],
                    chat_template=self._source,
                    **{**self._tokenizer.special_tokens, **variables},
                )
            text = str(rendered[0][0])
            if len(text) > LONGEST + TIMES * sum(len(m["content"]) for m in messages):
                raise OutOfBounds(f"it makes {len(text):,} characters of the chat")
            text.encode()  # half a character is none that a tokenizer takes
        except Exception as error:  # a template is a program of the model's: it may fail in any way
            cause = str(error)[:300]
            raise HftoolError(
                f"the chat template of {self._tokenizer.name} fails: {cause}"
            ) from None
        return text


def _runs(messages: Sequence[Message]) -> list[list[Message]]:
    """Messages in groups of one role."""
    return [list(group) for _, group in groupby(messages, key=lambda m: m["role"])]


def _without_system(messages: Sequence[Message]) -> Iterator[Message]:
    """Each system text at the beginning of the user's message after it, or as one where none is."""
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

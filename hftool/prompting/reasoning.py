"""Find a model's reasoning in its answer: from `<think>` at the beginning to `</think>`, or between
the tags that the model has instead."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from hftool.errors import HftoolError
from hftool.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class Tags:
    """What begins and ends the reasoning of a family of models.

    Attributes:
        turn: what comes after the reasoning, if the model begins another turn there.
        answer: what begins each answer, after `turn` or without reasoning; "" if nothing does.
    """

    opening: str
    closing: str
    turn: str = ""
    answer: str = ""

    @property
    def to_answer(self) -> str:
        """All that comes between the reasoning and the answer."""
        return self.closing + self.turn + self.answer

    def beginnings(self, *, after_thought: bool) -> dict[str, bool]:
        """Return the tags that may come before the answer, each with whether reasoning follows.

        Args:
            after_thought: reasoning has come before; otherwise nothing has.
        """
        turn = self.turn if after_thought else ""
        tags = {turn + self.answer: False} if turn + self.answer else {}
        return {turn + self.opening: True, **tags} if turn or not after_thought else tags


DEFAULT = Tags("<think>", "</think>")  # Qwen, DeepSeek, GLM, SmolLM3 and most others
TAGS = (
    Tags("<|channel|>analysis<|message|>", "<|end|>", "<|start|>assistant",
         "<|channel|>final<|message|>"),  # gpt-oss (harmony)
    Tags("<|channel>thought", "<channel|>"),  # Gemma 4
    Tags("<|START_THINKING|>", "<|END_THINKING|>", answer="<|START_RESPONSE|>"),  # Command
    Tags("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    Tags("[THINK]", "[/THINK]"),  # Magistral
    Tags("<seed:think>", "</seed:think>"),  # Seed-OSS
    Tags("<mm:think>", "</mm:think>"),  # MiniMax M3
    Tags("◁think▷", "◁/think▷"),  # Kimi-VL
    Tags("<thought>", "</thought>"),  # EXAONE Deep
    Tags("Here is my thought process:", "Here is my response:"),  # Granite 3.2
    DEFAULT,
)  # fmt: skip
_TOKEN = re.compile(r"<[^<>]+>|\[/?THINK\]|◁/?think▷")
LONGEST_TAIL = 32  # tokens that a tag and the white space around it can have


@lru_cache(maxsize=16)
def known_tags(tokenizer: Tokenizer) -> Tags | None:
    """Return the first of `TAGS` that a model's chat templates write, or that its vocabulary has;
    None if it has none of them."""
    try:
        templates = "".join(tokenizer.chat_templates.values())
    except HftoolError:  # which a text without a template does not concern
        templates = ""

    def has(tag: str) -> bool:
        tokens = _TOKEN.findall(tag)
        known = (tokenizer.backend.token_to_id(token) is not None for token in tokens)
        return tag in templates or (bool(tokens) and all(known))

    return next((tags for tags in TAGS if has(tags.opening) and has(tags.closing)), None)


def tags_of(tokenizer: Tokenizer) -> Tags:
    """Return a model's tags; `DEFAULT` if none is known, which it may have learned all the same."""
    return known_tags(tokenizer) or DEFAULT


@lru_cache(maxsize=16)
def tag_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the tokens in a model's tags that its vocabulary has as a whole, with their ids."""
    tags = tags_of(tokenizer)
    tokens = _TOKEN.findall(tags.opening + tags.to_answer)
    ids = {token: tokenizer.backend.token_to_id(token) for token in tokens}
    return {token: token_id for token, token_id in ids.items() if token_id is not None}


@lru_cache(maxsize=16)
def tag_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Return the special tokens in a model's tags, which texts leave out elsewhere."""
    return tokenizer.skipped & set(tag_tokens(tokenizer).values())


def opens_thought(tokenizer: Tokenizer, ids: Sequence[int]) -> bool:
    """Return whether a prompt ends with the tag that opens reasoning, by its template."""
    return prompt_end(tokenizer, ids).endswith(tags_of(tokenizer).opening)


def prompt_end(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Return the last words of a prompt, without white space after them."""
    return tokenizer.decode(ids[-LONGEST_TAIL:]).rstrip()


def split_reasoning(text: str, opened: bool, tags: Tags = DEFAULT) -> tuple[str | None, str]:
    """Return the reasoning of a whole answer, without its tags, and the rest of it.

    Args:
        opened: the prompt has already opened the reasoning.
    """
    splitter = ReasoningSplitter(opened, tags)
    return joined_parts([*splitter.parts(text), *splitter.rest()], opened, tags)


def joined_parts(
    parts: Sequence[tuple[str, bool]], opened: bool, tags: Tags
) -> tuple[str | None, str]:
    """Return the reasoning and the answer of all parts that a splitter has yielded."""
    answer = "".join(part for part, is_reasoning in parts if not is_reasoning)
    thought = "".join(part for part, is_reasoning in parts if is_reasoning).strip()
    if thought in ("", tags.answer):
        return None, answer if thought else "".join(part for part, _ in parts)
    thought = thought.removesuffix(tags.turn + tags.answer).removesuffix(tags.closing)
    thought = thought if opened else thought.removeprefix(tags.opening)
    if tags.turn:
        thought = thought.replace(tags.closing + tags.turn + tags.opening, "\n")
    return thought.strip(), answer


class ReasoningSplitter:
    """Splits a streamed answer into reasoning and the rest, wherever the pieces are cut.

    Only a tag at the beginning counts: further on, `<think>` is ordinary text. Tags count as
    reasoning, and so does white space between the closing tag and the answer.

    Args:
        opened: the prompt has already opened the reasoning.
    """

    def __init__(self, opened: bool, tags: Tags = DEFAULT) -> None:
        self._tags = tags
        self._thinking = opened
        # The tags that may come next, and whether reasoning follows.
        self._next = {} if opened else tags.beginnings(after_thought=False)
        self._before_answer = False
        self._held_back = ""

    @property
    def in_answer(self) -> bool:
        """Whether no tag can follow."""
        return not self._thinking and not self._next

    def parts(self, piece: str) -> Iterator[tuple[str, bool]]:
        """Add a piece; yield the texts that are now certain, each with whether it is reasoning."""
        self._held_back += piece
        while not self.in_answer:
            if self._thinking:
                before, closing, after = self._held_back.partition(self._tags.closing)
                if not closing:
                    yield from self._before_partial_tag()
                    return
                yield before + closing, True
                self._thinking, self._held_back, self._before_answer = False, after, True
                self._next = self._tags.beginnings(after_thought=True)
                continue
            beginning = self._held_back.lstrip()
            tag = next((tag for tag in self._next if beginning.startswith(tag)), None)
            if tag is None and any(tag.startswith(beginning) for tag in self._next):
                return
            self._thinking = tag is not None and self._next[tag]
            if tag is not None and not self._thinking:
                self._held_back = beginning.removeprefix(tag)
                self._before_answer = True
                yield tag, True
            self._next = {}
        yield from self._answer()

    def _answer(self) -> Iterator[tuple[str, bool]]:
        if self._before_answer and self._held_back:
            answer = self._held_back.lstrip()
            if space := self._held_back[: len(self._held_back) - len(answer)]:
                yield space, True
            self._before_answer, self._held_back = not answer, answer
        if self._held_back:
            yield self._held_back, False
        self._held_back = ""

    def rest(self) -> Iterator[tuple[str, bool]]:
        """Yield what was held back, at the end of the answer."""
        if self._held_back:
            in_tag = bool(self._next and self._tags.answer)
            yield self._held_back, self._thinking or in_tag
        self._held_back = ""

    def _before_partial_tag(self) -> Iterator[tuple[str, bool]]:
        """Yield the reasoning, but hold back an end that may be the beginning of the tag."""
        held, closing = self._held_back, self._tags.closing
        certain = next(i for i in range(len(held) + 1) if closing.startswith(held[i:]))
        if certain:
            yield held[:certain], True
        self._held_back = held[certain:]

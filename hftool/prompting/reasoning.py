"""Find a model's reasoning in its answer: from `<think>` at the beginning to `</think>`."""

from collections.abc import Iterator, Sequence

from hftool.tokenization.tokenizer import Tokenizer

OPENING, CLOSING = "<think>", "</think>"


LONGEST_TAIL = 8  # tokens that `<think>` and the white space around it can have


def opens_thought(tokenizer: Tokenizer, ids: Sequence[int]) -> bool:
    """Return whether a prompt's last word is `<think>`, which its template has written."""
    return tokenizer.decode(ids[-LONGEST_TAIL:]).rstrip().endswith(OPENING)


def split_reasoning(text: str, opened: bool) -> tuple[str | None, str]:
    """Return the reasoning of a whole answer, without its tags, and the rest of it.

    Args:
        opened: the prompt has already opened the reasoning.
    """
    splitter = ReasoningSplitter(opened)
    parts = [*splitter.parts(text), *splitter.rest()]
    thought = "".join(part for part, is_reasoning in parts if is_reasoning).strip()
    if not thought:
        return None, text
    thought = thought.removesuffix(CLOSING)
    thought = thought if opened else thought.removeprefix(OPENING)
    return thought.strip(), "".join(part for part, is_reasoning in parts if not is_reasoning)


class ReasoningSplitter:
    """Splits a streamed answer into reasoning and the rest, wherever the pieces are cut.

    Only a tag at the beginning counts: further on, `<think>` is ordinary text. Tags count as
    reasoning, and so does white space between the closing tag and the answer.

    Args:
        opened: the prompt has already opened the reasoning.
    """

    def __init__(self, opened: bool) -> None:
        self._next_tag: str | None = CLOSING if opened else OPENING
        self._before_answer = False
        self._held_back = ""

    def parts(self, piece: str) -> Iterator[tuple[str, bool]]:
        """Add a piece; yield the texts that are now certain, each with whether it is reasoning."""
        self._held_back += piece
        if self._next_tag == OPENING:
            beginning = self._held_back.lstrip()
            if beginning.startswith(OPENING):
                self._next_tag = CLOSING
            elif not OPENING.startswith(beginning):
                self._next_tag = None
            else:
                return
        if self._next_tag == CLOSING:
            before, closing, after = self._held_back.partition(CLOSING)
            if not closing:
                yield from self._before_partial_tag()
                return
            yield before + closing, True
            self._next_tag, self._held_back, self._before_answer = None, after, True
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
            yield self._held_back, self._next_tag == CLOSING
        self._held_back = ""

    def _before_partial_tag(self) -> Iterator[tuple[str, bool]]:
        """Yield the reasoning, but hold back an end that may be the beginning of the tag."""
        held = self._held_back
        certain = next(i for i in range(len(held) + 1) if CLOSING.startswith(held[i:]))
        if certain:
            yield held[:certain], True
        self._held_back = held[certain:]

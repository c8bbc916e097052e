"""Follow a text token by token to where its answer begins, after the model's reasoning."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache

from hftool.prompting.reasoning import known_tags, prompt_end, tag_tokens, tags_of
from hftool.tokenization.tokenizer import Tokenizer

_HEADER = 4  # tokens after the control token of a turn: "<|im_start|>assistant\n"
_MOST_BREAKS = 2  # between a thought and the answer


@dataclass(frozen=True, eq=False)
class TokenBytes:
    """The bytes of each token inside a text, by its id; of special tokens their names."""

    data: Sequence[bytes]


class ThoughtTracker:
    """Tells whether the tokens so far are a thought, a tag, or the answer.

    Tags are compared as bytes, whatever tokens spell them. But a tag before the answer is only
    spelled where the vocabulary has no token for it.

    Args:
        prompt_ids: the tokens before the text.

    Attributes:
        thinking: a thought has begun, and has not ended.
        needs_tag: the answer only begins after a tag that has not come yet.
        passed: the answer comes after a tag or a thought.
        breaks: the number of line breaks that may come before the answer.
    """

    def __init__(self, tokens: TokenBytes, tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> None:
        self._tokens, self._tags = tokens, tags_of(tokenizer)
        self._closing = self._tags.closing.encode()
        self._whole = {name.encode(): i for name, i in tag_tokens(tokenizer).items()}
        self._tail = self._tag = b""  # the end of the thought; as much of a tag as there is
        self._next: dict[bytes, bool] = {}  # the tags that may come; whether a thought follows
        self.needs_tag = self.passed = False
        self.breaks = 0
        end, tags = prompt_end(tokenizer, prompt_ids), self._tags
        self.thinking = end.endswith(tags.opening)
        ended = end.endswith((tags.closing, tags.answer or tags.closing))
        if known_tags(tokenizer) and not self.thinking and not ended:
            if _is_header(tokenizer, prompt_ids):
                self._expect(after_thought=False)

    def copy(self) -> "ThoughtTracker":
        """Return a tracker that goes on by itself."""
        return copy(self)

    @property
    def in_answer(self) -> bool:
        """Whether all that follows belongs to the answer."""
        return not self.thinking and not self._next

    def _expect(self, *, after_thought: bool) -> None:
        tags = self._tags.beginnings(after_thought=after_thought)
        self._next = {tag.encode(): thought for tag, thought in tags.items()}
        self.needs_tag = False in self._next.values()

    def add(self, token_id: int) -> None:
        """Add a token of what comes before the answer."""
        data = self._tokens.data[token_id] if token_id < len(self._tokens.data) else b""
        if self.thinking:
            self._think(data)
            return
        self._tag += data
        tag = next((tag for tag in self._next if self._tag.startswith(tag)), None)
        if tag is None and any(tag.startswith(self._tag) for tag in self._next):
            return
        self.thinking = tag is not None and self._next[tag]
        self.passed = tag is not None
        self._next = {}
        if tag is not None:
            self.needs_tag, self.breaks, self._tail = False, 0, b""
            if self.thinking:
                self._think(self._tag.removeprefix(tag))

    def _think(self, data: bytes) -> None:
        _, closing, after = (self._tail + data).partition(self._closing)
        if not closing:
            self._tail = (self._tail + data)[-len(self._closing) :]
            return
        self.thinking, self.passed, self._tag = False, True, after
        self.breaks = _MOST_BREAKS - len(after)
        self._expect(after_thought=True)

    def tag_tokens(self) -> list[int]:
        """Return the tokens that begin a tag, or go on with it."""
        found: list[int] = []
        for tag, thought in self._next.items():
            if not tag.startswith(self._tag):
                continue
            left = tag[len(self._tag) :]
            places = {left.find(name): i for name, i in self._whole.items() if name in left}
            if 0 in places:
                found.append(places[0])
            else:
                spelled = left[: min(places, default=len(left))]
                found += _continuing(self._tokens, spelled, thought and spelled == left)
        return found

    def excluded(self) -> list[int]:
        """Return the tokens that would end the thought and begin the answer in one."""
        most = 0 if self._tags.answer else _MOST_BREAKS
        found: list[int] = []
        for length in range(len(self._closing)):
            if self._tail.endswith(self._closing[:length]):
                found += _overshooting(self._tokens, self._closing[length:], most)
        return found


def _is_header(tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> bool:
    """Return whether a prompt ends with the header of a turn, after which an answer begins."""
    return any(i in tokenizer.added_tokens for i in prompt_ids[1:][-_HEADER:])


@lru_cache(maxsize=256)
def _continuing(tokens: TokenBytes, left: bytes, thought: bool) -> tuple[int, ...]:
    """Return the tokens that go on with a tag of which this is left, and if a thought follows it,
    perhaps beyond its end."""
    data = enumerate(tokens.data)
    return tuple(
        i for i, b in data if b and (left.startswith(b) or (thought and b.startswith(left)))
    )


@lru_cache(maxsize=256)
def _overshooting(tokens: TokenBytes, left: bytes, most: int) -> tuple[int, ...]:
    """Return the tokens that complete a closing tag of which this is left, but go on with more than
    `most` line breaks."""
    ends = {left + b"\n" * breaks for breaks in range(most + 1)}
    return tuple(i for i, b in enumerate(tokens.data) if b.startswith(left) and b not in ends)

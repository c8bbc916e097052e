"""The records of `encode` and `decode`."""

from dataclasses import dataclass
from typing import Literal

from hftool.tokenization.explain import Explanation


@dataclass(frozen=True)
class Encoded:
    """A text and its tokens: four tuples of length `count`.

    `tokens` are the tokens as the tokenizer stores them, `pieces` the same as readable text,
    `offsets` character spans (start, end) into `text`.
    """

    text: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    pieces: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    count: int


@dataclass(frozen=True, slots=True)
class Counted:
    """A text and its number of tokens."""

    text: str
    count: int


@dataclass(frozen=True)
class Rendered:
    """The text that a chat template makes of a chat."""

    text: str


@dataclass(frozen=True)
class Compared:
    """A text in the tokens of one of several tokenizers.

    `bytes_per_token` counts the text's bytes in UTF-8, `unknown` the tokens that stand for
    something that is not in the vocabulary.
    """

    model: str
    text: str
    count: int
    bytes_per_token: float | None
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    unknown: int


@dataclass(frozen=True)
class TemplatePart:
    """A part of a text that a chat template makes: whether it is the same with and without some
    variables, is only there with them, or only without them."""

    change: Literal["same", "added", "removed"]
    text: str


@dataclass(frozen=True)
class RenderedDiff:
    """The text that a chat template makes of a chat with some more variables, and its parts,
    together with those of the text without these variables."""

    text: str
    parts: tuple[TemplatePart, ...]


@dataclass(frozen=True)
class RoundTrip:
    """A text, the text that decoding its tokens gives, and the index of the first character that
    differs."""

    text: str
    decoded: str
    same: bool
    differs_at: int | None


@dataclass(frozen=True)
class ComparedCount:
    """The number of tokens of a text under one of several tokenizers; `unknown` counts those that
    stand for something that is not in its vocabulary."""

    model: str
    text: str
    count: int
    bytes_per_token: float | None
    unknown: int


@dataclass(frozen=True)
class ComparedTotal:
    """All texts under one of several tokenizers: `texts` and `count` are the number of texts and of
    tokens, `unknown` counts tokens as in `ComparedCount`."""

    kind: Literal["total"]
    model: str
    texts: int
    count: int
    bytes_per_token: float | None
    unknown: int


@dataclass(frozen=True)
class FailedText:
    """A text that was not encoded, and why: the tokenizer has no token for a part of it."""

    text: str
    error: str


@dataclass(frozen=True)
class Decoded:
    """Token ids and their text."""

    ids: tuple[int, ...]
    text: str


EncodeRecord = (
    Encoded
    | Counted
    | Rendered
    | RenderedDiff
    | RoundTrip
    | Compared
    | ComparedCount
    | ComparedTotal
    | Explanation
    | FailedText
)

"""A text cut at its tokens' edges."""

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hftool.tokenization.token_bytes import readable

if TYPE_CHECKING:
    from hftool.generation.next_token import ScoredToken
    from hftool.tokenization.encode import Encoded


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text and the places of the tokens that make it: one, several where they share
    a character, none where no token covers it."""

    text: str
    tokens: range


def encoded_spans(record: "Encoded") -> Iterator[Span]:
    """A text by its tokens' offsets; all of the text is in one span or another."""
    reached = 0  # up to where the text was given out
    first = last = 0  # the part at hand, in characters
    begun = 0  # its first token

    for i, (piece, (start, end)) in enumerate(zip(record.pieces, record.offsets, strict=True)):
        if first < last and start < last and end > first:
            last = max(last, end)
            continue
        if first < last:
            yield Span(record.text[first:last], range(begun, i))
            reached = last
        first, last, begun = start, end, i
        if start == end:  # a special token stands nowhere in the text
            yield Span(piece, range(i, i + 1))
        elif reached < start:
            yield Span(record.text[reached:start], range(0))
    if first < last:
        yield Span(record.text[first:last], range(begun, record.count))
        reached = last
    if reached < len(record.text):
        yield Span(record.text[reached:], range(0))


def scored_spans(tokens: Sequence["ScoredToken"]) -> Iterator[Span]:
    """The text that tokens make together, cut where no character is."""
    utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")  # knows where characters end
    data, begun = b"", 0
    for i, token in enumerate(tokens):
        if token.bytes is None:  # a special token: it completes nothing
            if data:
                yield Span(readable(data), range(begun, i))
            yield Span(token.token, range(i, i + 1))
            utf8.reset()
        else:
            data += bytes.fromhex(token.bytes)
            utf8.decode(bytes.fromhex(token.bytes))
            if utf8.getstate()[0]:
                continue
            yield Span(readable(data), range(begun, i + 1))
        data, begun = b"", i + 1
    if data:
        yield Span(readable(data), range(begun, len(tokens)))

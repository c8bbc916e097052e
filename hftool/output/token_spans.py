"""Split a text at the boundaries of its tokens."""

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hftool.tokenization.token_bytes import readable

if TYPE_CHECKING:
    from hftool.generation.scored_tokens import ScoredToken
    from hftool.tokenization.records import Encoded


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a text and the indices of its tokens: usually one; several if they share a
    character; none if no token covers this part."""

    text: str
    tokens: range


def encoded_spans(record: "Encoded") -> Iterator[Span]:
    """Yield the spans of a text by its tokens' offsets; together they are the whole text."""
    covered = 0  # characters in the spans so far
    first = last = 0  # the span to yield next, in characters
    begun = 0  # the index of its first token

    for i, (piece, (start, end)) in enumerate(zip(record.pieces, record.offsets, strict=True)):
        if first < last and start < last and end > first:
            last = max(last, end)
            continue
        if first < last:
            yield Span(record.text[first:last], range(begun, i))
            covered = last
        first, last, begun = start, end, i
        if start == end:  # a special token, which has no part of the text
            yield Span(piece, range(i, i + 1))
        elif covered < start:
            yield Span(record.text[covered:start], range(0))
    if first < last:
        yield Span(record.text[first:last], range(begun, record.count))
        covered = last
    if covered < len(record.text):
        yield Span(record.text[covered:], range(0))


def scored_spans(tokens: Sequence["ScoredToken"]) -> Iterator[Span]:
    """Yield the spans of the text that tokens make together, split between characters only."""
    utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")  # to find where characters end
    data, begun = b"", 0
    for i, token in enumerate(tokens):
        if token.bytes is None:  # a special token, which can't complete a character
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

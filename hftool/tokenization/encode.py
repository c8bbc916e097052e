"""Text to tokens and back."""

import logging
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hftool.atomic_files import STDOUT, write_errors
from hftool.errors import HftoolError, UsageError
from hftool.inputs.readahead import arriving
from hftool.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hftool")
WINDOW = 1024  # texts tokenized together
COUNTED = 16_384  # texts counted together: of a count little is kept, and all cores stay at work
PART = 4096  # of those
LARGEST_ID = 2**32 - 1


@dataclass(frozen=True)
class Encoded:
    """A text and its tokens, all tuples of length `count`.

    `tokens` as the tokenizer stores them, `pieces` as readable text, `offsets` character spans
    (start, end) into `text`.
    """

    text: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    pieces: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    count: int


@dataclass(frozen=True, slots=True)
class Counted:
    """A text and how many tokens it has."""

    text: str
    count: int


@dataclass(frozen=True)
class Compared:
    """A text under one of several tokenizers; `bytes_per_token` counts the text's UTF-8."""

    model: str
    text: str
    count: int
    bytes_per_token: float | None
    ids: tuple[int, ...]
    pieces: tuple[str, ...]


@dataclass(frozen=True)
class RoundTrip:
    """A text, what decoding its tokens gives, and the place of the first character that differs."""

    text: str
    decoded: str
    same: bool
    differs_at: int | None


@dataclass(frozen=True)
class Decoded:
    """Ids and their text."""

    ids: tuple[int, ...]
    text: str


def encode_texts(
    tokenizer: Tokenizer, texts: Iterable[str], *, special: bool, max_tokens: int | None = None
) -> Iterator[Encoded]:
    """The tokens of each text; with `max_tokens` the first so many of them, which is logged."""
    for window in _windows(texts, WINDOW):
        for text, encoding in zip(window, tokenizer.encode_batch(window, special), strict=True):
            count = len(encoding.ids)
            if max_tokens is not None and count > max_tokens:
                log.warning("cut a text of %d tokens to %d", count, max_tokens)
                count = max_tokens
            ids = encoding.ids[:count]
            yield Encoded(
                text,
                tuple(ids),
                tuple(encoding.tokens[:count]),
                tuple(tokenizer.token_text(i) for i in ids),
                tuple(tokenizer.spans(text, encoding)[:count]),
                count,
            )


def count_tokens(tokenizer: Tokenizer, texts: Iterable[str], *, special: bool) -> Iterator[Counted]:
    """How many tokens each text has; what comes of some is done while others are tokenized."""
    pool = ThreadPoolExecutor(1)
    try:
        for window in _windows(texts, COUNTED):
            parts = [window[i : i + PART] for i in range(0, len(window), PART)]
            counts = [pool.submit(tokenizer.count_batch, part, special) for part in parts]
            for part, count in zip(parts, counts, strict=True):
                yield from map(Counted, part, count.result())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _windows(texts: Iterable[str], most: int) -> Iterator[list[str]]:
    """Texts that have arrived; what became of them is flushed before more are waited for (as C++
    ties its input to its output), which for short lines is much faster than to flush each."""
    for window in arriving(texts, most):
        yield window
        if sys.stdout is not None:
            with write_errors(STDOUT):
                sys.stdout.flush()


def compare_tokenizers(
    tokenizers: Sequence[Tokenizer], texts: Iterable[str], *, special: bool
) -> Iterator[Compared]:
    """Each text under each tokenizer."""
    for text in texts:
        for tokenizer in tokenizers:
            ids = tokenizer.encode(text, special).ids
            yield Compared(
                tokenizer.name,
                text,
                len(ids),
                len(text.encode()) / len(ids) if ids else None,
                tuple(ids),
                tuple(tokenizer.token_text(i) for i in ids),
            )


def round_trips(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[RoundTrip]:
    """Whether decoding each text's tokens gives the text back."""
    for text in texts:
        decoded = tokenizer.decode(tokenizer.encode(text, special=False).ids)
        pairs = enumerate(zip(text, decoded, strict=False))
        place = next((i for i, (a, b) in pairs if a != b), min(len(text), len(decoded)))
        same = text == decoded
        yield RoundTrip(text, decoded, same, None if same else place)


def parse_ids(text: str) -> tuple[int, ...]:
    """Ids separated by spaces, commas or line breaks, or as a JSON list.

    Raises:
        UsageError: something in the text is no id.
    """
    words = re.split(r"[\s,]+", text.strip().removeprefix("[").removesuffix("]").strip())
    ids = []
    for word in filter(None, words):
        if not (word.isascii() and word.isdigit()) or len(word) > 10 or int(word) > LARGEST_ID:
            raise UsageError(f"'{word[:40]}' is not a token id", "ids are whole numbers: 260 1015")
        ids.append(int(word))
    return tuple(ids)


def decode_ids(tokenizer: Tokenizer, ids: Sequence[int], *, skip_special: bool) -> Decoded:
    """The text of ids; a single one that is half a character is shown by its bytes.

    Raises:
        HftoolError: an id that the vocabulary does not have.
    """
    for token_id in ids:
        if tokenizer.backend.id_to_token(token_id) is None:
            raise HftoolError(
                f"id {token_id} is not in the vocabulary of {tokenizer.name}",
                f"its ids go from 0 to {tokenizer.size - 1}",
            )
    text = tokenizer.decode(ids, skip_special)
    if len(ids) == 1 and "\ufffd" in text:
        text = tokenizer.token_text(ids[0])
    return Decoded(tuple(ids), text)

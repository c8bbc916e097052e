"""Text to tokens and back: what `encode` and `decode` compute."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, TypeVar, assert_never

from hftool.errors import HftoolError
from hftool.inputs.readahead import read_ahead
from hftool.options.encode import EncodeOptions
from hftool.tokenization.explain import Explainer, Explanation
from hftool.tokenization.fast_counts import FastCounter
from hftool.tokenization.given_ids import require_in_vocabulary
from hftool.tokenization.tokenizer import Tokenizer
from hftool.tokenization.unknown import NoTokenError

if TYPE_CHECKING:
    from tokenizers import Encoding

log = logging.getLogger("hftool")

WINDOW = 1024  # texts to encode together
# Texts to count together: results are small, and large windows keep all cores busy.
COUNT_WINDOW = 16_384
COUNT_PART = 4096  # texts of such a window whose results are written while others are tokenized


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
Record = TypeVar("Record")


def encode_records(
    tokenizers: Sequence[Tokenizer],
    texts: Iterable[Sequence[str]],
    options: EncodeOptions,
    flush: Callable[[], None] = lambda: None,
) -> Iterator[EncodeRecord]:
    """Yield what the options ask for about each text.

    Args:
        tokenizers: the model's first, then those to compare it with.
        texts: each as every tokenizer gets it, which differs if it is a chat; to show a difference,
            without and with the variables that make it.
        flush: called before more texts are waited for, so that the caller can pass on the records
            of those before.
    """
    tokenizer, special = tokenizers[0], options.special
    own = (versions[0] for versions in texts)
    match options.mode:
        case "tokens":
            most = options.max_tokens
            return _encoded_or_failed(tokenizer, own, special, most, flush)
        case "count":
            return count_tokens(tokenizer, own, special=special, check=options.check, flush=flush)
        case "template":
            return map(Rendered, own)
        case "diff":
            return (template_diff(*versions) for versions in texts)
        case "roundtrip":
            return round_trips(tokenizer, own)
        case "compare":
            return compare_tokenizers(tokenizers, texts, special=special)
        case "compare_counts":
            return compare_tokenizers(tokenizers, texts, special=special, only_counts=True)
        case "explain":
            return explain_texts(tokenizer, own)
        case mode:
            assert_never(mode)


def encoded_ids(tokenizer: Tokenizer, ids: Sequence[int], max_tokens: int | None) -> Encoded:
    """Return token ids as if they came from a text: the one that their bytes spell, with special
    tokens by their names.

    Raises:
        HftoolError: the vocabulary does not have an id.
    """
    require_in_vocabulary(tokenizer, ids)
    kept = ids if max_tokens is None else ids[:max_tokens]
    tokens = [tokenizer.backend.id_to_token(i) or "" for i in ids]
    data = [tokenizer.token_bytes(i) for i in ids]
    parts = [t.encode() if d is None else d for t, d in zip(tokens, data, strict=True)]
    ends = list(accumulate(map(len, parts)))
    whole = b"".join(parts)
    begun = [0, *accumulate(int(byte & 0xC0 != 0x80) for byte in whole)]  # characters, by bytes
    spans = [
        (begun[end - len(part)] - (begun[end] == begun[end - len(part)]), begun[end])
        for end, part in zip(ends, parts, strict=True)
    ]
    return Encoded(
        whole.decode("utf-8", "replace"),
        tuple(kept),
        tuple(tokens[: len(kept)]),
        tuple(tokenizer.token_text(i) for i in kept),
        tuple(spans[: len(kept)]),
        len(kept),
    )


def encode_texts(
    tokenizer: Tokenizer, texts: Iterable[str], *, special: bool, max_tokens: int | None = None
) -> Iterator[Encoded]:
    """Yield each text with its tokens, at most the first `max_tokens` of them.

    After the last one, log how many were truncated, or the number of tokens of the only one.

    Raises:
        HftoolError: a part of a text has no token.
    """
    for record in _encoded_or_failed(tokenizer, texts, special, max_tokens):
        if isinstance(record, FailedText):
            raise HftoolError(record.error, NoTokenError.HINT)
        yield record


def _encoded_or_failed(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    special: bool,
    max_tokens: int | None,
    flush: Callable[[], None] = lambda: None,
) -> Iterator[Encoded | FailedText]:
    def encode(part: Sequence[str]) -> Iterator[tuple[str, "Encoding"]]:
        return zip(part, tokenizer.encode_batch(part, special), strict=True)

    count_of_texts, truncated, longest = 0, 0, 0
    for window in _windows(texts, WINDOW, flush):
        count_of_texts += len(window)
        for item in _or_failures(encode, window):
            if isinstance(item, FailedText):
                yield item
                continue
            text, encoding = item
            count = len(encoding.ids)
            if max_tokens is not None and count > max_tokens:
                truncated += 1
                longest = max(longest, count)
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
    if truncated and count_of_texts == 1:
        log.warning("truncated a text of %d tokens to %d", longest, max_tokens)
    elif truncated:
        which = f"{truncated:,} of {count_of_texts:,} texts"
        log.warning("truncated %s to %d tokens; the longest had %d", which, max_tokens, longest)


def _or_failures(
    encode: Callable[[Sequence[str]], Iterable[Record]], texts: Sequence[str]
) -> Iterator[Record | FailedText]:
    """Yield the records of texts; if one of them can't be encoded, its failure in its place.

    Args:
        encode: encodes all the texts, or fails before its first record.
    """
    try:
        yield from encode(texts)
    except NoTokenError as error:
        if len(texts) == 1:
            yield FailedText(texts[0], error.message)
            return
        for text in texts:
            yield from _or_failures(encode, [text])


def count_tokens(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    *,
    special: bool,
    check: bool = False,
    flush: Callable[[], None] = lambda: None,
) -> Iterator[Counted | FailedText]:
    """Yield each text with its number of tokens.

    Args:
        check: compare the tokens of each text with those of the tokenizers library, where another
            one counts them.
    """
    fast = None if special else FastCounter(tokenizer.backend, check=check)

    def counted(part: Sequence[str]) -> list[Counted | FailedText]:
        if fast is not None and (counts := fast.counts(part)) is not None:
            return list(map(Counted, part, counts))
        return list(
            _or_failures(lambda p: map(Counted, p, tokenizer.count_batch(p, special)), part)
        )

    # In a thread, so that the caller writes the results of some texts while others are tokenized.
    pool = ThreadPoolExecutor(1)
    try:
        for window in _windows(texts, COUNT_WINDOW, flush):
            parts = [window[i : i + COUNT_PART] for i in range(0, len(window), COUNT_PART)]
            for counts in [pool.submit(counted, part) for part in parts]:
                yield from counts.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _windows(texts: Iterable[str], most: int, flush: Callable[[], None]) -> Iterator[list[str]]:
    """Yield texts as they arrive, in windows, and flush after each: for short lines that is much
    faster than to flush each record."""
    for window in read_ahead(texts, most):
        yield window
        flush()


def compare_tokenizers(
    tokenizers: Sequence[Tokenizer],
    texts: Iterable[Sequence[str]],
    *,
    special: bool,
    only_counts: bool = False,
) -> Iterator[Compared | ComparedCount | ComparedTotal | FailedText]:
    """Yield each text, as each tokenizer gets it, in the tokens of that tokenizer, or only their
    number; then, with `only_counts` or for several texts, the totals of each tokenizer."""
    totals = [ComparedTotal("total", t.name, 0, 0, None, 0) for t in tokenizers]
    sizes = [0] * len(tokenizers)  # bytes
    for versions in texts:
        for i, (tokenizer, text) in enumerate(zip(tokenizers, versions, strict=True)):
            for record in _or_failures(partial(_compared, tokenizer, special), [text]):
                if isinstance(record, FailedText):
                    yield record
                    continue
                total, sizes[i] = totals[i], sizes[i] + len(text.encode())
                count = total.count + record.count
                totals[i] = replace(
                    total,
                    texts=total.texts + 1,
                    count=count,
                    bytes_per_token=sizes[i] / count if count else None,
                    unknown=total.unknown + record.unknown,
                )
                shared = (record.model, text, record.count, record.bytes_per_token, record.unknown)
                yield ComparedCount(*shared) if only_counts else record
    if only_counts or totals[0].texts > 1:
        yield from totals


def explain_texts(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[Explanation | FailedText]:
    """Yield for each text how its tokens come about."""
    explainer = Explainer(tokenizer)
    for text in texts:
        yield from _or_failures(lambda window: map(explainer.explain, window), [text])


def template_diff(without: str, text: str) -> RenderedDiff:
    """Return the parts of a text that are new, and those of another that are gone, word by word."""
    before, after = _words(without), _words(text)
    parts: list[TemplatePart] = []
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for _, start, end, new_start, new_end in matcher.get_opcodes():
        removed, added = "".join(before[start:end]), "".join(after[new_start:new_end])
        if removed == added:
            parts.append(TemplatePart("same", added))
            continue
        parts += [TemplatePart("removed", removed)] * bool(removed)
        parts += [TemplatePart("added", added)] * bool(added)
    return RenderedDiff(text, tuple(parts))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|.", text, re.DOTALL)


def _compared(tokenizer: Tokenizer, special: bool, texts: Sequence[str]) -> Iterator[Compared]:
    for text in texts:
        ids = tokenizer.encode(text, special).ids
        yield Compared(
            tokenizer.name,
            text,
            len(ids),
            len(text.encode()) / len(ids) if ids else None,
            tuple(ids),
            tuple(tokenizer.token_text(i) for i in ids),
            sum(token_id == tokenizer.unknown_id for token_id in ids),
        )


def round_trips(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[RoundTrip | FailedText]:
    """Yield for each text whether decoding its tokens gives it back."""
    for text in texts:
        yield from _or_failures(lambda window: (_round_trip(tokenizer, t) for t in window), [text])


def _round_trip(tokenizer: Tokenizer, text: str) -> RoundTrip:
    decoded = tokenizer.decode(tokenizer.encode(text, special=False).ids)
    pairs = enumerate(zip(text, decoded, strict=False))
    differs_at = next((i for i, (a, b) in pairs if a != b), min(len(text), len(decoded)))
    same = text == decoded
    return RoundTrip(text, decoded, same, None if same else differs_at)


class FailedTexts:
    """Counts the texts that were not encoded.

    Args:
        go_on: log each of them, with the number of its line, and go on; otherwise fail.
        per_text: the number of records for each text.
    """

    def __init__(self, *, go_on: bool, per_text: int = 1) -> None:
        self._go_on = go_on
        self._per_text = per_text
        self._failed = 0

    def count(self, records: Iterable[EncodeRecord]) -> Iterator[EncodeRecord]:
        """Pass the records on, and count those that failed.

        Raises:
            HftoolError: one failed, without `go_on`.
        """
        for index, record in enumerate(records):
            if isinstance(record, FailedText):
                if not self._go_on:
                    raise HftoolError(record.error, NoTokenError.HINT)
                log.warning("line %d: %s", index // self._per_text + 1, record.error)
                self._failed += 1
            yield record

    def require_none(self) -> None:
        """Raise where texts have failed.

        Raises:
            HftoolError: with their number.
        """
        if self._failed:
            texts = f"{self._failed} text" + "s" * (self._failed > 1)
            raise HftoolError(f"{texts} failed", NoTokenError.HINT)


def decode_ids(tokenizer: Tokenizer, ids: Sequence[int], *, skip_special: bool) -> Decoded:
    """Decode ids to text; a single id that is only part of a character gives its bytes, such as
    <0xE4>.

    Raises:
        HftoolError: the vocabulary does not have an id.
    """
    require_in_vocabulary(tokenizer, ids)
    text = tokenizer.decode(ids, skip_special)
    if len(ids) == 1 and "\ufffd" in text:
        text = tokenizer.token_text(ids[0])
    return Decoded(tuple(ids), text)

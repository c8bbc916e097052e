"""Texts to tokens: what `encode` computes."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, assert_never

from hftool.errors import HftoolError
from hftool.inputs.readahead import flushed_windows
from hftool.options.encode import EncodeOptions
from hftool.tokenization.compare import compare_tokenizers
from hftool.tokenization.count import count_tokens
from hftool.tokenization.decode import round_trips
from hftool.tokenization.explain import Explainer, Explanation
from hftool.tokenization.failed_texts import or_failures
from hftool.tokenization.given_ids import require_in_vocabulary
from hftool.tokenization.records import Encoded, EncodeRecord, FailedText, Rendered
from hftool.tokenization.template_diff import template_diff
from hftool.tokenization.tokenizer import Tokenizer
from hftool.tokenization.unknown import NoTokenError

if TYPE_CHECKING:
    from tokenizers import Encoding

log = logging.getLogger("hftool")

WINDOW = 1024  # texts to encode together


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
    """Yield each text with its tokens, as `encode_texts`, or why it has none."""

    def encode(part: Sequence[str]) -> Iterator[tuple[str, "Encoding"]]:
        return zip(part, tokenizer.encode_batch(part, special), strict=True)

    count_of_texts, truncated, longest = 0, 0, 0
    for window in flushed_windows(texts, WINDOW, flush):
        count_of_texts += len(window)
        for item in or_failures(encode, window):
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


def explain_texts(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[Explanation | FailedText]:
    """Yield for each text how its tokens come about."""
    explainer = Explainer(tokenizer)
    for text in texts:
        yield from or_failures(lambda window: map(explainer.explain, window), [text])

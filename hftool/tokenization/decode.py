"""Token ids to text: what `decode` computes, and whether it gives a text back."""

from collections.abc import Iterable, Iterator, Sequence

from hftool.tokenization.failed_texts import or_failures
from hftool.tokenization.given_ids import require_in_vocabulary
from hftool.tokenization.records import Decoded, FailedText, RoundTrip
from hftool.tokenization.tokenizer import Tokenizer


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


def round_trips(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[RoundTrip | FailedText]:
    """Yield for each text whether decoding its tokens gives it back."""
    for text in texts:
        yield from or_failures(lambda window: (_round_trip(tokenizer, t) for t in window), [text])


def _round_trip(tokenizer: Tokenizer, text: str) -> RoundTrip:
    decoded = tokenizer.decode(tokenizer.encode(text, special=False).ids)
    pairs = enumerate(zip(text, decoded, strict=False))
    differs_at = next((i for i, (a, b) in pairs if a != b), min(len(text), len(decoded)))
    same = text == decoded
    return RoundTrip(text, decoded, same, None if same else differs_at)

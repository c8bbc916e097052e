"""Token ids as a person or a program gives them, instead of a text."""

import logging
import re
from collections.abc import Sequence

from hftool.errors import HftoolError, UsageError
from hftool.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hftool")

LARGEST_ID = 2**32 - 1
SHOWN = 4  # tokens that a note names


def parse_ids(text: str) -> tuple[int, ...]:
    """Parse ids separated by spaces, commas or line breaks, or as a JSON list.

    Raises:
        UsageError: something in the text is not an id.
    """
    words = re.split(r"[\s,]+", text.strip().removeprefix("[").removesuffix("]").strip())
    ids = []
    for word in filter(None, words):
        if not (word.isascii() and word.isdigit()) or len(word) > 10 or int(word) > LARGEST_ID:
            raise UsageError(f"'{word[:40]}' is not a token id", "ids are whole numbers: 260 1015")
        ids.append(int(word))
    return tuple(ids)


def require_in_vocabulary(tokenizer: Tokenizer, ids: Sequence[int]) -> None:
    """Raise where the vocabulary does not have an id.

    Raises:
        HftoolError: with the id.
    """
    for token_id in ids:
        if tokenizer.backend.id_to_token(token_id) is None:
            raise HftoolError(
                f"id {token_id} is not in the vocabulary of {tokenizer.name}",
                f"its ids go from 0 to {tokenizer.size - 1}",
            )


def note_unusual_ids(tokenizer: Tokenizer, ids: Sequence[int]) -> None:
    """Log where no text gives these ids: where its tokens would be others, or where the token that
    begins a text comes twice."""
    begin = tokenizer.backend.token_to_id(tokenizer.special_tokens.get("bos_token") or "")
    if begin is not None and list(ids[:2]) == [begin, begin]:
        name = tokenizer.token_text(begin)
        log.info(
            "the ids begin with %s twice: once from a template and once from a tokenizer?", name
        )
    texts = dict.fromkeys(tokenizer.decode(ids, skip) for skip in (False, True))
    usual = [
        list(tokenizer.encode(text, special).ids) for text in texts for special in (False, True)
    ]
    if list(ids) in usual:
        return
    likest = max(usual, key=lambda other: _common(ids, other))
    at = _common(ids, likest)

    def shown(some: Sequence[int]) -> str:
        names = " ".join(f'"{tokenizer.token_text(i)}"' for i in some[at : at + SHOWN])
        return names + " …" * (len(some) > at + SHOWN) or "nothing"

    log.info(
        "no text gives these ids: from index %d on, %s would be %s", at, shown(ids), shown(likest)
    )


def _common(ids: Sequence[int], other: Sequence[int]) -> int:
    """Return how many ids at the beginning are the same."""
    pairs = enumerate(zip(ids, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(ids), len(other)))

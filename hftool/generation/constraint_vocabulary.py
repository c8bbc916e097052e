"""The tokens of a model as llguidance reads them, for constraints."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hftool.errors import HftoolError
from hftool.generation.thought_tracker import TokenBytes
from hftool.tokenization.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_MARK = "\x02"  # a character that no merge joins with what follows
_LONGEST = 32  # bytes of a token


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens of a model as llguidance reads them.

    Attributes:
        ends: the ids that end a text.
        spaced: which tokens begin with a space that a text loses at its beginning.
        later: which tokens have other bytes at the beginning of a text.
    """

    tokens: "LLTokenizer"
    data: TokenBytes
    ends: frozenset[int]
    spaced: NDArray[np.bool_] | None
    later: NDArray[np.bool_] | None


class _Tokens:
    """What llguidance asks of a tokenizer."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, ends: frozenset[int]) -> None:
        data = [tokenizer.inner_bytes(i) for i in range(tokenizer.size)]
        special = {i for i, token in enumerate(data) if token is None} | tokenizer.skipped
        names = tokenizer.backend.id_to_token
        self.tokens = [
            (names(i) or "").encode() if i in special else token or b""
            for i, token in enumerate(data)
        ]
        # For a model without a token that ends a text; and since llguidance computes wrong masks
        # where bytes that must come next have no tokens.
        self.tokens += [b"<end of text>", *(bytes([byte]) for byte in range(256))]
        self.eos_token_id = min(ends, default=tokenizer.size)
        named = {i for i in special if self.tokens[i]}
        self.special_token_ids = sorted(named | ends | {tokenizer.size})
        self._tokenizer = tokenizer

    def __call__(self, data: bytes) -> list[int]:
        """Return tokens with exactly these bytes, which some tokenizers change at the beginning."""
        text = data.decode("utf-8", "replace")
        for before in ("", _MARK):
            ids = self._tokenizer.backend.encode(before + text, add_special_tokens=False).ids
            left = sum(len(self.tokens[i]) for i in ids) - len(data)
            while ids and left > 0:
                left -= len(self.tokens[ids.pop(0)])
            if b"".join(self.tokens[i] for i in ids) == data:
                return ids
        return self._longest(data)

    def _longest(self, data: bytes) -> list[int]:
        ids = []
        while data:
            lengths = range(min(len(data), _LONGEST), 0, -1)
            length = next(n for n in lengths if data[:n] in self._ids)
            ids.append(self._ids[data[:length]])
            data = data[length:]
        return ids

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        special = set(self.special_token_ids)
        tokens = reversed(list(enumerate(self.tokens)))  # those of the model are the last
        return {token: i for i, token in tokens if i not in special}


@lru_cache(maxsize=2)
def vocabulary_of(tokenizer: Tokenizer, ends: frozenset[int]) -> Vocabulary:
    """Return a model's tokens as llguidance reads them.

    Raises:
        HftoolError: the tokenizer's texts are not a sequence of its tokens.
    """
    from llguidance import LLTokenizer, TokenizerWrapper

    if not tokenizer.concatenates:
        raise HftoolError(
            f"hftool cannot constrain the texts of {tokenizer.name}: its tokenizer changes tokens"
            " by those next to them"
        )
    ends = frozenset(i for i in ends if i < tokenizer.size)
    given = _Tokens(tokenizer, ends)
    tokens = LLTokenizer(TokenizerWrapper(given), eos_token=sorted(ends) or [tokenizer.size])
    real = given.tokens[: tokenizer.size]
    spaced = later = None
    if tokenizer.drops_first_space:
        # A byte token for a space may stay where a word's own space goes.
        kept = [t == b" " and _alone(tokenizer, i) == b" " for i, t in enumerate(real)]
        spaced = np.array([t[:1] == b" " for t in real]) & ~np.array(kept)
    if tokenizer.spaces_words:
        later = np.array([t.removeprefix(b" ") != _alone(tokenizer, i) for i, t in enumerate(real)])
    added = tokenizer.added_tokens
    named = [added[i].content.encode() if i in added else token for i, token in enumerate(real)]
    return Vocabulary(tokens, TokenBytes(named), ends, spaced, later)


def _alone(tokenizer: Tokenizer, token_id: int) -> bytes:
    return tokenizer.decode_uncleaned([token_id], False).encode()

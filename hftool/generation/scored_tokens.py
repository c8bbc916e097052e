"""The records of a text's tokens, with the probability of each, and of its perplexity."""

from dataclasses import dataclass, field
from typing import Literal

from hftool.generation.records import OPTIONAL
from hftool.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token of a text, with the probability and the rank that the model gave it, its surprisal
    (-log2 of the probability) and the entropy of the distribution, both in bits. `bytes` is in
    hex, None for a special token.

    The first token is not scored, since nothing comes before it.
    """

    position: int
    id: int
    token: str
    bytes: str | None
    prob: float | None
    rank: int | None
    surprisal: float | None
    entropy: float | None
    index: int | None = field(default=None, metadata=OPTIONAL)

    @property
    def kind(self) -> Literal["token"]:
        """Distinguishes tokens from the perplexity at the end."""
        return "token"


@dataclass(frozen=True, slots=True)
class Perplexity:
    """The mean surprisal of the scored tokens (bits per token), and the perplexity: 2 to that
    power."""

    tokens: int
    surprisal: float | None
    perplexity: float | None
    index: int | None = field(default=None, metadata=OPTIONAL)

    @property
    def kind(self) -> Literal["perplexity"]:
        """Distinguishes the perplexity from the tokens before it."""
        return "perplexity"


def unscored_token(tokenizer: Tokenizer, token_id: int, index: int | None = None) -> ScoredToken:
    """Return the record of a text's first token, which nothing precedes."""
    name, data = tokenizer.token_text(token_id), tokenizer.token_hex(token_id)
    return ScoredToken(0, token_id, name, data, None, None, None, None, index=index)

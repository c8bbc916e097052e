"""What is in a vocabulary."""

from collections.abc import Iterator
from dataclasses import dataclass

from hftool.models.tokenizer import Kind, Tokenizer


@dataclass(frozen=True, slots=True)
class VocabularyEntry:
    """One id: the token as stored, what it decodes to alone, its bytes in hex."""

    id: int
    token: str
    text: str
    bytes: str | None
    kind: Kind


def vocabulary(tokenizer: Tokenizer) -> Iterator[VocabularyEntry]:
    """Every id of the tokenizer once, ascending, the added tokens too.

    An id missing inside the range is there with empty texts, of kind `unused`.
    """
    for token_id in range(tokenizer.size):
        data = tokenizer.token_bytes(token_id)
        kind = tokenizer.kind(token_id)
        token = tokenizer.backend.id_to_token(token_id)
        yield VocabularyEntry(
            token_id,
            token or "",
            "" if kind == "unused" else tokenizer.token_text(token_id),
            None if data is None else data.hex(),
            kind,
        )

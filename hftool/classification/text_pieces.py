"""Cut long texts into pieces, so that tokenizing them takes bounded memory."""

from collections.abc import Iterable, Iterator

PIECE = 100_000  # characters of a piece, unless the model's limit needs longer ones
GROUP_CHARACTERS = 1_000_000  # tokenized together: tokens take a hundred times the text's memory
CHARACTERS_PER_TOKEN = 32  # more than any text has on average


def groups_by_size(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield the same texts in groups of about `GROUP_CHARACTERS`."""
    group: list[str] = []
    characters = 0
    for text in texts:
        group.append(text)
        characters += len(text)
        if characters >= GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def piece_length(limit: int | None) -> int:
    """Return the characters of a piece that surely has `limit` tokens, the model's limit."""
    return max(PIECE, CHARACTERS_PER_TOKEN * (limit or 0))


def pieces_of(text: str, length: int) -> Iterator[str]:
    """Yield a text in pieces of up to `length` characters that end, where possible, after a
    space."""
    start = 0
    while len(text) - start > length:
        end = text.rfind(" ", start, start + length) + 1 or start + length
        yield text[start:end]
        start = end
    yield text[start:]

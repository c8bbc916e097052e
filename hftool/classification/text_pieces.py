"""Cut long texts so that tokenizing them takes bounded memory."""

from collections.abc import Iterable, Iterator

PIECE = 100_000  # characters of a text tokenized as one
CHARACTERS_AT_ONCE = (
    1_000_000  # characters tokenized at once: tokens take a hundred times the memory of text
)


def groups_by_size(texts: Iterable[str]) -> Iterator[list[str]]:
    """The same texts, so many together as are tokenized at once."""
    some: list[str] = []
    characters = 0
    for text in texts:
        some.append(text)
        characters += len(text)
        if characters >= CHARACTERS_AT_ONCE:
            yield some
            some, characters = [], 0
    if some:
        yield some


def piece_length(limit: int | None) -> int:
    return max(PIECE, 32 * (limit or 0))


def pieces_of(text: str, length: int) -> Iterator[str]:
    """A text in pieces that end, where they can, behind a space."""
    start = 0
    while len(text) - start > length:
        end = text.rfind(" ", start, start + length) + 1 or start + length
        yield text[start:end]
        start = end
    yield text[start:]

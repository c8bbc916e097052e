"""Let sentencepiece itself split a text into tokens, where a tokenizer.json can't do it equally.

A converted copy has SENTENCEPIECE beside its tokenizer.json if the two split some text differently
(`hftool.models.sentencepiece_match`). tokenizer.json then has the vocabulary, the added tokens and
the decoder, and sentencepiece everything between: normalization, spaces, user-defined symbols.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hftool.extras import import_extra

SENTENCEPIECE = "sentencepiece.model"
INNER = "sentencepiece_inner.model"  # for texts after an added token: without the dummy prefix


class SentencePieces:
    """Tokens of texts as a SentencePiece model gives them, with the ids of a tokenizer.json.

    Args:
        model: the model's file.
        token_to_id: the id in tokenizer.json of a token, None if it has none.
        unknown: the id of the unknown token there.

    Raises:
        HftoolError: the package sentencepiece is not installed.
    """

    def __init__(self, model: Path, token_to_id: Any, unknown: int | None) -> None:
        package = import_extra("sentencepiece", needed_for="this tokenizer", extra="sentencepiece")
        self.processor = package.SentencePieceProcessor(model_file=str(model))
        pieces = [self.processor.id_to_piece(i) for i in range(len(self.processor))]
        found = [token_to_id(piece) for piece in pieces]
        # Some tokenizers give names of their own to placeholders in the model; the ids are kept.
        aligned = sum(i == token_id for i, token_id in enumerate(found)) > len(pieces) // 2
        self.ids = [
            i if token_id is None and aligned else token_id for i, token_id in enumerate(found)
        ]
        unknown_piece = self.processor.unk_id()
        if unknown is not None and unknown_piece >= 0:
            self.ids[unknown_piece] = unknown

    def encode(self, text: str) -> list[tuple[int, tuple[int, int]]]:
        """Return each token's id and its bytes in the text: (id, (start, end)).

        The bytes of one character, each a token of its own, all get the character.
        """
        pieces = list(self.processor.encode(text, return_type="proto").pieces)
        tokens: list[tuple[int, tuple[int, int]]] = []
        end_of_character = (0, 0)
        for piece in reversed(pieces):
            span = (piece.begin, piece.end)
            if self.processor.is_byte(piece.id):
                if span[0] == span[1]:
                    span = end_of_character
                end_of_character = span
            tokens.append((self.ids[piece.id], span))
        return tokens[::-1]


class SentencePiecePreTokenizer:
    """A pre-tokenizer for the tokenizers library that leaves nothing to its model."""

    def __init__(
        self, first: SentencePieces, inner: SentencePieces, names: Mapping[int, str]
    ) -> None:
        self.first, self.inner, self.names = first, inner, names

    def pre_tokenize(self, text: Any) -> None:
        """Split a text, except its added tokens, into tokens."""
        from tokenizers import Token

        splits = text.get_splits("original", "byte")
        starts = iter([span[0] for _, span, tokens in splits if tokens is None])

        def tokens_of(part: str) -> list[Any]:
            pieces = self.first if next(starts) == 0 else self.inner
            return [Token(i, self.names[i], span) for i, span in pieces.encode(part)]

        text.tokenize(tokens_of)


def use_sentencepiece(backend: Any, folder: Path, unknown: str | None) -> None:
    """Make a tokenizer split texts with the SentencePiece model in its folder.

    Raises:
        HftoolError: the package sentencepiece is not installed.
    """
    from tokenizers.pre_tokenizers import PreTokenizer

    unknown_id = backend.token_to_id(unknown) if unknown else None
    first = SentencePieces(folder / SENTENCEPIECE, backend.token_to_id, unknown_id)
    inner = first
    if (folder / INNER).is_file():
        inner = SentencePieces(folder / INNER, backend.token_to_id, unknown_id)
    names = {i: token for token, i in backend.get_vocab().items()}
    backend.normalizer = None
    backend.pre_tokenizer = PreTokenizer.custom(SentencePiecePreTokenizer(first, inner, names))

"""Let a tokenizer that transformers has only as Python code split a text into tokens.

A converted copy has PYTHON_TOKENIZER beside a tokenizer.json then, which has the vocabulary, the
added tokens and the decoder (`hftool.models.python_tokenizer_files`).
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from hftool.json_files import read_json

PYTHON_TOKENIZER = "python_tokenizer.json"
MARKS = ("##", "@@", "▁", "</w>")  # what tokens have that a text does not


class PythonPreTokenizer:
    """A pre-tokenizer for the tokenizers library that leaves nothing to its model.

    Args:
        folder: has the files of the tokenizer, and its class in PYTHON_TOKENIZER.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def tokenizer(self) -> Any:
        """transformers' tokenizer."""
        import transformers

        name = str(read_json(self.folder / PYTHON_TOKENIZER)["class"])
        return getattr(transformers, name).from_pretrained(self.folder, local_files_only=True)

    def pre_tokenize(self, text: Any) -> None:
        """Split a text, except its added tokens, into tokens."""
        from tokenizers import Token

        def tokens_of(part: str) -> list[Any]:
            tokens = self.tokenizer.tokenize(part)
            ids = self.tokenizer.convert_tokens_to_ids(tokens)
            return [
                Token(token_id, token, span)
                for token_id, token, span in zip(ids, tokens, _spans(part, tokens), strict=True)
            ]

        text.tokenize(tokens_of)


def _spans(text: str, tokens: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the bytes of each token in a text, as far as the token's letters are found there in
    order; else an empty span."""
    place = 0
    for token in tokens:
        for mark in MARKS:
            token = token.removeprefix(mark).removesuffix(mark)
        found = text.find(token, place)
        if found < 0:
            found = text.lower().find(token.lower(), place)
        start, place = (found, found + len(token)) if found >= 0 else (place, place)
        yield len(text[:start].encode()), len(text[:place].encode())


def use_python_tokenizer(backend: Any, folder: Path) -> None:
    """Make a tokenizer split texts with the Python code that its folder names."""
    from tokenizers.pre_tokenizers import PreTokenizer

    backend.normalizer = None
    backend.pre_tokenizer = PreTokenizer.custom(PythonPreTokenizer(folder))

"""Find the parts of a text for which a tokenizer has neither a token nor an unknown token."""

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import tokenizers
from tokenizers import normalizers, pre_tokenizers

from hftool.errors import HftoolError
from hftool.tokenization.offsets import OffsetCorrection
from hftool.tokenization.pipeline import steps_of
from hftool.tokenization.token_bytes import stand_ins

_UNKNOWN = "\U0010fffe"  # the token that is added for such parts


class NoTokenError(HftoolError):
    """A part of a text has no token, and the tokenizer no unknown token for it.

    Args:
        name: the model's name.
        span: the part's characters (start, end).
    """

    HINT = "its vocabulary has no unknown token either: replace that part of the text"

    def __init__(self, name: str, text: str, span: tuple[int, int]) -> None:
        start, end = span
        line = text.count("\n", 0, start) + 1
        column = start - (text.rfind("\n", 0, start) + 1) + 1
        place = f"column {column}" if "\n" not in text else f"line {line}, column {column}"
        part = f"“{text[start:end]}”"
        if end - start == 1:
            part += f" (U+{ord(text[start]):04X})"
        super().__init__(f"{name} has no token for {part} at {place}", self.HINT)


class UnknownParts:
    """Finds what a tokenizer has no token for.

    A tokenizer without an unknown token fails at such a part; one of type BPE leaves it out.
    """

    def __init__(self, backend: tokenizers.Tokenizer, correction: OffsetCorrection) -> None:
        self._backend = backend
        self._correction = correction

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the characters (start, end) of each part of a text that has no token; none where
        sentencepiece splits the text, which knows its own unknown token."""
        if self._is_split_by_python:
            return []
        spans = self._unknown_in(text)
        if not spans and isinstance(self._backend.model, tokenizers.models.Unigram):
            # Unigram needs a token for each character, even inside longer tokens.
            return [(i, i + 1) for i, c in enumerate(text) if not self._has_tokens(c)]
        return spans

    def _has_tokens(self, text: str) -> bool:
        """Return whether each character that the normalizer makes of a text has a token."""
        normalizer, has = self._backend.normalizer, self._backend.token_to_id
        normalized = normalizer.normalize_str(text) if normalizer else text
        return None not in map(has, normalized)

    def _unknown_in(self, text: str) -> list[tuple[int, int]]:
        encoding = self._with_unknown_token.encode(text, add_special_tokens=False)
        unknown = self._with_unknown_token.token_to_id(_UNKNOWN)
        offsets = self._correction.corrected(text, encoding.tokens, encoding.offsets)
        pairs = zip(encoding.ids, offsets, strict=True)
        return [span for token_id, span in pairs if token_id == unknown]

    def offsets_of_the_rest(self, text: str, tokens: Sequence[str]) -> list[tuple[int, int]] | None:
        """Return the offsets of the tokens of a text of which parts were left out; None if with an
        unknown token the other tokens are not the same."""
        encoding = self._with_unknown_token.encode(text, add_special_tokens=False)
        pairs = zip(encoding.tokens, encoding.offsets, strict=True)
        known = [(token, span) for token, span in pairs if token != _UNKNOWN]
        return [span for _, span in known] if [t for t, _ in known] == list(tokens) else None

    def may_leave_out(self, text: str) -> bool:
        """Return whether the tokenizer may leave out a part of a text."""
        if self._never_lost is None:
            return False
        return bool(text.encode().translate(None, self._never_lost))

    @property
    def _is_split_by_python(self) -> bool:
        """Whether Python code splits the text and leaves nothing to the tokenizer's own model, as
        where sentencepiece does."""
        return type(self._backend.pre_tokenizer) is pre_tokenizers.PreTokenizer

    @cached_property
    def _never_lost(self) -> bytes | None:
        """The bytes that are never left out; None if nothing is, no bytes if that depends on the
        text."""
        model, has = self._backend.model, self._backend.token_to_id
        if not isinstance(model, tokenizers.models.BPE) or model.unk_token is not None:
            return None
        if self._is_split_by_python:
            return None
        every_byte = range(256)
        if model.byte_fallback and None not in (has(f"<0x{byte:02X}>") for byte in every_byte):
            return None
        if not _is_byte_level(self._backend):
            return b""
        written = stand_ins()
        kept = bytes(b for b in every_byte if has(written.get(b, chr(b))) is not None)
        return None if len(kept) == 256 else kept

    @cached_property
    def _with_unknown_token(self) -> tokenizers.Tokenizer:
        return _with_unknown_token(self._backend)


def _is_byte_level(backend: tokenizers.Tokenizer) -> bool:
    steps = (*steps_of(backend.normalizer), *steps_of(backend.pre_tokenizer))
    return any(isinstance(s, normalizers.ByteLevel | pre_tokenizers.ByteLevel) for s in steps)


def _with_unknown_token(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    state: dict[str, Any] = json.loads(backend.to_str())
    model = state["model"]
    state.update(post_processor=None, truncation=None, padding=None)
    if model["type"] == "Unigram":
        model["unk_id"] = len(model["vocab"])
        lowest = min((score for _, score in model["vocab"]), default=0.0)
        model["vocab"].append([_UNKNOWN, lowest - 20])
    else:
        # Added tokens get the ids from the vocabulary's size on: keep clear of them.
        last = max(backend.get_vocab().values(), default=0)
        model["vocab"][_UNKNOWN] = last + len(state["added_tokens"]) + 2
        model["unk_token"] = _UNKNOWN
    if model["type"] == "BPE":
        model["fuse_unk"] = False
    return tokenizers.Tokenizer.from_str(json.dumps(state))

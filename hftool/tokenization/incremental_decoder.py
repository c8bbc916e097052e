"""Decode tokens one by one, as a model generates them."""

import re

from hftool.tokenization.token_bytes import is_utf8, readable
from hftool.tokenization.tokenizer import Tokenizer

# The cut is between a letter and spaces that do not lead to an apostrophe: what is cleaned up never
# reaches from one side of it to the other.
_BEFORE_LAST_WORD = re.compile(r"(?s).*\w(?=\s+[^\s'])")


class IncrementalDecoder:
    """Turns token ids into text one by one, and never returns half a character.

    The pieces that `step` has returned are always a prefix of what `Tokenizer.decode` returns for
    all ids so far. `end` returns the rest. If the tokenizer cleans up spaces before punctuation, a
    word is returned when the next one begins; if its decoder replaces text across tokens, all of it
    at the end.

    With `skip_special`, special tokens are left out of the text; without `clean_up`, spaces stay
    before punctuation.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool, clean_up: bool = True) -> None:
        self._tokenizer = tokenizer
        self._cleans_up = clean_up and tokenizer.cleans_up
        self._skip_special = skip_special
        # The ids of the last piece: some decoders treat the first token of a text differently.
        self._context: list[int] = []
        self._pending: list[int] = []
        self._uncleaned = ""

    def step(self, token_id: int) -> str:
        """Add a token, and return the text that is final now; "" if a character is incomplete."""
        self._pending.append(token_id)
        if self._tokenizer.joins_tokens or self._tokenizer.depends_on_next(
            token_id, self._skip_special
        ):
            return ""
        text = self._pending_text()
        if text.endswith("\ufffd"):
            return ""
        if text:
            self._context, self._pending = self._pending, []
        return self._cleaned(text) if self._cleans_up else text

    def end(self) -> str:
        """Return the text of the remaining tokens; an incomplete character as its bytes."""
        text = self._pending_text()
        if "\ufffd" in text:
            data = b"".join(self._tokenizer.token_bytes(i) or b"" for i in self._pending)
            text = text if is_utf8(data) else readable(data)
        text, self._uncleaned = self._uncleaned + text, ""
        self._context, self._pending = [], []
        return self._tokenizer.clean_up(text) if self._cleans_up else text

    def _pending_text(self) -> str:
        before, text = (
            self._tokenizer.decode_uncleaned(ids, self._skip_special)
            for ids in (self._context, self._context + self._pending)
        )
        return text[len(before) :]

    def _cleaned(self, text: str) -> str:
        """Return the text up to the last word: what follows may remove the space before that."""
        self._uncleaned += text
        words = _BEFORE_LAST_WORD.match(self._uncleaned)
        final = words[0] if words else ""
        self._uncleaned = self._uncleaned[len(final) :]
        return self._tokenizer.clean_up(final)

"""Decode tokens one by one, as a model generates them."""

from hftool.tokenization.token_bytes import readable
from hftool.tokenization.tokenizer import Tokenizer


class IncrementalDecoder:
    """Turns token ids into text one by one, and never returns half a character.

    The pieces that `step` has returned are always a prefix of what `Tokenizer.decode` returns for
    all ids so far (before it cleans up spaces). `end` returns the rest.

    With `skip_special`, special tokens are left out of the text.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        # The ids of the last piece: some decoders treat the first token of a text differently.
        self._context: list[int] = []
        self._pending: list[int] = []

    def step(self, token_id: int) -> str:
        """Add a token, and return the text that is final now; "" if a character is incomplete."""
        self._pending.append(token_id)
        if self._tokenizer.depends_on_next(token_id, self._skip_special):
            return ""
        text = self._pending_text()
        if text.endswith("\ufffd"):
            return ""
        if text:
            self._context, self._pending = self._pending, []
        return text

    def end(self) -> str:
        """Return the text of the remaining tokens; an incomplete character as its bytes."""
        text = self._pending_text()
        if "\ufffd" in text:
            text = readable(b"".join(self._tokenizer.token_bytes(i) or b"" for i in self._pending))
        self._context, self._pending = [], []
        return text

    def _pending_text(self) -> str:
        before, text = (
            self._tokenizer.backend.decode(ids, skip_special_tokens=self._skip_special)
            for ids in (self._context, self._context + self._pending)
        )
        return text[len(before) :]

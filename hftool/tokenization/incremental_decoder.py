"""Text out of tokens that come one by one."""

from hftool.tokenization.token_bytes import readable
from hftool.tokenization.tokenizer import Tokenizer


class IncrementalDecoder:
    """Text out of ids that come one by one; never half a character.

    What `step` has returned is at every moment a prefix of what `Tokenizer.decode` gives for all
    ids so far (before it cleans spaces up). `end` returns what was held back.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        # The ids of the last piece: a decoder may treat the first token of a text differently.
        self._context: list[int] = []
        self._pending: list[int] = []

    def step(self, token_id: int) -> str:
        """The text that is certain with this token; "" where a character is not complete yet."""
        self._pending.append(token_id)
        if self._tokenizer.is_open(token_id, self._skip_special):
            return ""
        text = self._pending_text()
        if text.endswith("\ufffd"):
            return ""
        if text:
            self._context, self._pending = self._pending, []
        return text

    def end(self) -> str:
        """What was held back; of a character that never became complete the bytes."""
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

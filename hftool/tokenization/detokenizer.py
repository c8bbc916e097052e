"""Token ids to text: what a tokenizer's decoder makes of them, and the bytes of each token."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import tokenizers
from tokenizers import AddedToken

from hftool.errors import HftoolError
from hftool.options.vocabulary import TokenKind
from hftool.tokenization.pipeline import decoder_steps
from hftool.tokenization.token_bytes import (
    BYTE_TOKEN,
    Step,
    bytes_of,
    show_bytes,
    stand_ins_of,
    word_piece,
)

_SPACED_PUNCTUATION = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")

# Steps of decoders that treat the first or the last token in another way.
_BY_PLACE = ("WordPiece", "BPEDecoder", "Metaspace", "CTC")


class Detokenizer:
    """Converts token ids to text, and knows the text and the bytes of each token.

    Args:
        name: the model's name, for errors.
        backend: has the vocabulary and the decoder.
        config: the content of tokenizer_config.json.
    """

    def __init__(self, name: str, backend: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
        self.name = name
        self.backend = backend
        self.config = config

    @cached_property
    def added_tokens(self) -> dict[int, AddedToken]:
        """The tokens by id that are matched in the text before it is split further."""
        return self.backend.get_added_tokens_decoder()

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """Return the text of token ids; as in transformers' `decode`, bytes that are not valid
        UTF-8 become U+FFFD.

        It is what the tokenizer's decoder makes of the tokens, except where that contradicts the
        tokens' bytes: see `_spelling`.

        Raises:
            HftoolError: the decoder fails.
        """
        return self.clean_up(self.decode_uncleaned(ids, skip_special))

    def decode_uncleaned(self, ids: Sequence[int], skip_special: bool) -> str:
        """Do the same as `decode`, but leave spaces before punctuation."""
        tokens = []
        for token_id in ids:
            if skip_special and token_id in self.skipped:
                continue
            token = self._spelling(token_id)
            if token is not None:
                tokens.append(token)
        if self._decoder is None:
            return " ".join(tokens)
        if tokens and self._space_at_start is not None:
            # The decoder would remove all of them.
            tokens[0] = tokens[0][:1] + tokens[0][1:].replace(self._space_at_start, " ")
        try:
            text = self._decoder.decode(tokens)
        except BaseException as error:  # a panic of tokenizers is not an Exception
            if type(error).__name__ != "PanicException":
                raise
            raise HftoolError(f"the decoder of {self.name} fails: {error}") from None
        return text.strip(" ") if self._word_end else text

    def _is_special(self, token_id: int) -> bool:
        added = self.added_tokens.get(token_id)
        return added is not None and added.special

    @cached_property
    def skipped(self) -> frozenset[int]:
        """The tokens that are left out with `skip_special`. These are also tokens that were special
        when they were added first, and no longer are."""

        def text(token_id: int, *, skip_special_tokens: bool) -> str:
            return self.backend.decode([token_id], skip_special_tokens=skip_special_tokens)

        return frozenset(
            token_id
            for token_id, token in self.added_tokens.items()
            if token.special
            or text(token_id, skip_special_tokens=True) != text(token_id, skip_special_tokens=False)
        )

    def _spelling(self, token_id: int) -> str | None:
        """Return a token as the decoder should get it; None for an unused id.

        That differs from how it is stored for added tokens of a byte-level tokenizer, whose letters
        do not stand for bytes, and for a suffix at the ends of words (CLIP's `</w>`) that the
        decoder does not know.
        """
        added = self.added_tokens.get(token_id)
        if added is not None and self._is_byte_level:
            return stand_ins_of(added.content)
        token = self.backend.id_to_token(token_id)
        if (
            token is not None
            and added is None
            and self._word_end
            and token.endswith(self._word_end)
        ):
            space = stand_ins_of(" ") if self._is_byte_level else " "
            return token.removesuffix(self._word_end) + space
        return token

    @cached_property
    def _decoder(self) -> tokenizers.decoders.Decoder | None:
        decoder: tokenizers.decoders.Decoder | None = self.backend.decoder
        return decoder

    @cached_property
    def _is_byte_level(self) -> bool:
        types = [step["type"] for step in self._steps]
        if "ByteLevel" not in types:
            return False
        return not {"Fuse", "ByteFallback", *_BY_PLACE} & set(types[: types.index("ByteLevel")])

    @cached_property
    def _word_end(self) -> str | None:
        """The suffix of tokens at the ends of words, None if there is none, or the decoder itself
        replaces it."""
        suffix = getattr(self.backend.model, "end_of_word_suffix", None)
        replaced = [step["pattern"] for step in self._steps if step["type"] == "Replace"]
        known = not self._step_types.isdisjoint(_BY_PLACE) or {"String": suffix} in replaced
        return None if self._decoder is None or known else suffix or None

    @cached_property
    def _space_at_start(self) -> str | None:
        """The character for spaces that the decoder removes at the start of a text."""
        steps = (s for s in self._steps if s["type"] == "Metaspace")
        kept = (s["replacement"] for s in steps if s.get("prepend_scheme") != "never")
        return next(kept, None)

    def clean_up(self, text: str) -> str:
        """Remove spaces before punctuation if tokenizer_config.json requests that.

        These are the replacements of transformers' `clean_up_tokenization`, which also leaves BPE
        models out.
        """
        if not self.cleans_up:
            return text
        for spaced in _SPACED_PUNCTUATION:
            text = text.replace(spaced, spaced.strip())
        return text

    @cached_property
    def cleans_up(self) -> bool:
        """Whether `decode` removes spaces before punctuation."""
        bpe = isinstance(self.backend.model, tokenizers.models.BPE)
        return not bpe and bool(self.config.get("clean_up_tokenization_spaces"))

    def token_text(self, token_id: int) -> str:
        """Return a token as hftool shows it inside a text: its text, or its bytes
        (`<0xE4><0xBD>`) if these are not text.

        A space at its start or end is included, which some decoders (Llama 2's, T5's) remove at the
        beginning or the end of a text. So "▁good" is different from "good". A WordPiece token
        that continues a word keeps its "##".
        """
        data = self.token_bytes(token_id)
        if data is None or "WordPiece" in self._step_types:
            return self.single_text(token_id)
        return _text_or_bytes(data)

    def single_text(self, token_id: int) -> str:
        """Decode a single token, to its bytes (`<0xE4><0xBD>`) if these are not text."""
        text = self.decode([token_id])
        data = self.token_bytes(token_id) if "\ufffd" in text else None
        return text if data is None else _text_or_bytes(data)

    def token_bytes(self, token_id: int) -> bytes | None:
        """Return the bytes of a token inside a text; None for special tokens and unused ids."""
        if self._is_special(token_id):
            return None
        # Added tokens are decoded like normal ones: Gemma's runs of ▁ are spaces.
        token = self._spelling(token_id)
        return None if token is None else bytes_of(token, self._steps)

    def token_hex(self, token_id: int) -> str | None:
        """Return the bytes of a token in hex, as in records."""
        data = self.token_bytes(token_id)
        return None if data is None else data.hex()

    def kind(self, token_id: int) -> TokenKind:
        """Return the kind of a token; a `byte` token is not a whole character by itself."""
        return self.describe(token_id)[2]

    def describe(self, token_id: int) -> tuple[str, bytes | None, TokenKind]:
        """Return a token as it is stored, its bytes and its kind."""
        token = self.backend.id_to_token(token_id)
        added = self.added_tokens.get(token_id)
        data = self.token_bytes(token_id)
        if added is not None:
            return token or "", data, "special" if added.special else "added"
        if token is None or data is None:
            return "", None, "unused"
        if "ByteFallback" in self._step_types and BYTE_TOKEN.fullmatch(token):
            return token, data, "byte"
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            return token, data, "byte"
        return token, data, "normal"

    def depends_on_next(self, token_id: int, skip_special: bool) -> bool:
        """Return whether the text of a token depends on the tokens that follow.

        Byte tokens, for characters that are not in the vocabulary, are decoded in whole runs: one
        invalid byte turns all of a run into U+FFFD. A special token that is skipped does not end
        such a run.
        """
        if "ByteFallback" not in self._step_types:
            return False
        if skip_special and token_id in self.skipped:
            return True
        return BYTE_TOKEN.fullmatch(self.backend.id_to_token(token_id) or "") is not None

    @cached_property
    def _steps(self) -> tuple[Step, ...]:
        """The steps of the decoder in their order."""
        return decoder_steps(self._decoder)

    @cached_property
    def joins_tokens(self) -> bool:
        """Whether the decoder works on the text of several tokens, such that a token may change the
        text of those before it."""
        types = [step["type"] for step in self._steps]
        fused = next((i for i, t in enumerate(types) if t in ("Fuse", "ByteLevel")), len(types))
        placed = next((i for i, t in enumerate(types) if t in _BY_PLACE), len(types))
        compares = any(t in ("ByteLevel", "ByteFallback", "CTC") for t in types[placed + 1 :])
        mixed = "ByteLevel" in types and not self._is_byte_level
        return compares or mixed or not all(map(_is_local, self._steps[fused + 1 :]))

    @cached_property
    def concatenates(self) -> bool:
        """Whether a text is the `inner_bytes` of its tokens one after another, but for a space at
        its beginning."""
        if self.spaces_words:
            return len(self._steps) == 1
        known = self._decoder is not None and not self._word_end and not self.joins_tokens
        return known and self._step_types.isdisjoint({*_BY_PLACE} - {"Metaspace"})

    def inner_bytes(self, token_id: int) -> bytes | None:
        """Return what a token adds to a text that has begun: its bytes, and the space before it if
        the decoder puts one there. None for special tokens and unused ids."""
        data, token = self.token_bytes(token_id), self._spelling(token_id)
        if data is None or token is None or not self.spaces_words:
            return data
        return word_piece(token, self._steps[0]).encode()

    @cached_property
    def spaces_words(self) -> bool:
        """Whether the decoder puts a space before each word but the first."""
        return "WordPiece" in self._step_types

    @cached_property
    def drops_first_space(self) -> bool:
        """Whether a text is without the space that its first token begins with."""
        if self.spaces_words:
            return True
        ids = range(self.backend.get_vocab_size(with_added_tokens=True))
        words = ((i, self.token_bytes(i) or b"") for i in ids if i not in self.added_tokens)
        spaced = next(((i, word) for i, word in words if word[:1] == b" " and word.strip()), None)
        return spaced is not None and not self.decode_uncleaned([spaced[0]], False).startswith(" ")

    @cached_property
    def _step_types(self) -> frozenset[str]:
        return frozenset(step["type"] for step in self._steps)


def _text_or_bytes(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return show_bytes(data)


def _is_local(step: Step) -> bool:
    """Return whether a step of a decoder, applied to the text of many tokens, changes each
    character by itself, except for one at the beginning or the end."""
    if step["type"] == "Replace":
        return len(step["pattern"].get("String", "")) == 1
    if step["type"] == "Strip":
        return bool(step["start"] <= 1)
    return bool(step["type"] == "Fuse")

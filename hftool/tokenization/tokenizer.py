"""A model's tokenizer, straight from its files: no torch, no transformers.

Loads what transformers' `TokenizersBackend` loads: tokenizer.json, completed by the added tokens
of tokenizer_config.json. Its `add_bos_token` and `add_eos_token` don't count where there is a
tokenizer.json: the post-processor there says what is put around a text.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from hftool.errors import HftoolError
from hftool.json_files import read_json
from hftool.options.vocabulary import TokenKind
from hftool.tokenization.token_bytes import BYTE_TOKEN, bytes_of, show_bytes

_SPACED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


class Tokenizer:
    """Text to ids and back, and what each id stands for.

    Args:
        folder: holds tokenizer.json, perhaps tokenizer_config.json and chat_template.jinja.

    Raises:
        HftoolError: a file is missing or broken.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.folder = folder
        self.config: dict[str, Any] = read_json(folder / "tokenizer_config.json")
        path = folder / "tokenizer.json"
        try:
            self.backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises Exception itself
            raise HftoolError(f"cannot read the tokenizer {path}: {error}") from None
        self.backend.no_truncation()
        self.backend.no_padding()
        self._keep_spaces_in_spans()
        try:
            self._add_missing_tokens()
        except (TypeError, ValueError, AttributeError) as error:
            path = folder / "tokenizer_config.json"
            raise HftoolError(f"cannot read the added tokens of {path}: {error}") from None

    def _keep_spaces_in_spans(self) -> None:
        """Byte-level post-processors may leave spaces out of a token's span (`trim_offsets`), which
        makes the span of a space empty."""
        processor = self.backend.post_processor
        several = isinstance(processor, tokenizers.processors.Sequence)
        for step in processor if several else [processor]:
            if hasattr(step, "trim_offsets"):
                step.trim_offsets = False

    def _add_missing_tokens(self) -> None:
        known = self.backend.get_added_tokens_decoder()
        listed = self.config.get("added_tokens_decoder") or {}
        for token_id, token in sorted(listed.items(), key=lambda item: int(item[0])):
            if int(token_id) not in known:
                flags = {k: v for k, v in token.items() if k != "__type"}
                self.backend.add_tokens([AddedToken(**flags)])
        self.backend.add_special_tokens(self._special_contents())

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """The special tokens by role: {"eos_token": "<|im_end|>"}."""
        tokens = {**read_json(self.folder / "special_tokens_map.json"), **self.config}
        found = {role: token for role, token in tokens.items() if role.endswith("_token")}
        texts = {r: t.get("content") if isinstance(t, dict) else t for r, t in found.items()}
        return {role: text for role, text in texts.items() if isinstance(text, str)}

    def _special_contents(self) -> list[str]:
        """The special tokens, also those without a role, in the order in which they are added."""
        extra = self.config.get("extra_special_tokens")
        extra = extra or self.config.get("additional_special_tokens") or []
        listed = extra.values() if isinstance(extra, dict) else extra
        texts = (t.get("content") if isinstance(t, dict) else t for t in listed)
        return [*self.special_tokens.values(), *(t for t in texts if isinstance(t, str))]

    @cached_property
    def chat_template(self) -> str | None:
        """The model's own chat template (Jinja), None where it has none.

        Raises:
            HftoolError: it can't be read, or is no text.
        """
        path = self.folder / "chat_template.jinja"
        try:
            if path.is_file():
                return path.read_text(encoding="utf-8")
            path = self.folder / "tokenizer_config.json"
            template = self.config.get("chat_template")
            if isinstance(template, list):  # several by name
                template = {t["name"]: t["template"] for t in template}.get("default")
            if template is not None and not isinstance(template, str):
                raise ValueError("it is no text")
        except (OSError, ValueError, KeyError, TypeError) as error:
            cause = f"it has no {error}" if isinstance(error, KeyError) else error
            raise HftoolError(f"cannot read the chat template in {path}: {cause}") from None
        return template

    @cached_property
    def added_tokens(self) -> dict[int, AddedToken]:
        """Tokens that are matched in the text before the model's own splitting, by id."""
        return self.backend.get_added_tokens_decoder()

    @cached_property
    def size(self) -> int:
        """One more than the highest id."""
        tokens = self.backend.get_vocab_size(with_added_tokens=True)
        name = self.backend.id_to_token
        if name(tokens) is None and None not in map(name, range(tokens)):
            return tokens  # a token for each id; the vocabulary as a dict takes four times as long
        return max(self.backend.get_vocab().values(), default=-1) + 1

    def encode(self, text: str, special: bool) -> tokenizers.Encoding:
        """The tokens of a text, `special` with those the model adds around it by itself."""
        return self.backend.encode(text, add_special_tokens=special)

    def encode_batch(self, texts: Sequence[str], special: bool) -> list[tokenizers.Encoding]:
        """The tokens of several texts, on all cores."""
        return self.backend.encode_batch(texts, add_special_tokens=special)

    def spans(self, text: str, encoding: tokenizers.Encoding) -> list[tuple[int, int]]:
        """The characters of a text that each token holds, in whole or in part, as (start, end).

        Unigram's bytes of a run of unknown characters all have the run's span: here each has that
        of its character, where the run was not normalized.
        """
        found = encoding.offsets
        if not isinstance(self.backend.model, tokenizers.models.Unigram):
            return found
        for (start, end), same in groupby(range(len(found)), key=found.__getitem__):
            run = list(same)
            data = [self.token_bytes(encoding.ids[i]) for i in run] if end - start > 1 else []
            if data and data == [bytes([byte]) for byte in text[start:end].encode()]:
                places = [start + at for at, c in enumerate(text[start:end]) for _ in c.encode()]
                found[run[0] : run[-1] + 1] = [(place, place + 1) for place in places]
        return found

    def encode_windows(
        self, texts: Sequence[str], length: int | None, overlap: float
    ) -> list[list[list[int]]]:
        """The ids of each of several texts in windows of at most `length` tokens (None: one
        window), each with the special tokens the model adds by itself; `overlap` is the share of a
        window that the one before has too."""
        if length is not None:
            room = length - self.backend.num_special_tokens_to_add(False)
            self.backend.enable_truncation(length, stride=int(room * overlap))
        try:
            found = self.backend.encode_batch_fast(texts)
        finally:
            self.backend.no_truncation()
        return [[e.ids, *(window.ids for window in e.overflowing)] for e in found]

    def encode_pairs(
        self, pairs: Sequence[tuple[str, str]], length: int | None
    ) -> list[tokenizers.Encoding]:
        """Pairs of texts as one sequence each, the first text cut where it has more than `length`
        tokens (`overflowing` has what was cut off).

        Raises:
            HftoolError: the second text alone is longer.
        """
        if length is not None:
            self.backend.enable_truncation(length, strategy="only_first")
        try:
            return self.backend.encode_batch_fast(pairs)
        except Exception as error:  # tokenizers raises Exception itself
            raise HftoolError(f"{self.name}: {error}") from None
        finally:
            self.backend.no_truncation()

    def count_batch(self, texts: Sequence[str], special: bool) -> list[int]:
        """How many tokens each of several texts has, on all cores."""
        encodings = self.backend.encode_batch_fast(texts, add_special_tokens=special)
        return [len(encoding) for encoding in encodings]

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """The text of ids; what is no UTF-8 becomes U+FFFD, as in transformers' `decode`."""
        text = self.backend.decode(ids, skip_special_tokens=skip_special)
        return self._cleaned(text)

    def _cleaned(self, text: str) -> str:
        """Spaces before punctuation removed where tokenizer_config.json asks for it.

        The same replacements as transformers' `clean_up_tokenization`, and like there not for BPE.
        """
        if not self._cleans:
            return text
        for spaced in _SPACED:
            text = text.replace(spaced, spaced.strip())
        return text

    @cached_property
    def _cleans(self) -> bool:
        bpe = isinstance(self.backend.model, tokenizers.models.BPE)
        return not bpe and bool(self.config.get("clean_up_tokenization_spaces"))

    def token_text(self, token_id: int) -> str:
        """A token as it is shown: its text, or its bytes (`<0xE4><0xBD>`) where it has none.

        With the space before it, which some decoders (Llama 2's, T5's) take away at the beginning
        of a text: "▁good" and "good" are told apart.
        """
        text = self.text_alone(token_id)
        return " " + text if self.token_bytes(token_id) == b" " + text.encode() else text

    def text_alone(self, token_id: int) -> str:
        """What decoding this one token gives, or its bytes where that is no text."""
        text = self.decode([token_id])
        return self._of_bytes(token_id, text) if "\ufffd" in text else text

    def texts_alone(self, ids: Sequence[int]) -> list[str]:
        """The `text_alone` of each, which takes less time for many and more for a few."""
        texts = self.backend.decode_batch([[i] for i in ids], skip_special_tokens=False)
        if self._cleans:
            texts = [self._cleaned(text) for text in texts]
        return [
            self._of_bytes(i, text) if "\ufffd" in text else text
            for i, text in zip(ids, texts, strict=True)
        ]

    def _of_bytes(self, token_id: int, text: str) -> str:
        """The text of a token that was decoded to one with U+FFFD in it."""
        data = self.token_bytes(token_id)
        if data is None:
            return text
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return show_bytes(data)

    def token_bytes(self, token_id: int) -> bytes | None:
        """The bytes a token stands for inside a text; None for a special token or no token."""
        token = self.backend.id_to_token(token_id)
        return self._bytes(token, self.added_tokens.get(token_id))

    def _bytes(self, token: str | None, added: AddedToken | None) -> bytes | None:
        if added is not None and (added.special or "ByteLevel" in self._decoders):
            return None if added.special else added.content.encode()
        # Others are decoded like the rest: Gemma's runs of ▁ are added tokens, and are spaces.
        return None if token is None else bytes_of(token, self._decoders)

    def token_hex(self, token_id: int) -> str | None:
        """The bytes of a token in hex, as records have them."""
        data = self.token_bytes(token_id)
        return None if data is None else data.hex()

    def kind(self, token_id: int) -> TokenKind:
        """What a token is; `byte` is a token that is no whole character by itself."""
        return self.described(token_id)[2]

    def described(self, token_id: int) -> tuple[str, bytes | None, TokenKind]:
        """The token as it is stored, its bytes and its kind, at once."""
        token = self.backend.id_to_token(token_id)
        added = self.added_tokens.get(token_id)
        data = self._bytes(token, added)
        if added is not None:
            return token or "", data, "special" if added.special else "added"
        if token is None or data is None:
            return "", None, "unused"
        if "ByteFallback" in self._decoders and BYTE_TOKEN.fullmatch(token):
            return token, data, "byte"
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            return token, data, "byte"
        return token, data, "normal"

    def is_open(self, token_id: int, skip_special: bool) -> bool:
        """Whether the ids that follow may change a token's text.

        Bytes that stand for characters the vocabulary lacks are decoded by whole runs: one wrong
        byte makes all of a run U+FFFD. A special token that is skipped ends no run.
        """
        if "ByteFallback" not in self._decoders:
            return False
        if skip_special and self.kind(token_id) == "special":
            return True
        return BYTE_TOKEN.fullmatch(self.backend.id_to_token(token_id) or "") is not None

    @cached_property
    def _decoders(self) -> dict[str, dict[str, Any]]:
        """The steps of the decoder by type, with their settings."""
        if self.backend.decoder is None:
            return {}
        state = json.loads(self.backend.decoder.__getstate__())
        return {step["type"]: step for step in state.get("decoders", [state])}

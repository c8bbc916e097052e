"""A model's tokenizer, read directly from its files, without torch and transformers.

It has what transformers' `TokenizersBackend` has: tokenizer.json, and the added tokens of
tokenizer_config.json. The keys `add_bos_token` and `add_eos_token` there have no effect, since the
post-processor in tokenizer.json decides which special tokens are added around a text.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from hftool.errors import HftoolError
from hftool.json_files import not_the_file, read_json
from hftool.options.vocabulary import TokenKind
from hftool.tokenization.added_tokens import AddedTokens
from hftool.tokenization.chat_templates import DEFAULT, read_chat_templates
from hftool.tokenization.sentencepiece_model import SENTENCEPIECE, use_sentencepiece
from hftool.tokenization.token_bytes import BYTE_TOKEN, bytes_of, show_bytes

_SPACED_PUNCTUATION = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


class Tokenizer:
    """Converts text to token ids and back, and knows the text and the bytes of each token.

    Args:
        folder: has tokenizer.json, and perhaps tokenizer_config.json and chat_template.jinja.
        name: the model's name, for errors and records.

    Raises:
        HftoolError: a file is missing or broken.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.folder = folder
        self.config: dict[str, Any] = read_json(folder / "tokenizer_config.json")
        self.backend = _read_backend(folder / "tokenizer.json")
        self._keep_spaces_in_spans()
        try:
            added = AddedTokens(folder, self.config, self.backend)
            added.add_to(self.backend, name)
            self.backend.encode_special_tokens = bool(self.config.get("split_special_tokens"))
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            path = folder / "tokenizer_config.json"
            raise HftoolError(f"cannot read the added tokens of {path}: {error}") from None
        if (folder / SENTENCEPIECE).is_file():
            use_sentencepiece(self.backend, folder, added.texts.get("unk_token"))
        self.special_tokens = added.texts
        """The special tokens by role: {"eos_token": "<|im_end|>"}."""

    def _keep_spaces_in_spans(self) -> None:
        """Turn off `trim_offsets` of byte-level post-processors, which excludes spaces from a
        token's span, and so makes the span of a space empty."""
        processor = self.backend.post_processor
        several = isinstance(processor, tokenizers.processors.Sequence)
        for step in processor if several else [processor]:
            if hasattr(step, "trim_offsets"):
                step.trim_offsets = False

    @cached_property
    def chat_templates(self) -> dict[str, str]:
        """The model's chat templates (Jinja) by name; that without a name is called "default".

        Raises:
            HftoolError: one can't be read, or is not a text.
        """
        return read_chat_templates(self.folder, self.config)

    @property
    def chat_template(self) -> str | None:
        """The model's default chat template, None if it has none. Raises: as `chat_templates`."""
        return self.chat_templates.get(DEFAULT)

    @cached_property
    def added_tokens(self) -> dict[int, AddedToken]:
        """The tokens by id that are matched in the text before it is split further."""
        return self.backend.get_added_tokens_decoder()

    @cached_property
    def size(self) -> int:
        """One more than the highest id."""
        tokens = self.backend.get_vocab_size(with_added_tokens=True)
        name = self.backend.id_to_token
        if name(tokens) is None and None not in map(name, range(tokens)):
            return tokens  # each id has a token; get_vocab below takes four times as long
        return max(self.backend.get_vocab().values(), default=-1) + 1

    def encode(self, text: str, special: bool) -> tokenizers.Encoding:
        """Encode a text, with `special` including the special tokens that the model adds."""
        with self._encoding_errors():
            return self.backend.encode(text, add_special_tokens=special)

    def encode_batch(self, texts: Sequence[str], special: bool) -> list[tokenizers.Encoding]:
        """Encode several texts, on all cores."""
        with self._encoding_errors():
            return self.backend.encode_batch(texts, add_special_tokens=special)

    @contextmanager
    def _encoding_errors(self) -> Iterator[None]:
        """Report in one line that a text can't be encoded, as with a vocabulary that lacks its own
        token for what is unknown."""
        try:
            yield
        except Exception as error:
            if type(error) is not Exception:  # tokenizers raises Exception itself
                raise
            raise HftoolError(f"the tokenizer of {self.name} fails: {error}") from None

    def spans(self, text: str, encoding: tokenizers.Encoding) -> list[tuple[int, int]]:
        """Return the characters of a text that each token covers, at least in part: (start, end).

        A Unigram model gives all byte tokens of a run of unknown characters the span of the run.
        Here each of them has the span of its character, unless the run was normalized.
        """
        spans = encoding.offsets
        if not isinstance(self.backend.model, tokenizers.models.Unigram):
            return spans
        for (start, end), same in groupby(range(len(spans)), key=spans.__getitem__):
            run = list(same)
            data = [self.token_bytes(encoding.ids[i]) for i in run] if end - start > 1 else []
            if data and data == [bytes([byte]) for byte in text[start:end].encode()]:
                starts = [start + i for i, c in enumerate(text[start:end]) for _ in c.encode()]
                spans[run[0] : run[-1] + 1] = [(start, start + 1) for start in starts]
        return spans

    def encode_windows(
        self, texts: Sequence[str], length: int | None, overlap: float
    ) -> list[list[list[int]]]:
        """Encode several texts in windows, including the special tokens that the model adds.

        Args:
            length: the maximum number of tokens in a window; None for one window per text.
            overlap: the share of a window's tokens that the previous window has as well.

        Returns: the ids of each window of each text.
        """
        if length is not None:
            capacity = length - self.backend.num_special_tokens_to_add(False)
            self.backend.enable_truncation(length, stride=int(capacity * overlap))
        try:
            with self._encoding_errors():
                encodings = self.backend.encode_batch_fast(texts)
        finally:
            self.backend.no_truncation()
        return [[e.ids, *(window.ids for window in e.overflowing)] for e in encodings]

    def encode_pairs(
        self, pairs: Sequence[tuple[str, str]], length: int | None
    ) -> list[tokenizers.Encoding]:
        """Encode pairs of texts as one sequence each. If that has more than `length` tokens, the
        first text is truncated, and the encoding's `overflowing` has the rest.

        Raises:
            HftoolError: the second text is too long by itself.
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
        """Return the number of tokens of each of several texts, on all cores."""
        with self._encoding_errors():
            encodings = self.backend.encode_batch_fast(texts, add_special_tokens=special)
        return [len(encoding) for encoding in encodings]

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """Return the text of token ids; as in transformers' `decode`, bytes that are not valid
        UTF-8 become U+FFFD."""
        text = self.backend.decode(ids, skip_special_tokens=skip_special)
        return self._cleaned(text)

    def _cleaned(self, text: str) -> str:
        """Remove spaces before punctuation if tokenizer_config.json requests that.

        These are the replacements of transformers' `clean_up_tokenization`, which also leaves BPE
        models out.
        """
        if not self._cleans:
            return text
        for spaced in _SPACED_PUNCTUATION:
            text = text.replace(spaced, spaced.strip())
        return text

    @cached_property
    def _cleans(self) -> bool:
        bpe = isinstance(self.backend.model, tokenizers.models.BPE)
        return not bpe and bool(self.config.get("clean_up_tokenization_spaces"))

    def token_text(self, token_id: int) -> str:
        """Return a token as hftool shows it: its text, or its bytes (`<0xE4><0xBD>`) if these are
        not text.

        A space at the start is included, which some decoders (Llama 2's, T5's) remove at the
        beginning of a text. So "▁good" is different from "good".
        """
        text = self.single_text(token_id)
        return " " + text if self.token_bytes(token_id) == b" " + text.encode() else text

    def single_text(self, token_id: int) -> str:
        """Decode a single token, to its bytes (`<0xE4><0xBD>`) if these are not text."""
        text = self.decode([token_id])
        return self._with_bytes(token_id, text) if "\ufffd" in text else text

    def single_texts(self, ids: Sequence[int]) -> list[str]:
        """Return the `single_text` of each token; for many tokens this is faster."""
        texts = self.backend.decode_batch([[i] for i in ids], skip_special_tokens=False)
        if self._cleans:
            texts = [self._cleaned(text) for text in texts]
        return [
            self._with_bytes(i, text) if "\ufffd" in text else text
            for i, text in zip(ids, texts, strict=True)
        ]

    def _with_bytes(self, token_id: int, text: str) -> str:
        """Return the text of a token, with its bytes if U+FFFD was decoded from invalid ones."""
        data = self.token_bytes(token_id)
        if data is None:
            return text
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return show_bytes(data)

    def token_bytes(self, token_id: int) -> bytes | None:
        """Return the bytes of a token inside a text; None for special tokens and unused ids."""
        token = self.backend.id_to_token(token_id)
        return self._bytes(token, self.added_tokens.get(token_id))

    def _bytes(self, token: str | None, added: AddedToken | None) -> bytes | None:
        if added is not None and (added.special or "ByteLevel" in self._decoders):
            return None if added.special else added.content.encode()
        # Other added tokens are decoded like normal ones: Gemma's runs of ▁ are spaces.
        return None if token is None else bytes_of(token, self._decoders)

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

    def depends_on_next(self, token_id: int, skip_special: bool) -> bool:
        """Return whether the text of a token depends on the tokens that follow.

        Byte tokens, for characters that are not in the vocabulary, are decoded in whole runs: one
        invalid byte turns all of a run into U+FFFD. A special token that is skipped does not end
        such a run.
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


def _read_backend(path: Path) -> tokenizers.Tokenizer:
    """Read a tokenizer.json. Truncation, padding and dropout, which are for training, are off.

    Raises:
        HftoolError: the file is missing or broken, or needs a newer version of tokenizers.
    """
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises Exception itself
        raise _unreadable(path, error) from None
    backend.no_truncation()
    backend.no_padding()
    if getattr(backend.model, "dropout", None):
        backend.model.dropout = None
    return backend


def _unreadable(path: Path, error: Exception) -> HftoolError:
    if problem := not_the_file(path):
        return HftoolError(f"cannot read the tokenizer {path}: {problem[0]}", problem[1])
    if "did not match any variant of untagged enum" not in str(error):
        cause = f"it is cut off ({error})" if str(error).startswith("EOF") else str(error)
        return HftoolError(f"cannot read the tokenizer {path}: {cause}")
    if (part := _unknown_part(path)) is None:
        cause = f"tokenizers {tokenizers.__version__} does not know one of its parts ({error})"
    else:
        cause = f"tokenizers {tokenizers.__version__} does not know its {part[0]} “{part[1]}”"
    return HftoolError(
        f"cannot read the tokenizer {path}: {cause}",
        "a newer version may know it: pip install -U tokenizers transformers",
    )


def _unknown_part(path: Path) -> tuple[str, str] | None:
    """Return which part of a tokenizer.json this version of tokenizers does not know, by its name
    in the file and its type: ("pre_tokenizer", "SplitEverySyllable")."""
    kinds = {
        "normalizer": tokenizers.normalizers,
        "pre_tokenizer": tokenizers.pre_tokenizers,
        "model": tokenizers.models,
        "post_processor": tokenizers.processors,
        "decoder": tokenizers.decoders,
    }
    content = read_json(path)
    for name, known in kinds.items():
        remaining = [content.get(name)]
        while remaining:
            part = remaining.pop()
            if not isinstance(part, dict):
                continue
            for key in (f"{name}s", "pretokenizers", "processors"):
                remaining += part.get(key) or []
            kind = part.get("type")
            if isinstance(kind, str) and not hasattr(known, kind):
                return name, kind
    return None

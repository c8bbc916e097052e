"""A model's tokenizer, read directly from its files, without torch and transformers.

It has what transformers' `TokenizersBackend` has: tokenizer.json, and the added tokens of
tokenizer_config.json. The keys `add_bos_token` and `add_eos_token` there have no effect, since the
post-processor in tokenizer.json decides which special tokens are added around a text.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Literal

import tokenizers
from tokenizers import AddedToken

from hftool.errors import HftoolError
from hftool.json_files import not_the_file, read_json
from hftool.options.vocabulary import TokenKind
from hftool.tokenization.added_tokens import AddedTokens
from hftool.tokenization.chat_templates import DEFAULT, read_chat_templates
from hftool.tokenization.offsets import OffsetCorrection
from hftool.tokenization.pipeline import decoder_steps
from hftool.tokenization.python_tokenizer import PYTHON_TOKENIZER, use_python_tokenizer
from hftool.tokenization.sentencepiece_model import SENTENCEPIECE, use_sentencepiece
from hftool.tokenization.token_bytes import (
    BYTE_TOKEN,
    Step,
    bytes_of,
    show_bytes,
    stand_ins_of,
)
from hftool.tokenization.unknown import NoTokenError, UnknownParts

log = logging.getLogger("hftool")

_SPACED_PUNCTUATION = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")

# Steps of decoders that treat the first or the last token in another way.
_BY_PLACE = ("WordPiece", "BPEDecoder", "Metaspace", "CTC")


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
        self._reported: set[str] = set()  # texts of which a part was left out
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
        elif (folder / PYTHON_TOKENIZER).is_file():
            use_python_tokenizer(self.backend, folder)
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

    @cached_property
    def unknown_id(self) -> int | None:
        """The id of the token for what is not in the vocabulary, None if there is none."""
        model = self.backend.model
        if isinstance(model, tokenizers.models.Unigram):
            unknown: int | None = json.loads(model.__getstate__())["unk_id"]
            return unknown
        return self.backend.token_to_id(model.unk_token) if model.unk_token else None

    def encode(self, text: str, special: bool) -> tokenizers.Encoding:
        """Encode a text, with `special` including the special tokens that the model adds.

        A warning is logged if a part of the text has no token and is left out.

        Raises:
            NoTokenError: a part of the text has no token, and the model no unknown token for it.
        """
        with self._encoding_errors([text]):
            encoding = self.backend.encode(text, add_special_tokens=special)
        self._report_left_out([text])
        return encoding

    def encode_batch(self, texts: Sequence[str], special: bool) -> list[tokenizers.Encoding]:
        """Encode several texts, on all cores. Logs and raises as `encode`."""
        with self._encoding_errors(texts):
            encodings = self.backend.encode_batch(texts, add_special_tokens=special)
        self._report_left_out(texts)
        return encodings

    @contextmanager
    def _encoding_errors(self, texts: Iterable[str]) -> Iterator[None]:
        """Report in one line that one of several texts can't be encoded."""
        try:
            yield
        except Exception as error:
            if type(error) is not Exception:  # tokenizers raises Exception itself
                raise
            for text in texts:
                if spans := self._unknown.spans(text):
                    raise NoTokenError(self.name, text, spans[0]) from None
            raise HftoolError(f"the tokenizer of {self.name} fails: {error}") from None

    def _report_left_out(self, texts: Sequence[str]) -> None:
        for text in texts:
            if self._unknown.may_leave_out(text) and (spans := self._unknown.spans(text)):
                message = f"{NoTokenError(self.name, text, spans[0])}: left out"
                others = f", like {len(spans) - 1} more after it" if len(spans) > 1 else ""
                if text not in self._reported:
                    log.warning("%s%s", message, others)
                    self._reported.add(text)

    @cached_property
    def _unknown(self) -> UnknownParts:
        return UnknownParts(self.backend, self._offset_correction)

    def spans(self, text: str, encoding: tokenizers.Encoding) -> list[tuple[int, int]]:
        """Return the characters of a text that each token covers, at least in part: (start, end).

        A Unigram model gives all byte tokens of a run of unknown characters the span of the run.
        Here each of them has the span of its character, unless the run was normalized.

        See `OffsetCorrection.corrected` for the rest.
        """
        spans = encoding.offsets
        if self._unknown.may_leave_out(text):
            # The library counts a left out character as if it were not there.
            spans = self._unknown.offsets_of_the_rest(text, encoding.tokens) or spans
        if isinstance(self.backend.model, tokenizers.models.Unigram):
            self._split_byte_runs(text, encoding.ids, spans)
        return self._offset_correction.corrected(text, encoding.tokens, spans)

    @cached_property
    def _offset_correction(self) -> OffsetCorrection:
        return OffsetCorrection(self.backend)

    def _split_byte_runs(self, text: str, ids: Sequence[int], spans: list[tuple[int, int]]) -> None:
        for (start, end), same in groupby(range(len(spans)), key=spans.__getitem__):
            run = list(same)
            data = [self.token_bytes(ids[i]) for i in run] if end - start > 1 else []
            if data and data == [bytes([byte]) for byte in text[start:end].encode()]:
                starts = [start + i for i, c in enumerate(text[start:end]) for _ in c.encode()]
                spans[run[0] : run[-1] + 1] = [(start, start + 1) for start in starts]

    def encode_windows(
        self, texts: Sequence[str], length: int | None, overlap: float
    ) -> list[list[tokenizers.Encoding]]:
        """Encode several texts in windows, including the special tokens that the model adds. Raises
        as `encode`.

        Args:
            length: the maximum number of tokens in a window; None for one window per text.
            overlap: the share of a window's tokens that the previous window has as well.

        Returns: the windows of each text; the first one is what truncation keeps.
        """
        if length is not None:
            capacity = length - self.backend.num_special_tokens_to_add(False)
            stride = int(capacity * overlap)
            self.backend.enable_truncation(length, stride=stride, direction=self.truncation_side)
        try:
            with self._encoding_errors(texts):
                encodings = self.backend.encode_batch_fast(texts)
        finally:
            self.backend.no_truncation()
        return [[e, *e.overflowing] for e in encodings]

    @property
    def truncation_side(self) -> Literal["left", "right"]:
        """The side at which a text over the model's limit loses tokens."""
        return "left" if self.config.get("truncation_side") == "left" else "right"

    def is_mostly_unknown(self, encoding: tokenizers.Encoding) -> bool:
        """Return whether more than half of the tokens of a text are not in the vocabulary: the
        unknown token, or characters as single bytes, each of which counts once. Special tokens
        around the text don't count, nor does a second text."""
        tokens = zip(encoding.ids, encoding.sequence_ids, strict=True)
        known = [self._is_known(token_id) for token_id, sequence in tokens if sequence == 0]
        return known.count(False) > known.count(True)

    def _is_known(self, token_id: int) -> bool | None:
        """Return whether a token is more than the unknown token or a part of a character; None if
        it continues the character before it."""
        if token_id not in self._known:
            data = self.token_bytes(token_id) or b""
            is_byte = self.kind(token_id) == "byte"
            continues = is_byte and 0x80 <= data[0] < 0xC0
            is_known = not is_byte and token_id != self._unknown_token_id
            self._known[token_id] = None if continues else is_known
        return self._known[token_id]

    @cached_property
    def _known(self) -> dict[int, bool | None]:
        """What `_is_known` has returned."""
        return {}

    @cached_property
    def _unknown_token_id(self) -> int | None:
        token = getattr(self.backend.model, "unk_token", None) or self.special_tokens.get(
            "unk_token"
        )
        return None if token is None else self.backend.token_to_id(token)

    def encode_pairs(
        self, pairs: Sequence[tuple[str, str]], length: int | None
    ) -> list[tokenizers.Encoding]:
        """Encode pairs of texts as one sequence each. If that has more than `length` tokens, the
        first text is truncated, and the encoding's `overflowing` has the rest.

        Raises:
            HftoolError: the second text is too long by itself; or as `encode`.
        """
        if length is not None:
            side = self.truncation_side
            self.backend.enable_truncation(length, strategy="only_first", direction=side)
        try:
            with self._encoding_errors(chain.from_iterable(pairs)):
                return self.backend.encode_batch_fast(pairs)
        finally:
            self.backend.no_truncation()

    def count_batch(self, texts: Sequence[str], special: bool) -> list[int]:
        """Return the number of tokens of each of several texts, on all cores. Logs and raises as
        `encode`."""
        with self._encoding_errors(texts):
            encodings = self.backend.encode_batch_fast(texts, add_special_tokens=special)
        self._report_left_out(texts)
        return [len(encoding) for encoding in encodings]

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
            if skip_special and token_id in self._skipped:
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
    def _skipped(self) -> frozenset[int]:
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
        if skip_special and token_id in self._skipped:
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
    def _step_types(self) -> frozenset[str]:
        return frozenset(step["type"] for step in self._steps)


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

"""A model's tokenizer, read directly from its files, without torch and transformers.

It has what transformers' `TokenizersBackend` has: tokenizer.json, and the added tokens of
tokenizer_config.json. The keys `add_bos_token` and `add_eos_token` there have no effect, since the
post-processor in tokenizer.json decides which special tokens are added around a text.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from itertools import chain, groupby
from pathlib import Path
from typing import Literal

import tokenizers

from hftool.errors import HftoolError
from hftool.json_files import read_json
from hftool.tokenization.added_tokens import AddedTokens
from hftool.tokenization.chat_templates import DEFAULT, read_chat_templates
from hftool.tokenization.detokenizer import Detokenizer
from hftool.tokenization.offsets import OffsetCorrection
from hftool.tokenization.python_tokenizer import PYTHON_TOKENIZER, use_python_tokenizer
from hftool.tokenization.sentencepiece_model import SENTENCEPIECE, use_sentencepiece
from hftool.tokenization.tokenizer_file import read_backend
from hftool.tokenization.unknown import NoTokenError, UnknownParts

log = logging.getLogger("hftool")
MOST_OF_A_LANGUAGE = 60_000  # tokens: BERT has 30,522 for English, 119,547 for 104 languages


def words_of(tokens: Iterable[str], continuing: str) -> Iterator[list[str]]:
    """Yield the tokens of each word; those after its first one begin with `continuing`."""
    word: list[str] = []
    for token in tokens:
        if word and not token.startswith(continuing):
            yield word
            word = []
        word.append(token)
    if word:
        yield word


class Tokenizer(Detokenizer):
    """Converts text to token ids and back, and knows the text and the bytes of each token.

    Args:
        folder: has tokenizer.json, and perhaps tokenizer_config.json and chat_template.jinja.
        name: the model's name, for errors and records.

    Raises:
        HftoolError: a file is missing or broken.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._reported: set[str] = set()  # texts of which a part was left out
        self.folder = folder
        config = read_json(folder / "tokenizer_config.json")
        super().__init__(name, read_backend(folder / "tokenizer.json"), config)
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
    def literal_special(self, literal: bool = True) -> Iterator[None]:
        """Encode special tokens in texts as ordinary text, inside the block."""
        self.backend.encode_special_tokens = literal
        try:
            yield
        finally:
            self.backend.encode_special_tokens = False

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

    def known_words(self, encoding: tokenizers.Encoding) -> tuple[int, int]:
        """Return how many words of a text are in the vocabulary, and how many words it has.

        (0, 0) unless the tokenizer is WordPiece, which takes other words apart, with the vocabulary
        of one language: that of a multilingual model is larger, and has few whole words of each.
        """
        model = self.backend.model
        if not isinstance(model, tokenizers.models.WordPiece) or self.size > MOST_OF_A_LANGUAGE:
            return 0, 0
        # Encodings of `encode_batch_fast` have ids only.
        pairs = zip(encoding.ids, encoding.sequence_ids, strict=True)
        tokens = [self._stored(token_id) for token_id, sequence in pairs if sequence == 0]
        words = words_of(tokens, model.continuing_subword_prefix)
        letters = [word for word in words if word[0].isalpha() or word[0] == model.unk_token]
        return sum(len(word) == 1 and word[0] != model.unk_token for word in letters), len(letters)

    @cached_property
    def _stored(self) -> Callable[[int], str]:
        """Returns a token as the vocabulary has it, faster than the library."""
        return cache(lambda token_id: self.backend.id_to_token(token_id) or "")

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

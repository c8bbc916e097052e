"""Make token ids of texts to score, after what they are given."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hftool.errors import HftoolError, UsageError, exclude
from hftool.generation.mask_filling import mask_id
from hftool.inputs.columns import MISSING, value_in
from hftool.inputs.tables import TextRow
from hftool.models.language_model import LanguageModel
from hftool.options.inputs import FileOptions, PromptOptions
from hftool.options.score import ScoreOptions
from hftool.prompting.messages import Chat
from hftool.prompting.prompt import chat_of_text, prompt_ids, read_chat
from hftool.tokenization.given_ids import note_unusual_ids, parse_ids, require_in_vocabulary


@dataclass(frozen=True)
class ScoredSequence:
    """The token ids of a text, after those of what precedes it.

    Attributes:
        start: the index of the first token to score, at least 1.
        spans: the part of the text of each scored token, in characters.
        source: what an encoder reads; empty for a model without one.
        suffix: for a masked model, the special tokens after the text.
        words: for a masked model, the word of each scored token, as its tokenizer splits texts.
        text: the text of the scored tokens, if ids were given instead of one.
    """

    ids: tuple[int, ...]
    start: int
    spans: tuple[tuple[int, int], ...] = ()
    source: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    words: tuple[int | None, ...] = ()
    text: str | None = None

    @property
    def given(self) -> tuple[int, ...]:
        """The tokens before the one whose logits score the first token."""
        return self.ids[: self.start - 1]

    def windows(self, limit: int | None, stride: int | None) -> Iterator["ScoredSequence"]:
        """Yield parts of at most `limit` tokens, each `stride` tokens after the one before, so that
        each token is scored once, in the first part that has it.

        Raises:
            HftoolError: without a stride, the sequence is longer than a model of this limit reads.
            UsageError: parts would have no token in common with the one before; or there is a
                stride, and the model is a masked one.
        """
        if self.words:
            read = len(self.ids) + len(self.suffix)
            exclude({"--stride": stride is not None, "a masked model": True})
            if limit is not None and read > limit:
                raise HftoolError(
                    f"the text has {read} tokens; the model reads {limit}",
                    "a masked model sees the whole of a text: shorten it",
                )
            yield self
            return
        if limit is None or len(self.ids) <= limit + (stride is None):  # the last one isn't read
            yield self
            return
        if stride is None:
            raise HftoolError(
                f"the text has {len(self.ids)} tokens; the context holds {limit}",
                "--stride N scores it in windows that advance by N tokens",
            )
        if stride >= limit:
            raise UsageError(f"--stride must be less than the context, which holds {limit} tokens")
        begin, scored = 0, self.start
        while scored < len(self.ids):
            end = min(begin + limit, len(self.ids))
            if end > scored:
                yield ScoredSequence(self.ids[begin:end], scored - begin, source=self.source)
                scored = end
            begin += stride


@dataclass(frozen=True)
class TextEncoder:
    """Makes sequences of texts.

    A given text and the text after it are encoded as one text, as the model was trained to see
    them; a token that belongs to both is scored. After a chat, the text is the answer. For an
    encoder-decoder, what is given is the source. For a masked model, the tokens are masked one by
    one, and nothing of what is given is.

    Attributes:
        given: what each text follows; a `column` names it for each row.
    """

    language_model: LanguageModel
    prompting: PromptOptions
    given: str | Chat | None = None
    column: str | None = None

    def __call__(self, row: TextRow) -> ScoredSequence:
        """Return the sequence of a row's text.

        Raises:
            HftoolError: the text cannot be encoded, or nothing usable is given for it.
        """
        given = self.given if self.column is None else text_in(row, self.column)
        if self.prompting.ids:
            return self._of_ids(given, row.text)
        if isinstance(given, str) and self.prompting.templated:
            given = chat_of_text(given, self.prompting)
        tokenizer = self.language_model.tokenizer
        if self.language_model.is_encoder_decoder:
            return self._after_source(given, row.text)
        if self.language_model.is_masked:
            return self._to_mask(given, row.text)
        if isinstance(given, Chat):
            before = prompt_ids(tokenizer, given, self.prompting)
            with tokenizer.literal_special(self.prompting.no_parse_special):
                answer = tokenizer.encode(row.text, special=False)
            spans = tokenizer.spans(row.text, answer)
            return self._known([*before, *answer.ids], len(before), spans)
        whole = (given or "") + row.text
        with tokenizer.literal_special(self.prompting.no_parse_special):
            encoding = tokenizer.encode(whole, self.prompting.special)
        shift = len(given or "")
        spans = [(a - shift, b - shift) for a, b in tokenizer.spans(whole, encoding)]
        start = next((i for i, (_, end) in enumerate(spans) if end > 0), len(spans)) if shift else 1
        return self._known(encoding.ids, max(1, start), spans)

    def _of_ids(self, given: str | Chat | None, text: str) -> ScoredSequence:
        """Return the sequence of token ids, after those that are given."""
        before = parse_ids(given) if isinstance(given, str) else ()
        ids = (*before, *parse_ids(text))
        require_in_vocabulary(self.language_model.tokenizer, ids)
        note_unusual_ids(self.language_model.tokenizer, ids)
        decoded = self.language_model.tokenizer.decode(ids[len(before) :])
        return replace(self._known(ids, max(1, len(before)), ()), text=decoded)

    def _after_source(self, given: str | Chat | None, text: str) -> ScoredSequence:
        """Return the sequence of a text that an encoder-decoder makes of a source."""
        if given is None:
            raise UsageError(
                f"{self.language_model.name} is an encoder-decoder: a text needs its source",
                "name it with --given TEXT or --given-column NAME",
            )
        tokenizer = self.language_model.tokenizer
        read = prompt_ids(tokenizer, given, self.prompting)
        before, source = self.language_model.split_prompt(read)
        with tokenizer.literal_special(self.prompting.no_parse_special):
            target = tokenizer.encode(text, self.prompting.special)
        spans = tokenizer.spans(text, target)
        sequence = self._known([*before, *target.ids], len(before), spans)
        return replace(sequence, source=source)

    def _to_mask(self, given: str | Chat | None, text: str) -> ScoredSequence:
        """Return the sequence of a text for a masked model, which also sees what follows a
        token."""
        tokenizer = self.language_model.tokenizer
        if isinstance(given, Chat):
            raise UsageError(f"{self.language_model.name} is a masked model, and has no chats")
        whole, shift = (given or "") + text, len(given or "")
        encoding = tokenizer.encode(whole, self.prompting.special)
        spans = [(a - shift, b - shift) for a, b in tokenizer.spans(whole, encoding)]
        own = [i for i, added in enumerate(encoding.special_tokens_mask) if not added]
        scored = [i for i in own if spans[i][1] > 0]
        if mask_id(tokenizer) in (encoding.ids[i] for i in scored):
            raise HftoolError("the text has a mask token", "`hftool topk` fills in masks")
        end = own[-1] + 1 if own else 0
        start = scored[0] if scored else end
        self.language_model.require_known(encoding.ids)
        return ScoredSequence(
            *(tuple(encoding.ids[:end]), start, tuple(spans[start:end])),
            suffix=tuple(encoding.ids[end:]),
            words=tuple(encoding.word_ids[start:end]),
        )

    def _known(
        self, ids: Sequence[int], start: int, spans: Sequence[tuple[int, int]]
    ) -> ScoredSequence:
        self.language_model.require_known(ids)
        scored = len(ids) - start
        return ScoredSequence(tuple(ids), start, tuple(spans[len(spans) - max(0, scored) :]))


def text_encoder(
    language_model: LanguageModel,
    inputs: FileOptions,
    prompting: PromptOptions,
    options: ScoreOptions,
) -> TextEncoder:
    """Return what makes sequences of texts by a command's options.

    Raises:
        UsageError: the options exclude each other.
        HftoolError: a chat cannot be read.
    """
    if prompting.ids and (language_model.is_encoder_decoder or language_model.is_masked):
        raise UsageError(f"--ids cannot be used with {language_model.name}, which needs texts")
    exclude({"--ids": prompting.ids, "--by word": options.by == "word"})
    given: str | Chat | None = options.given
    nothing = options.given is None and options.given_column is None
    if prompting.messages is not None:
        exclude({"--messages": True, "--given": not nothing})
        given = read_chat(prompting.messages, inputs, prompting)
    elif prompting.templated and nothing:
        raise UsageError(
            "a chat needs a message: what the text answers",
            "name it with --given TEXT, --given-column NAME or --messages FILE",
        )
    return TextEncoder(language_model, prompting, given, options.given_column)


def text_in(row: TextRow, column: str) -> str:
    """Return the text in a column of a row.

    Raises:
        HftoolError: there is none.
    """
    value = value_in(row.columns, column)
    if not isinstance(value, str):
        cause = "is missing" if value in (None, MISSING) else "is not text"
        raise HftoolError(f"--given-column: '{column}' {cause}")
    return value

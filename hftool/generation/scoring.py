"""How probable texts are to a language model: whole texts, their words, and their tokens.

The tokens of several texts are computed together, padded on the right: a causal model does not see
the padding that comes after a text.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from hftool.errors import HftoolError, UsageError, exclude
from hftool.generation.batch import PADDING_ERROR, PADDING_ERROR_HALF
from hftool.generation.next_token import (
    Perplexity,
    ScoredToken,
    entropy_bits,
    rank_of,
    unscored_token,
)
from hftool.generation.prefix_cache import CachedModel
from hftool.generation.records import OPTIONAL
from hftool.generation.sampling import check_finite
from hftool.inputs.readahead import read_ahead
from hftool.inputs.row_errors import each_or_error, stopping_error
from hftool.inputs.tables import TextRow
from hftool.models.load import LanguageModel
from hftool.nn.llama import Llama
from hftool.options.inputs import FileOptions, PromptOptions
from hftool.options.output import OnError
from hftool.options.score import ScoreOptions
from hftool.prompting.messages import Chat
from hftool.prompting.prompt import chat_of_text, prompt_ids, read_chat
from hftool.tokenization.tokenizer import Tokenizer

WINDOW = 256  # texts that are sorted by length together
BATCH_TOKENS = 1024  # padded tokens of a batch, at most
BATCH_LOGITS = 2**26  # of a batch, at most: padded tokens times vocabulary
CAUSAL_SAMPLE = 16  # tokens
MAX_EXPONENT = 700.0  # e to this power is still a number
LN2 = math.log(2)


@dataclass(frozen=True, slots=True)
class TextScore:
    """How probable a text is.

    `logprob` is the natural logarithm of the probability of all its `tokens` together, `surprisal`
    the same in bits (-log2). `perplexity` is e to the power of the mean negative logprob per token.
    `bits_per_byte` is the surprisal divided by the length of the text in UTF-8, and so comparable
    between models with different tokenizers. The first token of a text is not scored unless
    something precedes it: a special token of the tokenizer, or what is given. `columns` are those
    that the text came with.
    """

    index: int
    text: str
    tokens: int
    logprob: float | None
    surprisal: float | None
    perplexity: float | None
    bits_per_byte: float | None
    columns: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = field(default=None, metadata=OPTIONAL)

    @property
    def kind(self) -> Literal["text"]:
        """Distinguishes texts from tokens."""
        return "text"


@dataclass(frozen=True, slots=True)
class WordScore:
    """How probable a word of a text is: what lies between white space.

    `logprob` and `surprisal` (bits) are those of all its tokens, corrected for where tokenizers
    mark words: at their beginning, so that only the token after a word tells that it has ended
    (Pimentel and Meister 2024, https://arxiv.org/abs/2406.14561). `index` is given when there are
    several texts.
    """

    word: str
    tokens: int
    logprob: float
    surprisal: float
    index: int | None = field(default=None, metadata=OPTIONAL)

    @property
    def kind(self) -> Literal["word"]:
        """Distinguishes words from texts and tokens."""
        return "word"


@dataclass(frozen=True)
class ScoredSequence:
    """The token ids of a text, after those of what precedes it.

    Attributes:
        start: the index of the first token to score, at least 1.
        spans: the part of the text of each scored token, in characters.
    """

    ids: tuple[int, ...]
    start: int
    spans: tuple[tuple[int, int], ...] = ()

    def windows(self, limit: int | None, stride: int | None) -> Iterator["ScoredSequence"]:
        """Yield parts of at most `limit` tokens, each `stride` tokens after the one before, so that
        each token is scored once, in the first part that has it.

        Raises:
            HftoolError: without a stride, the sequence is longer than a model of this limit reads.
            UsageError: parts would have no token in common with the one before.
        """
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
                yield ScoredSequence(self.ids[begin:end], scored - begin)
                scored = end
            begin += stride


@dataclass(frozen=True)
class TextEncoder:
    """Makes sequences of texts.

    A given text and the text after it are encoded as one text, as the model was trained to see
    them; a token that belongs to both is scored. After a chat, the text is the answer.

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
        given = self.given if self.column is None else _text_in(row, self.column)
        if isinstance(given, str) and self.prompting.templated:
            given = chat_of_text(given, self.prompting)
        tokenizer = self.language_model.tokenizer
        if isinstance(given, Chat):
            before = prompt_ids(tokenizer, given, self.prompting)
            answer = tokenizer.encode(row.text, special=False)
            spans = tokenizer.spans(row.text, answer)
            return self._known([*before, *answer.ids], len(before), spans)
        whole = (given or "") + row.text
        encoding = tokenizer.encode(whole, self.prompting.special)
        shift = len(given or "")
        spans = [(a - shift, b - shift) for a, b in tokenizer.spans(whole, encoding)]
        start = next((i for i, (_, end) in enumerate(spans) if end > 0), len(spans)) if shift else 1
        return self._known(encoding.ids, max(1, start), spans)

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


def _text_in(row: TextRow, column: str) -> str:
    value = row.columns.get(column)
    if not isinstance(value, str):
        cause = "is missing" if value is None else "is not text"
        raise HftoolError(f"--given-column: '{column}' {cause}")
    return value


def require_column(names: Sequence[str], options: ScoreOptions) -> None:
    """Raise where `--given-column` names no column of the table.

    Raises:
        UsageError: with the columns.
    """
    if options.given_column is not None and names and options.given_column not in names:
        columns = ", ".join(f"'{name}'" for name in names)
        raise UsageError(f"no column '{options.given_column}'; the columns are {columns}")


# Given the logits after some tokens of a sequence [tokens, vocabulary] and the ids that follow them
# (one fewer if the last of the logits are those after the end), return something for each.
Measure = Callable[[torch.Tensor, Sequence[int]], list[Any]]


def logprobs(logits: torch.Tensor, following: Sequence[int]) -> list[float]:
    """Return the natural log-probability of each following id."""
    logits = logits[: len(following)]
    chosen = logits.gather(1, torch.tensor(following, device=logits.device)[:, None])[:, 0]
    result: list[float] = (chosen.double() - logits.logsumexp(1).double()).tolist()
    return result


def ranked_tokens(logits: torch.Tensor, following: Sequence[int]) -> list[Any]:
    """Return the id, log-probability, rank, and entropy (in bits) before it of each following
    id."""
    rows = torch.log_softmax(logits[: len(following)].cpu().double(), dim=-1)
    return [
        (i, float(row[i]), rank_of(row, i), entropy_bits(row))
        for row, i in zip(rows, following, strict=True)
    ]


@dataclass(frozen=True)
class WordMeasure:
    """Measures tokens for the scores of words.

    Attributes:
        word_beginnings: the ids of the tokens that begin a word.
    """

    word_beginnings: torch.Tensor

    def __call__(self, logits: torch.Tensor, following: Sequence[int]) -> list[Any]:
        """Return for each of the logits the log-probability of the id that follows (0 where none
        does), and of any token that begins a word."""
        beginnings = logits[:, self.word_beginnings.to(logits.device)].logsumexp(1)
        ends = (beginnings.double() - logits.logsumexp(1).double()).tolist()
        chosen = [*logprobs(logits, following), 0.0]
        return list(zip(chosen, ends, strict=False))


def score_texts(
    language_model: LanguageModel,
    rows: Iterable[TextRow],
    encode: Callable[[TextRow], ScoredSequence],
    options: ScoreOptions,
    on_error: OnError = "stop",
    first_index: int = 0,
) -> Iterator[TextScore]:
    """Yield the score of each row's text, in order, as soon as it is known.

    Args:
        first_index: the index of the first row's text.

    Raises:
        HftoolError: a text fails, and `on_error` is "stop". What precedes it was yielded.
    """
    results = _measured_rows(language_model, rows, encode, options, on_error, logprobs)
    for index, (row, _, values) in enumerate(results, first_index):
        if isinstance(values, HftoolError):
            error = row.located(values).message
            yield TextScore(index, row.text, 0, None, None, None, None, row.columns, error)
        else:
            yield _text_score(index, row, values)


def _text_score(index: int, row: TextRow, values: Sequence[float]) -> TextScore:
    if not values:
        return TextScore(index, row.text, 0, None, None, None, None, row.columns)
    total, size = math.fsum(values), len(row.text.encode("utf-8", "surrogatepass"))
    bits = max(0.0, -total / LN2)
    mean = -total / len(values)
    perplexity = math.exp(mean) if mean < MAX_EXPONENT else math.inf
    return TextScore(
        *(index, row.text, len(values), total, bits, perplexity),
        bits_per_byte=bits / size if size else None,
        columns=row.columns,
    )


def score_words(
    language_model: LanguageModel,
    rows: Iterable[TextRow],
    encode: Callable[[TextRow], ScoredSequence],
    options: ScoreOptions,
    *,
    numbered: bool,
) -> Iterator[WordScore]:
    """Yield the score of each word of each text.

    Args:
        numbered: whether records have the index of their text.

    Raises:
        HftoolError: a text fails, or the tokenizer does not mark where words begin. What precedes
            it was yielded.
    """
    measure = WordMeasure(_word_beginnings(language_model.tokenizer))
    results = _measured_rows(language_model, rows, encode, options, "stop", measure)
    for index, (row, sequence, values) in enumerate(results):
        assert sequence is not None and isinstance(values, list)  # the first error stops
        yield from _words(row.text, sequence, values, index if numbered else None)


def _words(
    text: str, sequence: ScoredSequence, values: Sequence[Any], index: int | None
) -> Iterator[WordScore]:
    """Yield the scores of a text's words, each of which has the tokens up to the next one's.

    Args:
        values: as `WordMeasure` returns them for the logits before each scored token, and for those
            after the last one.
    """
    words = list(re.finditer(r"\S+", text))
    skipped = len(sequence.spans) - (len(values) - 1)  # the first token of a text has no score
    groups: dict[int, list[int]] = {}
    for i, (_, end) in enumerate(sequence.spans):
        word = next((n for n, found in enumerate(words) if end <= found.end()), len(words) - 1)
        groups.setdefault(word, []).append(i - skipped)
    for n, (word, tokens) in enumerate(groups.items()):
        scored = [i for i in tokens if i >= 0]
        if not scored:
            continue
        total = math.fsum(values[i][0] for i in scored) + values[scored[-1] + 1][1]
        if n:  # before the first word, nothing has ended
            total -= values[scored[0]][1]
        yield WordScore(words[word].group(), len(scored), total, -total / LN2, index)


def _word_beginnings(tokenizer: Tokenizer) -> torch.Tensor:
    """Return the ids of the tokens that begin with a space.

    Raises:
        HftoolError: there are none.
    """
    ids = [i for i in range(tokenizer.size) if (tokenizer.token_bytes(i) or b"").startswith(b" ")]
    if not ids:
        raise HftoolError(
            f"the tokenizer of {tokenizer.name} does not mark where words begin",
            "use --by token",
        )
    return torch.tensor(ids)


def score_each_token(
    language_model: LanguageModel,
    rows: Iterable[TextRow],
    encode: Callable[[TextRow], ScoredSequence],
    options: ScoreOptions,
    *,
    numbered: bool,
) -> Iterator[ScoredToken | Perplexity]:
    """Yield each token of each text, and after them the text's perplexity. Raises: as
    `score_words`."""
    tokenizer = language_model.tokenizer
    results = _measured_rows(language_model, rows, encode, options, "stop", ranked_tokens)
    for index, (_, sequence, values) in enumerate(results):
        assert sequence is not None and isinstance(values, list)  # the first error stops
        number = index if numbered else None
        first = len(sequence.ids) - len(values)
        if first == 1:
            yield unscored_token(tokenizer, sequence.ids[0], number)
        total = 0.0
        for position, (token_id, logprob, rank, entropy) in enumerate(values, first):
            total -= logprob / LN2
            yield ScoredToken(
                *(position, token_id, tokenizer.token_text(token_id)),
                *(tokenizer.token_hex(token_id), math.exp(logprob), rank),
                *(-logprob / LN2, entropy),
                index=number,
            )
        mean = total / len(values) if values else None
        perplexity = None if mean is None else 2.0**mean
        yield Perplexity(len(values), mean, perplexity, index=number)


SCORERS = {"word": score_words, "token": score_each_token}
"""What scores the parts of texts, by their unit."""


def _measured_rows(
    language_model: LanguageModel,
    rows: Iterable[TextRow],
    encode: Callable[[TextRow], ScoredSequence],
    options: ScoreOptions,
    on_error: OnError,
    measure: Measure,
) -> Iterator[tuple[TextRow, ScoredSequence | None, list[Any] | HftoolError]]:
    """Yield each row with its sequence and the measures of its tokens, or with its error.

    Raises:
        HftoolError: as `score_texts`.
    """

    limit = language_model.context_length

    def encoded(some: Sequence[TextRow]) -> list[tuple[ScoredSequence, list[ScoredSequence]]]:
        sequences = [encode(row) for row in some]
        return [(each, list(each.windows(limit, options.stride))) for each in sequences]

    def measured(parts: Sequence[ScoredSequence]) -> list[list[Any]]:
        return measure_sequences(language_model, parts, measure, options.batch_size)

    first = True

    for chunk in read_ahead(rows, WINDOW, lambda row: len(row.text)):
        sequences = list(each_or_error(encoded, chunk))
        windows = [w for each in sequences if not isinstance(each, HftoolError) for w in each[1]]
        values = each_or_error(measured, windows)
        for row, of_row in zip(chunk, sequences, strict=True):
            sequence: ScoredSequence | None = None
            result: list[Any] | HftoolError
            if isinstance(of_row, HftoolError):
                result = row.error or of_row
            else:
                sequence = of_row[0]
                result = row.error or _joined([next(values) for _ in of_row[1]])
            if isinstance(result, HftoolError) and on_error == "stop":
                raise stopping_error(row, result, first=first)
            yield row, sequence, result
            first = False


def _joined(parts: Sequence[list[Any] | HftoolError]) -> list[Any] | HftoolError:
    """Return the measures of all parts of a text, or the first part's error."""
    joined: list[Any] = []
    for part in parts:
        if isinstance(part, HftoolError):
            return part
        joined += part
    return joined


def measure_sequences(
    language_model: LanguageModel,
    sequences: Sequence[ScoredSequence],
    measure: Measure,
    batch_size: int | None = None,
) -> list[list[Any]]:
    """Return the measures of each sequence's scored tokens, in the order of the sequences.

    Args:
        batch_size: sequences per batch; None bounds the padded tokens of a batch instead.

    Raises:
        HftoolError: the model fails, or its logits are not numbers.
    """
    results: list[list[Any]] = [[] for _ in sequences]
    vocabulary = language_model.model.config.get_text_config().vocab_size
    most = min(BATCH_TOKENS, max(1, BATCH_LOGITS // vocabulary))
    scored = [i for i, sequence in enumerate(sequences) if len(sequence.ids) > sequence.start]
    if scored:
        _require_causal(language_model, sequences[scored[0]].ids)
    for batch in _batches({i: len(sequences[i].ids) - 1 for i in scored}, batch_size, most):
        together = [sequences[i] for i in batch]
        if _can_pad(language_model, together):
            values = _measure_batch(language_model, together, measure)
        else:
            values = [_measure_single(language_model, each, measure) for each in together]
        for i, of_sequence in zip(batch, values, strict=True):
            results[i] = of_sequence
    return results


def _can_pad(language_model: LanguageModel, sequences: Sequence[ScoredSequence]) -> bool:
    """Return whether sequences can be computed together, without an effect of the padding."""
    longest = max(len(sequence.ids) for sequence in sequences)
    dependence = language_model.length_dependence
    return len(sequences) > 1 and (dependence is None or not dependence.differ(0, longest))


def _require_causal(language_model: LanguageModel, ids: Sequence[int]) -> None:
    """Raise where the logits after a token depend on the tokens that follow it, as in models made
    to fill masks, some of which have configs that call them causal.

    Raises:
        HftoolError: they do.
    """
    if language_model.is_causal is None:
        language_model.is_causal = _is_causal(language_model, ids)
    if not language_model.is_causal:
        raise HftoolError(
            f"{language_model.name} is not a causal language model: what it expects after a token"
            " depends on the tokens that follow"
        )


@torch.inference_mode()
def _is_causal(language_model: LanguageModel, ids: Sequence[int]) -> bool:
    if isinstance(language_model.model, Llama):
        return True
    dependence = language_model.length_dependence
    shorter = list(ids[:CAUSAL_SAMPLE])
    if dependence is not None:  # so that all angles are those of short texts
        shorter = shorter[: max(1, dependence.switch // 2)]
    some = [*shorter, *shorter]
    device = language_model.model.device
    whole = language_model.forward(torch.tensor([some], device=device))[0, : len(shorter)]
    alone = language_model.forward(torch.tensor([shorter], device=device))[0]
    error = float((whole - alone).norm() / (alone - alone.mean()).norm())
    exact = language_model.model.dtype.itemsize == 4
    return error < (PADDING_ERROR if exact else PADDING_ERROR_HALF)


def _batches(lengths: Mapping[int, int], size: int | None, most: int) -> Iterator[list[int]]:
    """Yield batches of the keys of `lengths`, sorted by length: `size` each, or up to `most` padded
    tokens."""
    batch: list[int] = []
    for key in sorted(lengths, key=lambda key: lengths[key]):
        full = len(batch) == size if size else (len(batch) + 1) * lengths[key] > most
        if batch and full:
            yield batch
            batch = []
        batch.append(key)
    if batch:
        yield batch


def _measure_single(
    language_model: LanguageModel, sequence: ScoredSequence, measure: Measure
) -> list[Any]:
    """Return the measures of one sequence, whose logits are computed in slices."""
    values: list[Any] = []
    position = 1  # of the token that follows the first of the logits
    ids = sequence.ids if isinstance(measure, WordMeasure) else sequence.ids[:-1]
    for logits in CachedModel(language_model).all_logits(ids):
        skipped = min(len(logits), max(0, sequence.start - position))
        following = sequence.ids[position + skipped : position + len(logits)]
        values += measure(logits[skipped:], following)
        position += len(logits)
    return values


@torch.inference_mode()
def _measure_batch(
    language_model: LanguageModel, sequences: Sequence[ScoredSequence], measure: Measure
) -> list[list[Any]]:
    """Return the measures of several sequences, computed together."""
    model = language_model.model
    unread = 0 if isinstance(measure, WordMeasure) else 1  # what follows the last token is unknown
    width = max(len(sequence.ids) for sequence in sequences) - unread
    padded = [[*s.ids, *[0] * width][:width] for s in sequences]
    logits = language_model.forward(torch.tensor(padded, device=model.device))
    values = []
    for row, sequence in zip(logits, sequences, strict=True):
        scored = row[sequence.start - 1 : len(sequence.ids) - unread]
        check_finite(scored, model.dtype)
        values.append(measure(scored, sequence.ids[sequence.start :]))
    return values

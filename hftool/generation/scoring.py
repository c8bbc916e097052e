"""How probable texts are to a language model: whole texts, their words, and their tokens.

The tokens of several texts are computed together, padded on the right: a causal model does not see
the padding that comes after a text.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from hftool.errors import HftoolError, UsageError
from hftool.generation.prefix_cache import CachedModel
from hftool.generation.records import OPTIONAL
from hftool.generation.sampling import check_finite
from hftool.inputs.readahead import read_ahead
from hftool.inputs.row_errors import each_or_error, stopping_error
from hftool.inputs.tables import TextRow
from hftool.models.load import LanguageModel
from hftool.options.inputs import PromptOptions
from hftool.options.output import OnError
from hftool.options.score import ScoreOptions
from hftool.prompting.messages import Chat
from hftool.prompting.prompt import chat_of_text, prompt_ids

WINDOW = 256  # texts that are sorted by length together
BATCH_TOKENS = 1024  # padded tokens of a batch, at most
BATCH_LOGITS = 2**26  # of a batch, at most: padded tokens times vocabulary
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


@dataclass(frozen=True)
class ScoredSequence:
    """The token ids of a text, after those of what precedes it.

    Attributes:
        start: the index of the first token to score, at least 1.
    """

    ids: tuple[int, ...]
    start: int

    def windows(self, limit: int | None, stride: int | None) -> Iterator["ScoredSequence"]:
        """Yield parts of at most `limit` tokens, each `stride` tokens after the one before, so that
        each token is scored once, in the first part that has it.

        Raises:
            HftoolError: without a stride, the sequence is longer than a model of this limit reads.
        """
        if limit is None or len(self.ids) <= limit + (stride is None):  # the last one isn't read
            yield self
            return
        if stride is None:
            raise HftoolError(
                f"the text has {len(self.ids)} tokens; the context holds {limit}",
                "--stride N scores it in windows that advance by N tokens",
            )
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
            answer = tokenizer.encode(row.text, special=False).ids
            return self._known([*before, *answer], len(before))
        whole = (given or "") + row.text
        encoding = tokenizer.encode(whole, self.prompting.special)
        start = 1
        if given:
            ends = [end for _, end in tokenizer.spans(whole, encoding)]
            start = next((i for i, end in enumerate(ends) if end > len(given)), len(ends))
        return self._known(encoding.ids, max(1, start))

    def _known(self, ids: Sequence[int], start: int) -> ScoredSequence:
        self.language_model.require_known(ids)
        return ScoredSequence(tuple(ids), start)


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


# Given the logits after some tokens of a sequence [tokens, vocabulary] and the ids that follow
# them, return something for each.
Measure = Callable[[torch.Tensor, Sequence[int]], list[Any]]


def logprobs(logits: torch.Tensor, following: Sequence[int]) -> list[float]:
    """Return the natural log-probability of each following id."""
    chosen = logits.gather(1, torch.tensor(following, device=logits.device)[:, None])[:, 0]
    result: list[float] = (chosen.double() - logits.logsumexp(1).double()).tolist()
    return result


def score_texts(
    language_model: LanguageModel,
    rows: Iterable[TextRow],
    encode: Callable[[TextRow], ScoredSequence],
    options: ScoreOptions,
    on_error: OnError = "stop",
) -> Iterator[TextScore]:
    """Yield the score of each row's text, in order, as soon as it is known.

    Raises:
        HftoolError: a text fails, and `on_error` is "stop". What precedes it was yielded.
    """
    results = _measured_rows(language_model, rows, encode, options, on_error, logprobs)
    for index, (row, values) in enumerate(results):
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


def _measured_rows(
    language_model: LanguageModel,
    rows: Iterable[TextRow],
    encode: Callable[[TextRow], ScoredSequence],
    options: ScoreOptions,
    on_error: OnError,
    measure: Measure,
) -> Iterator[tuple[TextRow, list[Any] | HftoolError]]:
    """Yield each row with the measures of its tokens, or with its error.

    Raises:
        HftoolError: as `score_texts`.
    """

    limit = language_model.context_length

    def encoded(some: Sequence[TextRow]) -> list[list[ScoredSequence]]:
        return [list(encode(row).windows(limit, options.stride)) for row in some]

    def measured(parts: Sequence[ScoredSequence]) -> list[list[Any]]:
        return measure_sequences(language_model, parts, measure, options.batch_size)

    first = True
    for chunk in read_ahead(rows, WINDOW, lambda row: len(row.text)):
        sequences = list(each_or_error(encoded, chunk))
        parts = [part for parts in sequences if isinstance(parts, list) for part in parts]
        values = each_or_error(measured, parts)
        for row, of_row in zip(chunk, sequences, strict=True):
            result = row.error or of_row
            if isinstance(of_row, list):
                result = _joined([next(values) for _ in of_row])
            if isinstance(result, HftoolError) and on_error == "stop":
                raise stopping_error(row, result, first=first)
            yield row, result
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
    for batch in _batches({i: len(sequences[i].ids) - 1 for i in scored}, batch_size, most):
        if len(batch) == 1:
            results[batch[0]] = _measure_single(language_model, sequences[batch[0]], measure)
        else:
            batched = _measure_batch(language_model, [sequences[i] for i in batch], measure)
            for i, values in zip(batch, batched, strict=True):
                results[i] = values
    return results


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
    for logits in CachedModel(language_model).all_logits(sequence.ids[:-1]):
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
    width = max(len(sequence.ids) for sequence in sequences) - 1
    padded = [[*s.ids[:-1], *[0] * (width + 1 - len(s.ids))] for s in sequences]
    logits = language_model.forward(torch.tensor(padded, device=model.device))
    values = []
    for row, sequence in zip(logits, sequences, strict=True):
        scored = row[sequence.start - 1 : len(sequence.ids) - 1]
        check_finite(scored, model.dtype)
        values.append(measure(scored, sequence.ids[sequence.start :]))
    return values

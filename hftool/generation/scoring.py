"""How probable texts are to a language model: whole texts, their words, and their tokens."""

import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from hftool.errors import HftoolError
from hftool.generation.records import OPTIONAL
from hftool.generation.scored_sequences import ScoredSequence
from hftool.generation.scored_tokens import Perplexity, ScoredToken, unscored_token
from hftool.generation.token_measures import (
    Measure,
    WordMeasure,
    logprobs,
    measure_sequences,
    ranked_tokens,
)
from hftool.inputs.readahead import read_ahead
from hftool.inputs.row_errors import each_or_error, stopping_error
from hftool.inputs.tables import TextRow
from hftool.models.language_model import LanguageModel
from hftool.options.output import OnError
from hftool.options.score import ScoreOptions
from hftool.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hftool")

WINDOW = 256  # texts that are sorted by length together
MAX_EXPONENT = 700.0  # e to this power is still a number
LN2 = math.log(2)


@dataclass(frozen=True, slots=True)
class TextScore:
    """How probable a text is.

    `logprob` is the natural logarithm of the probability of all its `tokens` together, `surprisal`
    the same in bits (-log2). `perplexity` is e to the power of the mean negative logprob per token.
    `bits_per_byte` is the surprisal divided by the length of the text in UTF-8, and so comparable
    between models with different tokenizers. The first token of a text is not scored unless
    something precedes it: a special token of the tokenizer, or what is given. A masked model gives
    a text no probability: its `logprob` is the pseudo-log-likelihood, the sum over all tokens of
    each one's log-probability in its place, where the rest of its word is masked too (Kauf and
    Ivanova 2023, https://arxiv.org/abs/2305.10588). `columns` are those that the text came with.
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
    (Pimentel and Meister 2024, https://arxiv.org/abs/2406.14561). Those of a masked model, which
    sees where words end, are the sums of its tokens. `index` is given when there are several texts.
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
    results = measured_rows([language_model], rows, encode, options, logprobs, on_error)
    texts = unscored = 0
    for index, (row, _, values) in enumerate(results, first_index):
        texts += 1
        if isinstance(values, HftoolError):
            error = row.located(values).message
            yield TextScore(index, row.text, 0, None, None, None, None, row.columns, error)
        else:
            unscored += not values
            yield text_score(index, row, values)
    if unscored:
        which = "the text has" if texts == 1 else f"{unscored:,} of {texts:,} texts have"
        log.warning("%s no score: there must be a token before the first that is scored", which)


def text_score(index: int, row: TextRow, values: Sequence[float]) -> TextScore:
    """Return the score of a row's text, from the log-probabilities of its tokens."""
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
    masked = language_model.is_masked
    measure = _uncorrected if masked else WordMeasure(_word_beginnings(language_model.tokenizer))
    results = measured_rows([language_model], rows, encode, options, measure, ends=not masked)
    for index, (row, sequence, values) in enumerate(results):
        assert sequence is not None and isinstance(values, list)  # the first error stops
        values = [*values, (0.0, 0.0)] if masked else values
        yield from _words(row.text, sequence, values, index if numbered else None)


def _uncorrected(following: Sequence[int], logits: torch.Tensor) -> list[tuple[float, float]]:
    """Return the measures of `WordMeasure`, without what corrects them."""
    return [(logprob, 0.0) for logprob in logprobs(following, logits)]


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
    """Return the ids [tokens] of the tokens that begin with a space.

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
    results = measured_rows([language_model], rows, encode, options, ranked_tokens)
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


def measured_rows(
    language_models: Sequence[LanguageModel],
    rows: Iterable[TextRow],
    encode: Callable[[TextRow], ScoredSequence],
    options: ScoreOptions,
    measure: Measure,
    on_error: OnError = "stop",
    *,
    ends: bool = False,
) -> Iterator[tuple[TextRow, ScoredSequence | None, list[Any] | HftoolError]]:
    """Yield each row with its sequence and the measures of its tokens, or with its error.

    Args:
        ends: as for `measure_sequences`.

    Raises:
        HftoolError: as `score_texts`.
    """
    lengths = [model.context_length for model in language_models]
    limit = min((length for length in lengths if length is not None), default=None)

    def encoded(some: Sequence[TextRow]) -> list[tuple[ScoredSequence, list[ScoredSequence]]]:
        sequences = [encode(row) for row in some]
        return [(each, list(each.windows(limit, options.stride))) for each in sequences]

    def measured(parts: Sequence[ScoredSequence]) -> list[list[Any]]:
        return measure_sequences(language_models, parts, measure, options.batch_size, ends=ends)

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
                row = row if sequence.text is None else _decoded(row, sequence.text)
            if isinstance(result, HftoolError) and on_error == "stop":
                raise stopping_error(row, result, first=first)
            yield row, sequence, result
            first = False


def _decoded(row: TextRow, text: str) -> TextRow:
    """Return a row of token ids with their text, beside the ids if they are a table's column."""
    columns = {"text": text} if dict(row.columns) == {"text": row.text} else row.columns
    return replace(row, text=text, columns=columns)


def _joined(parts: Sequence[list[Any] | HftoolError]) -> list[Any] | HftoolError:
    """Return the measures of all parts of a text, or the first part's error."""
    joined: list[Any] = []
    for part in parts:
        if isinstance(part, HftoolError):
            return part
        joined += part
    return joined

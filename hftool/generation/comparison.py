"""Compare what two models expect of texts: how far their probabilities are from each other's."""

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from hftool.errors import HftoolError
from hftool.generation.scored_sequences import ScoredSequence
from hftool.generation.scoring import measured_rows
from hftool.generation.token_measures import TokenComparison, compared
from hftool.inputs.tables import TextRow
from hftool.models.language_model import LanguageModel
from hftool.models.load import load_language_model
from hftool.options.model import ExactLoadOptions
from hftool.options.output import OnError
from hftool.options.score import ScoreOptions

QUANTILE = 0.99


@dataclass(frozen=True)
class ModelComparison:
    """How far what a model expects is from what another, the baseline, expects in the same places.

    `divergence` is the mean Kullback-Leibler divergence per token, in nats, of the model's
    distribution from the baseline's, and `divergence_quantile_99` what 99 % of the tokens don't
    exceed. `same_best` is the share of the tokens for which both models have the same most probable
    one. Each `…_error` is a standard error, as if tokens were independent; that of the difference
    of the perplexities takes into account that both models score the same tokens. `precision` is
    that of the weights.
    """

    model: str
    precision: str
    against: str
    against_precision: str
    texts: int
    tokens: int
    divergence: float
    divergence_error: float | None
    divergence_quantile_99: float
    same_best: float
    same_best_error: float | None
    perplexity: float
    perplexity_error: float | None
    against_perplexity: float
    against_perplexity_error: float | None
    perplexity_difference: float
    perplexity_difference_error: float | None


@dataclass(frozen=True)
class TextComparison:
    """The comparisons of a text's tokens, or why there are none."""

    tokens: Sequence[TokenComparison]
    columns: Mapping[str, Any]
    error: str | None = None


def load_baseline(load: ExactLoadOptions, name: str, model: LanguageModel) -> LanguageModel:
    """Load the model to compare another one with: in its usual precision.

    Raises:
        HftoolError: it can't be loaded, or is not of the other's kind or vocabulary.
    """
    options = replace(load, model=name, revision=None, dtype="auto", quantize="none")
    baseline = load_language_model(options, masked=True)
    if model.is_masked != baseline.is_masked:
        masked, other = (model, baseline) if model.is_masked else (baseline, model)
        raise HftoolError(f"{masked.name} is a masked model, and {other.name} is not")
    ours, theirs = (m.tokenizer.backend.get_vocab().items() for m in (model, baseline))
    if different := {token for token, _ in ours ^ theirs}:
        noun = "token" if len(different) == 1 else "tokens"
        raise HftoolError(
            f"the vocabularies of {model.name} and {name} differ in {len(different):,} {noun}",
            f"`hftool vocab-dump {model.name} --diff {name}` shows them",
        )
    return baseline


def compare_texts(
    model: LanguageModel,
    baseline: LanguageModel,
    rows: Iterable[TextRow],
    encode: Callable[[TextRow], ScoredSequence],
    options: ScoreOptions,
    on_error: OnError = "stop",
) -> Iterator[TextComparison]:
    """Yield the comparison of each row's text.

    Raises:
        HftoolError: a text fails, and `on_error` is "stop".
    """
    results = measured_rows([model, baseline], rows, encode, options, compared, on_error)
    for row, _, values in results:
        if isinstance(values, HftoolError):
            yield TextComparison([], row.columns, row.located(values).message)
        else:
            yield TextComparison(values, row.columns)


def summarized(
    texts: Iterable[TextComparison],
    load: ExactLoadOptions,
    model: LanguageModel,
    baseline: LanguageModel,
) -> Iterator[ModelComparison]:
    """Yield the comparison of two models over all texts.

    Raises:
        HftoolError: no text has a token to score.
    """
    count = 0
    columns = [array("f"), array("f"), array("f"), array("f")]
    for text in texts:
        count += text.error is None
        for token in text.tokens:
            values = (-token.logprob, -token.baseline, token.divergence, token.same_best)
            for column, value in zip(columns, values, strict=True):
                column.append(value)
    if not columns[0]:
        raise HftoolError("no text has a token to score", "the first token of a text has no score")
    own, other, divergence, same = (torch.frombuffer(c, dtype=torch.float) for c in columns)
    own, other = own.double(), other.double()
    perplexity, against_perplexity = float(own.mean().exp()), float(other.mean().exp())
    # The error of a difference by the delta method: each token's part in it, to the first order.
    parts = perplexity * own - against_perplexity * other
    yield ModelComparison(
        model=model.name,
        precision=load.quantize if load.quantize != "none" else _precision(model),
        against=baseline.name,
        against_precision=_precision(baseline),
        texts=count,
        tokens=len(own),
        divergence=float(divergence.double().mean()),
        divergence_error=_error(divergence),
        divergence_quantile_99=_quantile(divergence),
        same_best=float(same.mean(dtype=torch.double)),
        same_best_error=_error(same),
        perplexity=perplexity,
        perplexity_error=_error(own, perplexity),
        against_perplexity=against_perplexity,
        against_perplexity_error=_error(other, against_perplexity),
        perplexity_difference=perplexity - against_perplexity,
        perplexity_difference_error=_error(parts),
    )


def _precision(model: LanguageModel) -> str:
    return str(model.model.dtype).removeprefix("torch.")


def _error(values: torch.Tensor, factor: float = 1.0) -> float | None:
    """Return the standard error of the mean of values [tokens], times a factor; None for a single
    value."""
    if len(values) < 2:
        return None
    return factor * float(values.double().std()) / math.sqrt(len(values))


def _quantile(values: torch.Tensor) -> float:
    """Return the value that 99 % of the values [tokens] don't exceed, between two by linear
    interpolation."""
    ordered = values.sort().values
    place = QUANTILE * (len(ordered) - 1)
    low, rest = int(place), place - int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low]) * (1 - rest) + float(ordered[high]) * rest

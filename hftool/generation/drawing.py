"""Draw tokens: what the filters leave, as probabilities, and the random numbers that choose."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from hftool.errors import HftoolError
from hftool.generation.sampling import Filter, SamplingSettings, apply_filters


def sampled_probs(scores: torch.Tensor, settings: SamplingSettings) -> torch.Tensor:
    """Return each token's probability of being chosen: float64 [vocabulary].

    Args:
        scores: the logits after the filters [vocabulary].
    """
    if settings.greedy:
        return torch.nn.functional.one_hot(scores.argmax(), len(scores)).double()
    return torch.softmax(scores.double(), dim=-1)


@dataclass(frozen=True)
class Draw:
    """A token and the random number that chose it, uniform in [0, 1).

    The token is the first one, from the most probable down, at which the cumulative probability
    exceeds the number.
    """

    id: int
    uniform: float


class Sampler:
    """Draws tokens. The same seed gives the same draws on every device."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, probs: torch.Tensor) -> Draw:
        """Draw a token from probabilities [vocabulary]; equally probable ones are ordered by id."""
        uniform = torch.rand((), generator=self._generator, dtype=torch.float64)
        probs = probs.cpu().double()
        ids = probs.nonzero()[:, 0]
        ordered, order = probs[ids].sort(descending=True, stable=True)
        cumulative = ordered.cumsum(0)
        # The probabilities may not sum to exactly 1.
        index = int(torch.searchsorted(cumulative, uniform * cumulative[-1], right=True))
        return Draw(int(ids[order[min(index, len(ids) - 1)]]), float(uniform))


def sample_batch(
    logits: torch.Tensor,
    sequences: Sequence[list[int]],
    settings: Sequence[SamplingSettings],
    filters: Sequence[list[Filter]],
    samplers: Sequence[Sampler | None],
) -> list[int]:
    """Return the next token of each of several sequences.

    Args:
        logits: float32 [sequences, vocabulary].
        sequences: the tokens of each sequence so far, for the penalties.
        filters: those of each sequence's settings.
        samplers: one for each sequence, None for a greedy one.
    """
    chosen = [0] * len(settings)
    same_settings: dict[SamplingSettings, list[int]] = {}
    for row, setting in enumerate(settings):
        same_settings.setdefault(replace(setting, seed=None), []).append(row)
    for setting, rows in same_settings.items():
        scores = _filter_rows(
            logits[rows], [sequences[row] for row in rows], [filters[row] for row in rows]
        )
        if setting.greedy:
            for row, best in zip(rows, scores.argmax(-1).tolist(), strict=True):
                chosen[row] = best
            continue
        for row, probs in zip(rows, torch.softmax(scores, dim=-1), strict=True):
            sampler = samplers[row]
            assert sampler is not None  # a sequence that is not greedy has a seed
            chosen[row] = sampler.draw(probs).id
    return chosen


def _filter_rows(
    logits: torch.Tensor,
    sequences: Sequence[list[int]],
    filters: Sequence[list[Filter]],
) -> torch.Tensor:
    """Return logits [sequences, vocabulary] after the filters."""
    if any(item.reads_ids for item in filters[0]):  # and the sequences differ in length
        rows = zip(logits, sequences, filters, strict=True)
        return torch.stack([apply_filters(*row) for row in rows])
    ids = torch.zeros(len(sequences), 0, dtype=torch.long)
    for item in filters[0]:
        logits = item(ids, logits)
    return logits


def are_finite(logits: torch.Tensor) -> torch.Tensor:
    """Return whether logits [..., vocabulary] are usable: without NaN, the largest one finite.

    The result is bool [...].
    """
    return torch.isfinite(logits.amax(-1))  # the maximum is NaN where any logit is


def check_finite(logits: torch.Tensor, dtype: torch.dtype) -> None:
    """Raise where the model's logits are not numbers, as when float16 overflows.

    Args:
        logits: those of any number of tokens [..., vocabulary].
        dtype: the precision that they were computed in.

    Raises:
        HftoolError: a logit is NaN, or the largest one is not finite.
    """
    if not bool(are_finite(logits).all()):
        broken = "its weights may be broken: use another checkpoint"
        raise HftoolError(
            f"the model's logits are not numbers (in {str(dtype).removeprefix('torch.')})",
            broken
            if dtype == torch.float32
            else f"try --dtype float32; if that does not help, {broken}",
        )

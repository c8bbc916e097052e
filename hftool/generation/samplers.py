"""The filters that transformers does not have: penalties for repetition, top-n-sigma and XTC.

Each is a function of one sequence's logits. docs/sampling.md follows an example through each.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence

import torch

DRY_BREAKERS = (b"\n", b":", b'"', b"*")
"""A repetition does not reach beyond a token with one of these (llama.cpp's defaults)."""
LARGEST_EXPONENT = 88.7228391  # logarithm of the largest float32

RowFilter = Callable[[Sequence[int], torch.Tensor], torch.Tensor]
"""Returns the logits [vocabulary] after a filter, given all tokens so far and the logits."""


class EachRow:
    """A logits processor that applies a function to each sequence by itself."""

    def __init__(self, function: RowFilter) -> None:
        self._function = function

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return logits [sequences, vocabulary] after the filter.

        Args:
            input_ids: the tokens so far [sequences, tokens].
        """
        rows = zip(input_ids.tolist(), scores, strict=True)
        return torch.stack([self._function(ids, logits) for ids, logits in rows])


def penalize_presence(
    generated: Sequence[int], logits: torch.Tensor, penalty: float
) -> torch.Tensor:
    """Subtract `penalty` from the logit [vocabulary] of each token that has been generated
    (OpenAI's `presence_penalty`)."""
    return _subtracted(logits, dict.fromkeys(generated, penalty))


def penalize_frequency(
    generated: Sequence[int], logits: torch.Tensor, penalty: float
) -> torch.Tensor:
    """Subtract `penalty` from a token's logit [vocabulary] for each time that it has been generated
    (OpenAI's `frequency_penalty`)."""
    return _subtracted(logits, {i: n * penalty for i, n in Counter(generated).items()})


def dry(
    ids: Sequence[int],
    logits: torch.Tensor,
    multiplier: float,
    base: float,
    allowed_length: int,
    breakers: Collection[int],
) -> torch.Tensor:
    """Penalize tokens that would continue a repetition ("Don't Repeat Yourself", p-e-w 2024, as in
    llama.cpp).

    Where the last n tokens have occurred before, n at least `allowed_length`, the token that
    followed there loses `multiplier * base ** (n - allowed_length)`.

    Args:
        logits: those after `ids` [vocabulary].
        breakers: tokens that a repetition does not reach beyond, and that are never penalized.
    """
    limit = next((n for n, i in enumerate(reversed(ids)) if i in breakers), len(ids))
    repeated: dict[int, int] = {}
    for back, length in enumerate(_repetitions(ids)):
        length = min(length, limit)
        follower = ids[len(ids) - back] if back else None
        if follower is not None and length >= allowed_length and follower not in breakers:
            repeated[follower] = max(length, repeated.get(follower, 0))
    largest = int(LARGEST_EXPONENT / math.log(base)) if base > 1.000001 else 0
    return _subtracted(
        logits,
        {
            token: multiplier * base ** min(length - allowed_length, largest or length)
            for token, length in repeated.items()
        },
    )


def _repetitions(ids: Sequence[int]) -> list[int]:
    """Return, for each number k of tokens, how many of the last tokens have occurred k tokens
    earlier too (the Z-algorithm, in linear time)."""
    reverse = list(reversed(ids))
    lengths = [0] * len(reverse)
    left = right = 0  # the matching stretch that ends last
    for k in range(1, len(reverse)):
        length = min(right - k, lengths[k - left]) if k < right else 0
        while k + length < len(reverse) and reverse[length] == reverse[k + length]:
            length += 1
        lengths[k] = length
        if k + length > right:
            left, right = k, k + length
    return lengths


def _subtracted(logits: torch.Tensor, penalties: dict[int, float]) -> torch.Tensor:
    if not penalties:
        return logits
    logits = logits.clone()
    indices = torch.tensor(list(penalties), device=logits.device)
    logits[indices] -= torch.tensor(
        list(penalties.values()), dtype=logits.dtype, device=logits.device
    )
    return logits


def keep_top_n_sigma(logits: torch.Tensor, n: float) -> torch.Tensor:
    """Keep the tokens whose logit is at most n standard deviations below the largest (Tang et al.
    2024, "Top-nσ: Not All Logits Are You Need").

    The deviation is that of all tokens that are left, not an estimate from a sample.

    Args:
        logits: -inf for tokens that other filters have removed [vocabulary].
    """
    left = logits[logits > -torch.inf]
    least = left.max() - n * left.std(correction=0)
    return logits.masked_fill(logits < least, -torch.inf)


def exclude_top_choices(logits: torch.Tensor, threshold: float) -> torch.Tensor:
    """Remove all tokens from the logits [vocabulary] whose probability is at least the threshold,
    but for the least probable of them ("Exclude Top Choices", p-e-w 2024)."""
    probs = torch.softmax(logits, dim=-1)
    top = (probs >= threshold).nonzero()[:, 0]
    if len(top) < 2:
        return logits
    least = top[probs[top].argsort(descending=True, stable=True)[-1]]
    kept = logits[least].clone()
    logits = logits.index_fill(0, top, -torch.inf)
    logits[least] = kept
    return logits


def step_number(seed: int, step: int) -> float:
    """Return a random number, uniform in [0, 1), that depends only on the seed and the number of
    the step, so that steps can be taken back and computed in any order."""
    return random.Random(f"{seed} {step}").random()

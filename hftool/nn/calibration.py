"""Round weights to 4 bits so that outputs, rather than weights, change little: GPTQ (Frantar et al.
2022, arXiv:2210.17323), by texts that the model writes itself.

The inputs of a linear layer are correlated, and some are far larger than others. So the error of
one weight can be made up for by those weights of the row that are not rounded yet.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hftool.nn.gguf_blocks import in_four_bits
from hftool.nn.kernels import GROUP
from hftool.nn.quantized_linear import Grid, fitted_grid
from hftool.nn.weights import Linear, Linears, StoredWeights, Weights

TEXTS, TOKENS = 128, 32  # so many texts of so many tokens
# The inputs whose weights make up for one another's errors: with all of a large model's, time and
# memory would grow with the square.
INPUTS = 2048
# With more weights it would take too long: minutes for every billion, on two cores.
MOST_WEIGHTS = 2_000_000_000
DAMPING = 0.01  # added to the squares, as a part of their mean


class ObservedWeights(Weights):
    """Weights in float32, whose linear layers sum up the products of their inputs.

    `products` has for each layer, by its names joined with "+", a matrix [inputs, inputs] for every
    `INPUTS` of them.
    """

    def __init__(self, stored: StoredWeights) -> None:
        super().__init__(stored, torch.float32, None)
        self.products: dict[str, list[torch.Tensor]] = {}

    def linear(self, *names: str) -> Linear:
        """Return a function that computes linear layers with the same input as one product."""
        product, name = self.product(*names), "+".join(names)

        def observed(inputs: torch.Tensor) -> torch.Tensor:
            parts = torch.split(inputs.flatten(0, -2), INPUTS, -1)
            new = [part.T @ part for part in parts]
            for total, more in zip(self.products.setdefault(name, new), new, strict=True):
                if total is not more:
                    total += more
            return product(inputs)

        return observed

    def each(self, *names: str) -> Linears:
        """Return a function like that of `linear`, which returns the outputs of each layer."""
        together = self.linear(*names)
        sizes = [self.shape(name)[0] for name in names]
        return lambda inputs: torch.split(together(inputs), sizes, -1)


def needs_calibration(stored: StoredWeights) -> bool:
    """Return whether layers of a model have more than 4 bits, but not too many weights."""
    layers = {
        name: shape
        for name, shape in stored.shapes.items()
        if name.startswith("model.layers.") and len(shape) == 2
    }
    few = sum(math.prod(shape) for shape in layers.values()) <= MOST_WEIGHTS
    return few and not all(in_four_bits(stored[name]) for name in layers)


def own_texts(model: Any, beginning: int | None) -> torch.Tensor | None:
    """Return texts [TEXTS, TOKENS] that a model writes after one or two random tokens, every second
    one after the token for the beginning of a text; None if its logits are not numbers."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (TEXTS, 2), generator=generator)
    if beginning is not None:
        ids[::2, 0] = beginning
    texts, cache = [ids], None
    for _ in range(TOKENS - 2):
        output = model(ids, cache=cache, logits_to_keep=1)
        cache = output.cache
        odds = output.logits[:, -1].float().softmax(-1)
        if not odds.isfinite().all():
            return None
        ids = torch.multinomial(odds, 1, generator=generator)
        texts.append(ids)
    return torch.cat(texts, 1)


def calibrated_grids(
    weights: Weights, products: Mapping[str, Sequence[torch.Tensor]]
) -> dict[str, Grid]:
    """Round the weights of layers, by the products of their inputs that `ObservedWeights` has.

    Returns: by the layers' names levels from 0 to 15 [outputs, groups, GROUP], and for each group a
        scale and its least value [outputs, groups]; nothing for layers whose weights have 4 bits
        already or no groups, nor where the inputs were not numbers, or all zero.
    """
    grids = {}
    for name, squares in products.items():
        names = name.split("+")
        if weights.shape(names[0])[1] % GROUP == 0 and not weights.in_four_bits(*names):
            if grid := calibrated_grid(weights.matrix(*names), squares):
                grids[name] = grid
    return grids


def calibrated_grid(weight: torch.Tensor, products: Sequence[torch.Tensor]) -> Grid | None:
    """Round the weights [outputs, inputs] of one layer; see `calibrated_grids`."""
    grids = []
    parts = torch.split(weight.float(), INPUTS, 1)
    for columns, squares in zip(parts, products, strict=True):
        factor = _inverse_factor(squares)
        if factor is None:
            return None
        grids.append(_rounded(columns, factor))
    levels, scales, leasts = (torch.cat(kind, 1) for kind in zip(*grids, strict=True))
    return levels, scales, leasts


def _inverse_factor(squares: torch.Tensor) -> torch.Tensor | None:
    """Return the upper Cholesky factor of the inverse of a damped matrix; None if it has none."""
    damped = squares.clone()
    damped.diagonal().add_(DAMPING * squares.diagonal().mean())
    lower, failed = torch.linalg.cholesky_ex(damped)
    if failed or not lower.isfinite().all():
        return None
    upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    return None if failed or not upper.isfinite().all() else upper


def _rounded(weight: torch.Tensor, factor: torch.Tensor) -> Grid:
    """Round one column after the other, and change those to the right of it to make up for its
    error: at once within the group, then in all others."""
    columns = weight.T.contiguous()
    importance = factor.diagonal().square().reciprocal()
    levels, grids = torch.empty_like(columns, dtype=torch.uint8), []
    for start in range(0, len(columns), GROUP):
        end = start + GROUP
        group, own = columns[start:end], factor[start:end, start:end]
        grid = fitted_grid(group.T[:, None], torch.half, 0, importance[start:end])
        scale, least = grid[1][:, 0], grid[2][:, 0]
        errors = torch.empty_like(group)
        for i, column in enumerate(group):
            level = ((column - least) / scale).round_().clamp_(0, 15)
            levels[start + i] = level
            errors[i] = (column - level.mul_(scale).add_(least)) / own[i, i]
            group[i + 1 :] -= own[i, i + 1 :, None] * errors[i]
        columns[end:] -= factor[start:end, end:].T @ errors
        grids.append((scale, least))
    scales, leasts = (torch.stack(kind, 1) for kind in zip(*grids, strict=True))
    return levels.T.reshape(len(weight), -1, GROUP), scales, leasts

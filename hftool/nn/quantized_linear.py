"""What linear layers with quantized weights have in common, and how 4-bit levels are chosen."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

INT4_GRIDS = 3  # tried for each group
TINY = torch.finfo(torch.float32).tiny
Bits = Literal["int8", "int4"]
# Levels [rows, groups, weights] and the scales and zeros of the groups [rows, groups].
Grid = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class QuantizedLinear(nn.Module):
    """A linear layer that consists of the tensors in PARTS, and perhaps a bias."""

    PARTS: tuple[str, ...]
    bias: torch.Tensor | None

    @classmethod
    def of_parts(cls, parts: Mapping[str, torch.Tensor]) -> "QuantizedLinear":
        """Return a layer of the tensors that `parts` of another one returned."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        for name in (*cls.PARTS, "bias"):
            setattr(layer, name, parts.get(name))
        return layer

    def parts(self) -> dict[str, torch.Tensor]:
        """Return the tensors of the layer by name."""
        tensors = {name: getattr(self, name) for name in (*self.PARTS, "bias")}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def fitted_grid(
    groups: torch.Tensor,
    dtype: torch.dtype,
    lowest: int,
    importance: torch.Tensor | None = None,
) -> Grid:
    """Return 16 levels from `lowest` on [rows, groups, weights], and the scale and the zero of each
    group [rows, groups], so that levels * scale + zero is close to the weights.

    The first grid spans each group's least and greatest weight. The next ones are the least-squares
    fit to the levels of the grid before, in which weights count by their `importance`; by default,
    as in llama.cpp, greater ones count more. Of these each group takes the best, with its scale and
    zero rounded to `dtype`.
    """
    least, most = groups.amin(-1), groups.amax(-1)
    scale, smallest = (most - least) / 15, torch.finfo(dtype).tiny
    zero = least - lowest * scale
    if importance is None:
        importance = groups.abs() + groups.square().mean(-1, keepdim=True).sqrt() + smallest
    levels, loss = torch.zeros_like(groups), torch.full_like(scale, torch.inf)
    best_scale, best_zero = torch.zeros_like(scale), torch.zeros_like(zero)
    for _ in range(INT4_GRIDS):
        scale = scale.clamp(min=smallest)
        new = ((groups - zero[..., None]) / scale[..., None]).round_()
        new.clamp_(lowest, lowest + 15)
        rounded, shift = scale.to(dtype).float(), zero.to(dtype).float()
        error = (new * rounded[..., None]).add_(shift[..., None]).sub_(groups).square_()
        new_loss = error.mul_(importance).sum(-1)
        better = new_loss < loss
        loss = torch.where(better, new_loss, loss)
        levels = torch.where(better[..., None], new, levels)
        best_scale = torch.where(better, rounded, best_scale)
        best_zero = torch.where(better, shift, best_zero)
        scale, zero = _line(new, groups, importance)
    return levels, best_scale, best_zero


def _line(
    x: torch.Tensor, y: torch.Tensor, importance: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return slope and intercept of the weighted least-squares line through points [..., n]."""
    total = importance.sum(-1)
    weighted = importance * x
    x_mean = weighted.sum(-1) / total
    y_mean = (importance * y).sum(-1) / total
    covariance = (weighted * y).sum(-1) / total - x_mean * y_mean
    variance = weighted.mul_(x).sum(-1) / total - x_mean.square()
    slope = covariance / variance.clamp(min=TINY)
    return slope, y_mean - slope * x_mean

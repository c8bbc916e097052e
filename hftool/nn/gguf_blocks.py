"""Weights in the blocks of a GGUF file: small integers, and a scale for every few of them.

How blocks are laid out and computed:
https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h and `ggml-quants.c` there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from hftool.nn.block_kinds import SIZES

GROUP = 32  # numbers that share a scale in most kinds
FOUR_BITS = ("Q4_0", "Q4_1", "Q4_K")  # with groups of GROUP
# Numbers at a time: their intermediate results stay in a core's cache.
NUMBERS_PER_STEP = 1 << 18


@dataclass(frozen=True)
class Groups:
    """Integers [blocks, groups, numbers], and their groups' scale and minimum [blocks, groups]:
    they stand for `integers * scale + minimum`."""

    integers: torch.Tensor
    scale: torch.Tensor
    minimum: torch.Tensor | None = None

    def into(self, numbers: torch.Tensor) -> None:
        """Write what they stand for into a tensor of float32 [blocks, numbers of a block]."""
        out = numbers.view(self.integers.shape)
        out.copy_(self.integers).mul_(self.scale[..., None])
        if self.minimum is not None:
            out.add_(self.minimum[..., None])


@dataclass(frozen=True)
class Blocks:
    """A weight in blocks of a kind.

    Attributes:
        data: its bytes [..., bytes of a row].
        kind: a name of `gguf.GGMLQuantizationType`.
        inputs: the numbers of a row.
        is_transposed: the model has it as [inputs, outputs].
    """

    data: torch.Tensor
    kind: str
    inputs: int
    is_transposed: bool = False
    dtype = None  # of no tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight in the model."""
        shape = (*self.data.shape[:-1], self.inputs)
        return shape[::-1] if self.is_transposed else shape

    def __len__(self) -> int:
        return self.shape[0]

    def to(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the weight as numbers."""
        rows = self.data.reshape(-1, self.data.shape[-1])
        result = torch.empty(len(rows), self.inputs, dtype=dtype)
        step = max(1, NUMBERS_PER_STEP // self.inputs)
        for some, out in zip(torch.split(rows, step), torch.split(result, step), strict=True):
            numbers = out if dtype == torch.float32 else torch.empty(out.shape)
            self._write(some, numbers)
            if numbers is not out:
                out.copy_(numbers)
        result = result.view(*self.data.shape[:-1], self.inputs)
        return result.T.contiguous() if self.is_transposed else result

    def groups(self, rows: torch.Tensor) -> Groups | None:
        """Return rows of bytes as integers and scales; None for a kind that gguf's code reads."""
        read = _READERS.get(self.kind)
        return None if read is None else read(rows.reshape(-1, SIZES[self.kind][1]))

    def _write(self, rows: torch.Tensor, numbers: torch.Tensor) -> None:
        if groups := self.groups(rows):
            groups.into(numbers)
            return
        from gguf import GGMLQuantizationType, dequantize

        made = dequantize(rows.numpy(), GGMLQuantizationType[self.kind])
        numbers.copy_(torch.from_numpy(made))


def in_four_bits(weight: Blocks | torch.Tensor) -> bool:
    """Return whether a weight is in blocks that 4-bit layers take as they are."""
    return isinstance(weight, Blocks) and weight.kind in FOUR_BITS and not weight.is_transposed


def four_bit_grid(
    weights: Sequence["Blocks | torch.Tensor"],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """Return the rows of weights as levels from 0 to 15 [rows, groups, GROUP], and the scale and
    the least value of each group [rows, groups]: `levels * scale + least`. None if they are not in
    four bits."""
    parts = []
    for weight in weights:
        if not (isinstance(weight, Blocks) and in_four_bits(weight)):
            return None
        groups = _READERS[weight.kind](weight.data.reshape(-1, SIZES[weight.kind][1]))
        levels, least = groups.integers, groups.minimum
        if least is None:  # Q4_0's integers are from -8 to 7
            levels, least = levels + 8, -8 * groups.scale
        shape = (len(weight), weight.inputs // GROUP)
        parts.append(
            (levels.reshape(*shape, GROUP), groups.scale.reshape(shape), least.view(shape))
        )
    levels, scale, least = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return levels, scale, least


def _half(blocks: torch.Tensor, start: int) -> torch.Tensor:
    """Return the float16 of each block [blocks, 1] as float32."""
    return blocks[:, start : start + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: torch.Tensor) -> torch.Tensor:
    """Return the low halves of bytes [..., bytes], then the high ones [..., 2 * bytes]."""
    return torch.cat([packed & 15, packed >> 4], -1)


def _fifth_bits(blocks: torch.Tensor, start: int) -> torch.Tensor:
    """Return one bit of each number of blocks of 32 [blocks, 32], as 0 or 16."""
    bits = torch.arange(8, dtype=torch.uint8)
    planes = blocks[:, start : start + 4, None] >> bits & 1
    return planes.reshape(-1, GROUP) << 4


def _q4_0(blocks: torch.Tensor) -> Groups:
    integers = _nibbles(blocks[:, 2:]).to(torch.int8) - 8
    return Groups(integers[:, None], _half(blocks, 0))


def _q4_1(blocks: torch.Tensor) -> Groups:
    return Groups(_nibbles(blocks[:, 4:])[:, None], _half(blocks, 0), _half(blocks, 2))


def _q5_0(blocks: torch.Tensor) -> Groups:
    integers = (_nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2)).to(torch.int8) - 16
    return Groups(integers[:, None], _half(blocks, 0))


def _q5_1(blocks: torch.Tensor) -> Groups:
    integers = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4)
    return Groups(integers[:, None], _half(blocks, 0), _half(blocks, 2))


def _q8_0(blocks: torch.Tensor) -> Groups:
    return Groups(blocks[:, None, 2:].view(torch.int8), _half(blocks, 0))


def _k_scales(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scales and the minima [blocks, 8] of Q4_K and Q5_K: six bits each."""
    first, second, rest = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scale = torch.cat([first & 63, rest & 15 | first >> 6 << 4], 1)
    minimum = torch.cat([second & 63, rest >> 4 | second >> 6 << 4], 1)
    return _half(blocks, 0) * scale, -(_half(blocks, 2) * minimum)


def _q4_k(blocks: torch.Tensor) -> Groups:
    integers = _nibbles(blocks[:, 16:].view(-1, 4, GROUP))
    return Groups(integers.view(-1, 8, GROUP), *_k_scales(blocks))


def _q5_k(blocks: torch.Tensor) -> Groups:
    integers = _nibbles(blocks[:, 48:].view(-1, 4, GROUP)).view(-1, 8, GROUP)
    high = blocks[:, None, 16:48] >> torch.arange(8, dtype=torch.uint8)[:, None] & 1
    return Groups(integers | high << 4, *_k_scales(blocks))


def _q6_k(blocks: torch.Tensor) -> Groups:
    low = _nibbles(blocks[:, :128].view(-1, 2, 64))
    shifts = torch.tensor([[0], [2], [4], [6]], dtype=torch.uint8)
    high = blocks[:, 128:192].view(-1, 2, 1, GROUP) >> shifts & 3
    integers = (low | high.view(low.shape) << 4).to(torch.int8) - 32
    scale = _half(blocks, 208) * blocks[:, 192:208].view(torch.int8)
    return Groups(integers.view(-1, 16, 16), scale)


_READERS: dict[str, Callable[[torch.Tensor], Groups]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}

"""Quantized layers and attention by the package `hftool_kernels`: C code for CPUs with AVX2 or
AVX-512 VNNI.

Without the package, and on other CPUs, torch's own kernels compute.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from hftool.nn.quantized_linear import QuantizedLinear, fitted_grid

GROUP = 32  # weights of a row that share a scale, as in GGUF's Q4_1 and Q8_0
BLOCK = 16  # rows that lie side by side
ROWS = 256  # quantized together: they fit a core's cache
DTYPES = (torch.float32, torch.bfloat16)


@cache
def kernels() -> Any:
    """Return the package, None if it is not installed, older than 0.3.0, or this CPU lacks the
    instructions."""
    try:
        import hftool_kernels
    except (ImportError, OSError):
        return None
    is_known = hasattr(hftool_kernels, "attention")
    return hftool_kernels if is_known and hftool_kernels.supported() else None


def fits(shape: Sequence[int]) -> bool:
    """Return whether weights [outputs, inputs] can be those of a `KernelLinear`."""
    outputs, inputs = shape
    return outputs % BLOCK == 0 and inputs % GROUP == 0


class KernelLinear(QuantizedLinear):
    """A linear layer with a scale for each group of weights, and in 4 bits a least value.

    Its inputs are rounded to 8 bits, with a scale for each group; of a few rows what is left over
    is rounded again. The products are summed in float32.
    """

    PARTS = ("levels", "scales")
    BITS: int
    dtype = torch.float32  # of the weights before

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        levels, scales = zip(
            *(self._quantized(rows.float()) for rows in torch.split(weight, ROWS)), strict=True
        )
        self.levels, self.scales = torch.cat(levels), torch.cat(scales)
        self.bias = None if bias is None else bias.detach().float()

    @staticmethod
    def _quantized(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the levels of some rows as the kernel reads them [blocks, groups, bytes], and
        their scales: float16 [blocks, groups, 1 or 2, BLOCK]."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of outputs and inputs."""
        blocks, groups, _ = self.levels.shape
        return blocks * BLOCK, groups * GROUP

    def described(self) -> Any:
        """Return the layer as the package describes it; its tensors must live as long."""
        bias = None if self.bias is None else self.bias.data_ptr()
        outputs, inputs = self.shape
        addresses = self.levels.data_ptr(), self.scales.data_ptr(), bias
        is_compact = self.scales.dtype == torch.uint8
        return kernels().Linear(*addresses, inputs, outputs, self.BITS, is_compact)

    def forward(self, inputs: torch.Tensor, *, gelu: bool = False) -> torch.Tensor:
        """Return the outputs [..., outputs] for inputs [..., inputs], or GELU of them."""
        dtype = inputs.dtype
        given = (inputs if dtype in DTYPES else inputs.float()).contiguous()
        outputs = given.new_empty(*inputs.shape[:-1], self.shape[0])
        rows = outputs.numel() // self.shape[0]
        package = kernels()
        form = package.BFLOAT16 if given.dtype == torch.bfloat16 else 0
        form |= package.GELU if gelu else 0
        addresses = given.data_ptr(), form, rows, outputs.data_ptr()
        if package.product(self.described(), *addresses):
            raise MemoryError
        return outputs.to(dtype)


class Int8KernelLinear(KernelLinear):
    """A `KernelLinear` of weights in 8 bits, like GGUF's Q8_0."""

    BITS = 8

    @staticmethod
    def _quantized(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        groups = rows.reshape(len(rows), -1, GROUP)
        scale = (groups.abs().amax(-1) / 127).half()
        divisor = scale.float().clamp(min=torch.finfo(torch.half).tiny)[..., None]
        levels = ((groups / divisor).round_().clamp_(-127, 127) + 128).to(torch.uint8)
        return _side_by_side(levels), _by_block(scale[:, :, None])

    @property
    def weight(self) -> torch.Tensor:
        """The weights [outputs, inputs] as the layer rounds them: some models read them, or only
        their dtype."""
        blocks, groups, _ = self.levels.shape
        apart = self.levels.reshape(blocks, groups, -1, BLOCK, 4).permute(0, 3, 1, 2, 4)
        scales = self.scales[:, :, 0].transpose(1, 2).flatten(0, 1)
        levels = apart.reshape(*scales.shape, GROUP).float() - 128
        return (levels * scales[..., None].float()).flatten(1).to(self.dtype)


class Int4KernelLinear(KernelLinear):
    """A `KernelLinear` of weights in 4 bits. Those of a GGUF file in Q4_1 keep their values."""

    BITS = 4

    @staticmethod
    def _quantized(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _four_bits(*fitted_grid(rows.reshape(len(rows), -1, GROUP), torch.half, 0))

    @classmethod
    def of_grid(
        cls,
        levels: torch.Tensor,
        scale: torch.Tensor,
        least: torch.Tensor,
        bias: torch.Tensor | None,
        dtype: torch.dtype,
    ) -> QuantizedLinear:
        """Return a layer of weights `levels * scale + least`: levels from 0 to 15 [outputs, groups,
        GROUP], and for each group a scale and its least value [outputs, groups]."""
        packed, scales = _four_bits(levels, scale, least)
        parts = {"levels": packed, "scales": scales}
        return cls.of_parts(parts if bias is None else {**parts, "bias": bias.detach().float()})

    def shrink_scales(self) -> None:
        """Round scales and least values to 8 bits, with a factor of each for each row: a tenth less
        to read, for an error that is small beside that of the levels."""
        kinds = self.scales.float()  # [blocks, groups, 2, BLOCK]
        most = torch.tensor([255, 127])[:, None]
        factors = kinds.abs().amax(1) / most
        rounded = (kinds / torch.where(factors == 0, 1, factors)[:, None]).round_()
        scales, leasts = rounded.unbind(2)
        integers = torch.stack([scales.to(torch.uint8), leasts.to(torch.int8).view(torch.uint8)], 2)
        parts = factors.view(torch.uint8).flatten(1), integers.flatten(1)
        self.scales = torch.cat(parts, 1)


def attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor | None:
    """Return the attention [sequences, queries, heads * size] of queries to all tokens, computed in
    float32; None where the package does not compute it.

    Args:
        query: [sequences, heads, queries, size]; `keys` and `values` are
            [sequences, heads, tokens, size].
        mask: bool [sequences, 1, 1, tokens], False for padding.
    """
    sequences, heads, queries, size = query.shape
    package = kernels()
    if (
        package is None
        or query.dtype not in DTYPES
        or query.device.type != "cpu"
        or size % GROUP
        or keys.stride() != values.stride()
        or not all(_by_token(states) for states in (query, keys, values))
    ):
        return None
    mask = None if mask is None else mask.contiguous()
    output = query.new_empty(sequences, queries, heads * size)
    described = package.Attention(
        *(query.data_ptr(), keys.data_ptr(), values.data_ptr()),
        None if mask is None else mask.data_ptr(),
        *(query.stride(2), keys.stride(2), sequences, queries, keys.shape[2], heads, size),
        query.dtype == torch.bfloat16,
    )
    if package.attention(described, output.data_ptr()):
        raise MemoryError
    return output


def _by_token(states: torch.Tensor) -> bool:
    """Return whether states [sequences, heads, tokens, size] are a view of [sequences, tokens, ...]
    in which the heads of a token lie side by side."""
    _, _, tokens, size = states.shape
    step = states.stride(2)
    return states.stride() == (tokens * step, size, step, 1)


def _four_bits(
    levels: torch.Tensor, scale: torch.Tensor, least: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    parts = _side_by_side(levels.to(torch.uint8)).chunk(2, -1)
    return parts[0] | parts[1] << 4, _by_block(torch.stack([scale, least], dim=-1).half())


def _side_by_side(levels: torch.Tensor) -> torch.Tensor:
    """Return levels [rows, groups, GROUP] as [blocks, groups, GROUP * BLOCK]: four of each row of a
    block after the other."""
    apart = levels.reshape(-1, BLOCK, levels.shape[1], GROUP // 4, 4)
    return apart.permute(0, 2, 3, 1, 4).flatten(2)


def _by_block(scales: torch.Tensor) -> torch.Tensor:
    """Return scales [rows, groups, kinds] as [blocks, groups, kinds, BLOCK]."""
    return scales.reshape(-1, BLOCK, *scales.shape[1:]).permute(0, 2, 3, 1).contiguous()

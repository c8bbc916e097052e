"""Linear layers with weights in 8 or 4 bits, for torch's own CPU kernels.

In a language model only weights are quantized, as in the GGUF formats; activations stay in
bfloat16.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from hftool.errors import HftoolError
from hftool.nn.architectures import SHARED_INPUT_LAYERS, TRANSPOSED_LINEAR
from hftool.nn.kernels import Int4KernelLinear, Int8KernelLinear, fits, kernels
from hftool.nn.quantized_linear import TINY, Bits, QuantizedLinear, fitted_grid

INT4_GROUP = 32  # weights of a row that share scale and minimum, as in GGUF's Q4_0 and Q4_1
INT4_OUTPUTS = 16  # torch's int4 kernel takes multiples of this
# Of the output layer: rounded to 4 bits it costs more accuracy than all others together.
HEAD_BITS: Bits = "int8"

# Rows quantized together: they fit a core's cache, and torch packs int4 in blocks of 64 rows.
ROWS_PER_BLOCK = 256
MANY_ROWS = 64  # from this number of inputs, unpacking the weights is faster than torch's kernel


class Int8Linear(QuantizedLinear):
    """A linear layer with int8 weights [outputs, inputs] and one scale per output."""

    PARTS = ("integers", "scale")

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        weights, scales = zip(
            *(_int8(rows, dtype) for rows in torch.split(weight, ROWS_PER_BLOCK)), strict=True
        )
        # Plain attributes, since torch looks buffers up far more slowly.
        self.integers, self.scale = torch.cat(weights), torch.cat(scales)
        self.bias = None if bias is None else bias.detach().to(dtype)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs [..., outputs] for inputs [..., inputs]."""
        rows = inputs.reshape(-1, inputs.shape[-1]).contiguous()
        if len(rows) < MANY_ROWS:
            outputs = torch._weight_int8pack_mm(rows, self.integers, self.scale)
        else:
            outputs = (rows @ self.integers.to(rows.dtype).T) * self.scale
        return _biased(outputs, self.bias).reshape(*inputs.shape[:-1], -1)

    @property
    def weight(self) -> torch.Tensor:
        """The weights [outputs, inputs] as the layer rounds them: some models read them, or only
        their dtype."""
        return self.integers.to(self.scale.dtype) * self.scale[:, None]


class Int8Products(Int8Linear):
    """An `Int8Linear` that also rounds each input row to int8, since CPUs are fastest at products
    of integers. It is accurate enough for labels, not for long generated texts."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs [..., outputs] for inputs [..., inputs]."""
        rows = inputs.reshape(-1, inputs.shape[-1]).float()
        scales = (rows.abs().amax(dim=1, keepdim=True) / 127).clamp(min=TINY)
        integers = (rows / scales).round().to(torch.int8)
        outputs = torch._int_mm(integers, self.integers.T) * scales * self.scale
        return _biased(outputs, self.bias).to(inputs.dtype).reshape(*inputs.shape[:-1], -1)


class Int4Linear(QuantizedLinear):
    """A linear layer with weights in 4 bits, and a scale and a minimum per `INT4_GROUP` weights.

    The levels are those of GGUF's Q4_1: weights from such a file keep their values, but for the
    rounding of scales and minima.
    """

    PARTS = ("packed", "scales")

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        packed, scales = zip(
            *(_int4(rows, dtype) for rows in torch.split(weight, ROWS_PER_BLOCK)), strict=True
        )
        self.packed, self.scales = torch.cat(packed), torch.cat(scales, dim=1)
        self.bias = None if bias is None else bias.detach().to(dtype)

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
        INT4_GROUP], and for each group a scale and its least value [outputs, groups]."""
        packed = [
            torch._convert_weight_to_int4pack_for_cpu(rows.flatten(1).to(torch.int32), 2)
            for rows in torch.split(levels, ROWS_PER_BLOCK)
        ]
        scales = torch.stack([scale, least + 8 * scale], dim=-1).transpose(0, 1).to(dtype)
        parts = {"packed": torch.cat(packed), "scales": scales.contiguous()}
        return cls.of_parts(parts if bias is None else {**parts, "bias": bias.detach().to(dtype)})

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs [..., outputs] for inputs [..., inputs]."""
        rows = inputs.reshape(-1, inputs.shape[-1]).contiguous()
        outputs = torch._weight_int4pack_mm_for_cpu(rows, self.packed, INT4_GROUP, self.scales)
        return _biased(outputs, self.bias).reshape(*inputs.shape[:-1], -1)


def _int8(rows: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize rows of weights to int8, with one scale per row."""
    rows = rows.float()
    scale = (rows.abs().amax(dim=1) / 127).clamp(min=torch.finfo(dtype).tiny)
    return (rows / scale[:, None]).round().to(torch.int8), scale.to(dtype)


def _int4(rows: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize rows of weights to int4 as torch packs them, with scales and zeros
    [groups, rows, 2]."""
    groups = rows.float().reshape(len(rows), -1, INT4_GROUP)
    levels, scale, zero = fitted_grid(groups, dtype, -8)
    # torch packs levels from 0 to 15; its kernel subtracts 8 from them.
    packed = torch._convert_weight_to_int4pack_for_cpu(
        (levels + 8).reshape_as(rows).to(torch.int32), 2
    )
    return packed, torch.stack([scale, zero], dim=-1).transpose(0, 1).to(dtype)


class SharedProduct(nn.Module):
    """Linear layers with the same input as one product: with few inputs, the call of a product
    costs more than its numbers."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        first = layers[0]
        outputs = sum(layer.out_features for layer in layers)
        biased = first.bias is not None
        self.layer = nn.Linear(
            first.in_features, outputs, biased, first.weight.device, first.weight.dtype
        )
        self.layer.weight.data = torch.cat([layer.weight.data for layer in layers])
        if biased:
            self.layer.bias.data = torch.cat([layer.bias.data for layer in layers])
        self._last: list[tuple[torch.Tensor, torch.Tensor]] = []  # inputs and outputs

    def part(self, inputs: torch.Tensor, outputs: slice) -> torch.Tensor:
        """Return some of the outputs.

        They are computed for all layers when the first one is called, and discarded after the last
        one: the layers must be called in order, with the same tensor.
        """
        last = self._last
        if not last or last[0][0] is not inputs:
            last[:] = [(inputs, self.layer(inputs))]
        computed = last[0][1]
        if outputs.stop == computed.shape[-1]:
            last.clear()
        return computed[..., outputs]


class Part(nn.Module):
    """One of the layers of a `SharedProduct`."""

    def __init__(self, shared: SharedProduct, outputs: slice) -> None:
        super().__init__()
        self.shared = shared
        self._outputs = outputs

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs [..., outputs] for inputs [..., inputs]."""
        return self.shared.part(inputs, self._outputs)


def _share_products(model: nn.Module) -> None:
    """Join the layers that transformers' models call with the same input."""
    for parent in list(model.modules()):
        for names in SHARED_INPUT_LAYERS:
            layers = [getattr(parent, name, None) for name in names]
            linear = [layer for layer in layers if type(layer) is nn.Linear]
            if len(linear) < len(names) or len({layer.bias is None for layer in linear}) > 1:
                continue
            shared, start = SharedProduct(linear), 0
            for name, layer in zip(names, linear, strict=True):
                end = start + layer.out_features
                setattr(parent, name, Part(shared, slice(start, end)))
                start = end


def _biased(outputs: torch.Tensor, bias: Any) -> torch.Tensor:
    return outputs if bias is None else outputs + bias


def quantized_linear(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
    bits: Bits,
    *,
    inputs_too: bool = False,
) -> QuantizedLinear | None:
    """Return a linear layer with quantized weights [outputs, inputs], whose inputs and outputs are
    of `dtype`; None if torch's kernel does not support the shape.

    Raises:
        HftoolError: a weight is not a number; most grids would make one of it.
    """
    if not all(bound.isfinite() for bound in torch.aminmax(weight)):
        raise HftoolError(
            "the model has weights that are not numbers", "they are broken: use another checkpoint"
        )
    if bits == "int4" and (weight.shape[1] % INT4_GROUP or weight.shape[0] % INT4_OUTPUTS):
        return None
    return linear_class(bits, weight.shape, inputs_too=inputs_too)(weight, bias, dtype)


def linear_class(
    bits: Bits, shape: Sequence[int], *, inputs_too: bool
) -> type[Int4KernelLinear | Int8KernelLinear | Int4Linear | Int8Linear]:
    """Return the class of linear layers with weights [outputs, inputs] of so many bits."""
    if kernels() is not None and fits(shape):
        return Int4KernelLinear if bits == "int4" else Int8KernelLinear
    if bits == "int4":
        return Int4Linear
    return Int8Products if inputs_too else Int8Linear


def _output_layer(model: nn.Module) -> nn.Module | None:
    """Return the layer of a transformers model that computes logits; None if it names none."""
    find = getattr(model, "get_output_embeddings", None)
    return find() if find is not None else None


def quantize(model: nn.Module, bits: Bits, *, inputs_too: bool = False) -> None:
    """Quantize a model's linear layers, the output layer to `HEAD_BITS`; embeddings and norms stay.

    With `inputs_too` int8 layers compute in integers.

    Raises:
        HftoolError: the model is not on a CPU, or torch's kernel supports none of its layers.
    """
    device = next(model.parameters()).device
    if device.type != "cpu":
        raise HftoolError(f"--quantize {bits} needs a CPU, not {device.type}", "use --device cpu")
    config: Any = getattr(model, "config", None)
    if getattr(config, "rescale_every", 0):  # RWKV would divide weights in place
        config.rescale_every = 0
    if not inputs_too:  # classifiers are called from several threads, which can't share a product
        _share_products(model)
    head = _output_layer(model)
    layers: list[tuple[nn.Module, str, Any]] = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        # A subclass computes something else, such as the choice of an expert.
        if type(layer) is nn.Linear or type(layer).__name__ == TRANSPOSED_LINEAR
    ]
    replaced = 0
    for parent, name, layer in layers:
        weight = layer.weight.detach()
        if not isinstance(layer, nn.Linear):
            weight = weight.T.contiguous()
        layer_bits = HEAD_BITS if layer is head else bits
        new = quantized_linear(weight, layer.bias, weight.dtype, layer_bits, inputs_too=inputs_too)
        if new is not None:
            setattr(parent, name, new)
            replaced += 1
    if not replaced:
        hint = "try --quantize int8" if bits == "int4" else "leave --quantize out"
        raise HftoolError(f"no layer of the model can be quantized to {bits}", hint)

"""The C code of `hftool_kernels`, against products of the weights as it rounds them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from hftool.nn.decoder import read_decoder
from hftool.nn.kernels import (
    GROUP,
    Int4KernelLinear,
    Int8KernelLinear,
    KernelLinear,
    attention,
    kernels,
)
from hftool.nn.quantized_linear import Bits
from tests.nn.test_decoder import drawn, folder  # noqa: F401

if kernels() is None:
    pytest.skip("hftool_kernels is not installed, or not for this CPU", allow_module_level=True)

Kinds = Callable[[torch.Tensor, torch.Tensor | None, torch.dtype], KernelLinear]


def compact(weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> KernelLinear:
    """Return a layer of weights in 4 bits whose scales have 8."""
    layer = Int4KernelLinear(weight, bias, dtype)
    size = layer.scales.nbytes
    layer.shrink_scales()
    assert layer.scales.nbytes < size / 2 + 128 * len(layer.scales) + 1
    return layer


KINDS: tuple[Kinds, ...] = (Int4KernelLinear, compact, Int8KernelLinear)


def rounded(layer: Any, inputs: int) -> torch.Tensor:
    """Return the weights of a layer [outputs, inputs], from its products with powers of two, which
    are exact."""
    outputs: torch.Tensor = layer(torch.eye(inputs) * 127)
    return outputs.T.double() / 127


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_close_and_on_the_grid(kind: Kinds) -> None:
    torch.manual_seed(1)
    weight = torch.randn(48, 96)
    found = rounded(kind(weight, None, torch.float32), 96).reshape(48, 3, GROUP)
    groups = weight.double().reshape(48, 3, GROUP)
    if kind is Int8KernelLinear:
        step = groups.abs().amax(-1, keepdim=True) / 127
    else:
        step = (groups.amax(-1, keepdim=True) - groups.amin(-1, keepdim=True)) / 15
        levels = [len(group.unique()) for group in found.float().reshape(-1, GROUP)]
        assert max(levels) <= 16
    # The scale is rounded to float16, whose relative error is at most 2**-11; a fitted grid may
    # leave out the least and the greatest weight.
    assert ((found - groups).abs() / step).quantile(0.95) < 0.5 + 127 / 2**11
    assert ((found - groups).abs() / step).max() < 1.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 300])
def test_the_error_is_that_of_the_rounded_inputs(kind: Kinds, rows: int) -> None:
    """An input is wrong by at most half a step, the 254th part of its group's greatest one; in few
    rows by the 254th part of that, because what is left over is rounded too."""
    torch.manual_seed(rows)
    weight, bias = torch.randn(64, 160), torch.randn(64)
    layer = kind(weight, bias, torch.float32)
    inputs = torch.randn(rows, 160) * torch.logspace(-3, 3, rows)[:, None]
    weights = rounded(kind(weight, None, torch.float32), 160)
    exact = inputs.double() @ weights.T + bias.double()
    half = inputs.double().reshape(rows, 5, GROUP).abs().amax(-1) / 254
    half /= 254 if rows <= 4 else 1
    bound = half @ weights.abs().reshape(64, 5, GROUP).sum(-1).T
    sums = inputs.double().abs() @ weights.abs().T + bias.double().abs()
    error = (layer(inputs).double() - exact).abs()
    assert (error <= bound + 1e-6 * sums).all()
    assert rows <= 4 or (error / bound).mean() < 0.2  # most errors of 160 inputs cancel out
    others = layer(inputs.flip(0)).flip(0)
    assert torch.equal(layer(inputs), others)
    half_precision = layer(inputs.bfloat16())
    assert half_precision.dtype == torch.bfloat16
    torch.testing.assert_close(half_precision, layer(inputs.bfloat16().float()).bfloat16())


def test_int4_keeps_the_weights_of_q4_1() -> None:
    """Weights d * q + m in groups, d and m of float16, as llama.cpp stores them."""
    torch.manual_seed(2)
    levels = torch.randint(0, 16, (48, 3, GROUP))
    levels[..., 0], levels[..., 1] = 0, 15
    weight = (levels * torch.rand(48, 3, 1).half().float() + torch.randn(48, 3, 1).half()).flatten(
        1
    )
    found = rounded(Int4KernelLinear(weight, None, torch.float32), 96)
    torch.testing.assert_close(found, weight.double(), atol=1e-5, rtol=1e-6)


def test_int8_keeps_the_weights_of_q8_0() -> None:
    torch.manual_seed(3)
    levels = torch.randint(-127, 128, (48, 3, GROUP))
    levels[..., 0] = 127
    weight = (levels * torch.rand(48, 3, 1).half().float()).flatten(1)
    layer = Int8KernelLinear(weight, None, torch.float32)
    assert torch.equal(layer.weight, weight)
    torch.testing.assert_close(rounded(layer, 96), weight.double(), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_a_number_stays_none(kind: Kinds) -> None:
    layer = kind(torch.randn(32, 64), None, torch.float32)
    for value in (torch.nan, torch.inf, -torch.inf):
        inputs = torch.randn(2, 64)
        inputs[0, 40] = value
        outputs = layer(inputs)
        assert outputs[0].isnan().all()
        assert outputs[1].isfinite().all()
    assert layer(torch.zeros(3, 64)).eq(0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outputs", [16, 48])  # blocks that are alone, and two side by side
def test_gelu_is_that_of_the_outputs(kind: Kinds, outputs: int) -> None:
    layer: Any = kind(torch.randn(outputs, 64), torch.randn(outputs), torch.float32)
    inputs = torch.randn(9, 64) * torch.logspace(-3, 2, 9)[:, None]
    expected = F.gelu(layer(inputs).double()).float()
    torch.testing.assert_close(layer(inputs, gelu=True), expected, atol=1e-6, rtol=1e-6)
    inputs[2, 5] = torch.nan
    assert layer(inputs, gelu=True).isnan().any(1).tolist() == [i == 2 for i in range(9)]
    half: Any = layer(inputs[3:].bfloat16(), gelu=True)
    expected = F.gelu(layer(inputs[3:].bfloat16().float())).bfloat16()
    torch.testing.assert_close(half, expected, atol=1e-6, rtol=1e-2)


def heads(sequences: int, tokens: int, count: int, size: int, seed: int) -> Any:
    """Return random queries, keys and values [sequences, heads, tokens, size], as an encoder's
    product has them: side by side."""
    draw = torch.Generator().manual_seed(seed)
    together = 2 * torch.randn(sequences, tokens, 3 * count, size, generator=draw)
    return together.transpose(1, 2).chunk(3, dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "size"), [(1, 32), (7, 64), (33, 32), (70, 64), (64, 96)])
def test_attention_is_that_of_float64(tokens: int, size: int, dtype: torch.dtype) -> None:
    parts = [part.to(dtype) for part in heads(3, tokens, 2, size, tokens)]
    mask = torch.arange(tokens) < torch.tensor([tokens, max(1, tokens // 2), 1])[:, None]
    first = parts[0][:, :, :1].transpose(1, 2).contiguous().transpose(1, 2)
    for query in (parts[0], first):
        for seen in (None, mask[:, None, None]):
            found = attention(query, parts[1], parts[2], seen)
            wide = query.double(), parts[1].double(), parts[2].double()
            expected = F.scaled_dot_product_attention(*wide, seen).transpose(1, 2).flatten(2)
            assert found is not None and found.dtype == dtype
            off = 1e-5 if dtype == torch.float32 else 2**-8 * float(expected.abs().max())
            assert (found - expected).abs().max() < off


def test_attention_to_padding_and_to_what_is_not_a_number() -> None:
    query, keys, values = heads(3, 40, 2, 32, 1)
    mask = torch.ones(3, 1, 1, 40, dtype=torch.bool)
    mask[1] = False
    query[2, 0, 5, 3] = torch.nan
    found = attention(query, keys, values, mask)
    expected = F.scaled_dot_product_attention(query, keys, values, mask).transpose(1, 2).flatten(2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5, equal_nan=True)
    assert found is not None and found[1].abs().max() < 1e-30
    assert found[2].isnan().nonzero().tolist() == [[5, i] for i in range(32)]


def test_other_attention_is_left_to_torch() -> None:
    """Heads whose size is no multiple of 32, other layouts and other dtypes."""
    query, keys, values = heads(2, 5, 2, 32, 1)
    assert attention(query, keys, values, None) is not None
    assert attention(query, keys.contiguous(), values.contiguous(), None) is None
    assert attention(query.half(), keys.half(), values.half(), None) is None
    query, keys, values = heads(2, 5, 2, 16, 1)
    assert attention(query, keys, values, None) is None


@pytest.mark.parametrize("bits", ["int8", "int4"])
@torch.inference_mode()
def test_a_step_is_what_the_layers_compute(folder: Path, bits: Bits) -> None:  # noqa: F811
    """Past windows and the cache's capacity, behind a prompt and from an empty cache."""
    steps, layers = (read_decoder(folder, torch.float32, bits) for _ in range(2))
    assert steps is not None and layers is not None and steps._step is not None
    layers._step = None
    for prompt in (drawn(1, 50), drawn(1, 1)):
        own, expected = steps(prompt), layers(prompt)
        for i in range(70):
            ids = drawn(1, i + 1)[:, -1:]
            own, expected = steps(ids, cache=own.cache), layers(ids, cache=expected.cache)
            # Where a sum differs in its last bit, an input may be rounded up here and down there.
            assert error(own.logits, expected.logits) < 5e-3
        assert own.cache.length == expected.cache.length
        if own.cache.can_crop(4):
            own.cache.crop(4)
            expected.cache.crop(4)
        found = steps(drawn(1, 3), cache=own.cache)
        expected = layers(drawn(1, 3), cache=expected.cache)
        assert error(found.logits, expected.logits) < 5e-3


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return how far logits are from the expected ones, as a part of these."""
    return float((found - expected).norm() / expected.norm())


@torch.inference_mode()
def test_a_step_in_bfloat16(folder: Path) -> None:  # noqa: F811
    full, steps = (read_decoder(folder, d, "int8") for d in (torch.float32, torch.bfloat16))
    assert full is not None and steps is not None
    expected, found = full(drawn(1, 5)), steps(drawn(1, 5))
    assert steps._step is not None
    for i in range(5):
        ids = drawn(1, i + 1)[:, -1:]
        expected, found = full(ids, cache=expected.cache), steps(ids, cache=found.cache)
    assert found.logits.dtype == torch.float32
    assert error(found.logits, expected.logits) < 0.3


@torch.inference_mode()
def test_padding_is_not_seen(folder: Path) -> None:  # noqa: F811
    model = read_decoder(folder, torch.float32, "int8")
    assert model is not None
    ids, mask = drawn(1, 6), torch.tensor([[0, 0, 1, 1, 1, 1]])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    padded = model(ids, attention_mask=mask, position_ids=positions)
    alone = model(ids[:, 2:])
    mask = torch.ones(1, 7, dtype=torch.long)
    mask[:, :2] = 0
    more = {"attention_mask": mask, "position_ids": torch.tensor([[4]])}
    found = model(drawn(1, 1), cache=padded.cache, **more)
    expected = model(drawn(1, 1), cache=alone.cache)
    assert error(found.logits, expected.logits) < 0.1

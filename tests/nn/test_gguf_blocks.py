"""The blocks of GGUF files stand for the numbers that gguf's own code computes."""

import gguf
import numpy as np
import pytest
import torch

from hftool.nn.block_kinds import SIZES, block_shape
from hftool.nn.gguf_blocks import Blocks, four_bit_grid
from hftool.nn.quantization import Int4Linear

INPUTS = 512


def random_blocks(kind: str, rows: int) -> np.ndarray:
    numbers, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    random = np.random.default_rng(1)
    return random.integers(0, 256, (rows, INPUTS // numbers * size), dtype=np.uint8)


@pytest.mark.parametrize("kind", [*SIZES, "Q2_K", "IQ4_XS", "MXFP4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")
def test_numbers_are_those_of_gguf(kind: str, dtype: torch.dtype) -> None:
    data = random_blocks(kind, 700)  # several steps
    expected = torch.from_numpy(gguf.dequantize(data, gguf.GGMLQuantizationType[kind])).to(dtype)
    weight = Blocks(torch.from_numpy(data), kind, INPUTS)
    assert (weight.shape, len(weight)) == ((700, INPUTS), 700)
    assert block_shape([kind, INPUTS, False], "U8", list(data.shape)) == (kind, [700, INPUTS])
    torch.testing.assert_close(weight.to(dtype), expected, rtol=0, atol=0, equal_nan=True)
    transposed = Blocks(torch.from_numpy(data), kind, INPUTS, is_transposed=True)
    assert transposed.shape == (INPUTS, 700)
    torch.testing.assert_close(
        transposed.to(dtype), expected.T, rtol=0, atol=0, equal_nan=True, check_stride=False
    )


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1"])
def test_four_bits_are_computed_as_they_are(kind: str) -> None:
    random = np.random.default_rng(2)
    weights = [random.normal(0, 0.1, (n, INPUTS)).astype(np.float32) for n in (300, 20)]
    quantized = [gguf.quantize(w, gguf.GGMLQuantizationType[kind]) for w in weights]
    blocks = [Blocks(torch.from_numpy(data), kind, INPUTS) for data in quantized]
    grid = four_bit_grid(blocks)
    assert grid is not None
    inputs = torch.from_numpy(random.normal(0, 1, (3, INPUTS))).to(torch.bfloat16)
    got = Int4Linear.of_grid(*grid, None, torch.bfloat16)(inputs).float()
    expected = inputs.float() @ torch.cat([b.to(torch.float32) for b in blocks]).T
    torch.testing.assert_close(got, expected, rtol=0, atol=0.005 * float(expected.abs().max()))


def test_other_weights_are_not_in_four_bits() -> None:
    eight = Blocks(torch.from_numpy(random_blocks("Q8_0", 16)), "Q8_0", INPUTS)
    assert four_bit_grid([eight]) is None
    assert four_bit_grid([torch.zeros(16, INPUTS)]) is None


@pytest.mark.parametrize(
    "kind", [["Q4_0", 513, False], ["Q4_0", 1024, False], ["Q9", INPUTS, False]]
)
def test_bytes_that_are_no_weight_of_a_kind(kind: list[object]) -> None:
    with pytest.raises(ValueError, match=r"bytes for|the kind"):
        block_shape(kind, "U8", list(random_blocks("Q4_0", 3).shape))

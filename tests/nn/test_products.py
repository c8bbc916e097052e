"""oneDNN's products are MKL's, up to rounding."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hftool.nn import products
from hftool.nn.products import OneDnnProducts

SHAPES = [(1, 8, 5), (3, 1, 16), (70, 33, 130)]  # rows, inputs, outputs


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_linear_layers(
    shape: tuple[int, int, int], biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        pytest.skip("torch was built without oneDNN")
    monkeypatch.setattr(products, "_mkl_is_slow", lambda: True)
    rows, size, outputs = shape
    layer = nn.Linear(size, outputs, bias=biased)
    inputs = torch.randn(2, rows, size)
    exact = F.linear(inputs.double(), layer.weight.double(), layer.double().bias)
    with torch.inference_mode(), OneDnnProducts():
        found = layer.float()(inputs)
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_are_torchs(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_mkl_is_slow", lambda: True)
    inputs, weight = torch.randn(4, 9, dtype=dtype), torch.randn(6, 9, dtype=dtype)
    with torch.inference_mode(), OneDnnProducts():
        assert torch.equal(F.linear(inputs, weight), inputs @ weight.T)
    transposed = torch.randn(9, 6).T
    with torch.inference_mode(), OneDnnProducts():
        found = F.linear(inputs.float(), transposed)
    torch.testing.assert_close(found, inputs.float() @ transposed.T)

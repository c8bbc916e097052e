"""Weights rounded to 4 bits by texts: against the outputs of the exact ones, and plain rounding."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hftool.nn import calibration
from hftool.nn.calibration import calibrated_grid
from hftool.nn.decoder import Decoder, read_decoder
from hftool.nn.quantized_linear import Grid, fitted_grid
from tests.tiny_models import save_model

GROUP = 32


def weights_of(grid: Grid) -> torch.Tensor:
    levels, scale, least = grid
    assert levels.min() >= 0 and levels.max() <= 15
    return (levels * scale[..., None] + least[..., None]).flatten(1)


@pytest.mark.parametrize("columns", [2048, 64])
def test_outputs_are_closer_than_those_of_plain_rounding(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs that are correlated, and of unequal sizes; also where only every 64 of the 160 make up
    for one another's errors."""
    monkeypatch.setattr(calibration, "INPUTS", columns)
    torch.manual_seed(1)
    weight = torch.randn(48, 160)
    mixed = torch.randn(160, 160) * torch.rand(160).exp2() ** 4
    inputs, others = (torch.randn(count, 40) @ mixed[:40] for count in (600, 200))
    parts = torch.split(inputs, columns, 1)
    grid = calibrated_grid(weight, [part.T @ part for part in parts])
    assert grid is not None
    plain = weights_of(fitted_grid(weight.view(48, -1, GROUP), torch.half, 0))
    exact = others @ weight.T
    errors = [(others @ w.T - exact).norm() for w in (weights_of(grid), plain)]
    assert errors[0] < (0.5 if columns == 2048 else 0.75) * errors[1]


def test_weights_on_a_grid_of_16_levels_stay() -> None:
    torch.manual_seed(2)
    levels = torch.randint(0, 16, (32, 2, GROUP))
    levels[..., 0], levels[..., 1] = 0, 15
    scale, least = torch.rand(32, 2, 1).half().float(), torch.randn(32, 2, 1).half().float()
    weight = (levels * scale + least).flatten(1)
    inputs = torch.randn(100, 64)
    grid = calibrated_grid(weight, [inputs.T @ inputs])
    assert grid is not None
    torch.testing.assert_close(weights_of(grid), weight, atol=1e-5, rtol=1e-5)


def test_inputs_that_say_nothing_leave_plain_rounding() -> None:
    weight = torch.randn(16, 32)
    for products in (torch.zeros(32, 32), torch.full((32, 32), torch.nan)):
        assert calibrated_grid(weight, [products]) is None


def read(folder: Path, kept: dict[str, torch.Tensor] | None) -> Decoder:
    model = read_decoder(folder, torch.float32, "int4", kept)
    assert model is not None
    return model


@pytest.mark.parametrize("kind", ["llama", "gemma3", "qwen3"])
@torch.inference_mode()
def test_a_model_that_is_kept_is_closer_to_the_exact_one(kind: str, tmp_path: Path) -> None:
    """Of a model whose layers have correlated inputs: its embeddings are of rank 4."""
    folder = save_model(tmp_path / "model", kind)
    path = folder / "model.safetensors"
    weights = load_file(path)
    torch.manual_seed(5)
    tokens, size = weights["model.embed_tokens.weight"].shape
    correlated = torch.randn(tokens, 4) @ torch.randn(4, size)
    weights["model.embed_tokens.weight"] = correlated * 0.15
    save_file(weights, path, {"format": "pt"})
    exact = read_decoder(folder, torch.float32, None)
    assert exact is not None
    kept: dict[str, torch.Tensor] = {}
    calibrated, plain = read(folder, kept), read(folder, None)
    torch.manual_seed(3)
    ids = torch.randint(exact.config.vocab_size, (8, 24))
    logits = exact(ids).logits
    errors = [(model(ids).logits - logits).norm() for model in (calibrated, plain)]
    assert errors[0] < 0.7 * errors[1]
    assert torch.equal(read(folder, kept)(ids).logits, calibrated(ids).logits)


def test_weights_that_are_not_numbers_are_rounded_without_texts(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "llama")
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, path, {"format": "pt"})
    assert isinstance(read(folder, {}), nn.Module)

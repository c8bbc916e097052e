"""Weights in 8 and 4 bits: what they compute, against the full weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hftool.errors import HftoolError
from hftool.generation.prefix_cache import CachedModel
from hftool.models.language_model import LanguageModel
from hftool.models.load import load_language_model
from hftool.nn.kernels import Int4KernelLinear
from hftool.nn.quantization import (
    INT4_GROUP,
    Int4Linear,
    Int8Linear,
    Int8Products,
    linear_class,
    quantize,
)
from hftool.options.model import LoadOptions
from tests.conftest import run
from tests.tiny_models import load_model, save_classifier, save_model

TEXT = "The capital of France is Paris, and the capital of Germany is Berlin."


@pytest.mark.parametrize("rows", [1, 3, 63, 64, 200])
def test_int8_is_the_product_with_the_rounded_weights(rows: int) -> None:
    torch.manual_seed(1)
    weight, bias, inputs = torch.randn(2096, 96), torch.randn(2096), torch.randn(2, rows, 96)
    scale = weight.abs().amax(1, keepdim=True) / 127
    expected = inputs @ ((weight / scale).round() * scale).T + bias
    outputs = Int8Linear(weight, bias, torch.float32)(inputs)
    torch.testing.assert_close(outputs, expected, atol=1e-3, rtol=1e-4)


def test_int8_products_round_each_input_row_too() -> None:
    torch.manual_seed(1)
    weight, bias = torch.randn(48, 96), torch.randn(48)
    inputs = torch.randn(2, 7, 96) * torch.tensor([0.01, 100.0]).reshape(2, 1, 1)
    inputs[0, 0] = 0
    scale = weight.abs().amax(1, keepdim=True) / 127
    steps = (inputs.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-30)
    expected = ((inputs / steps).round() * steps) @ ((weight / scale).round() * scale).T + bias
    outputs = Int8Products(weight, bias, torch.float32)(inputs)
    torch.testing.assert_close(outputs, expected, atol=1e-3, rtol=1e-4)


def test_int4_packed_in_blocks_equals_int4_packed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(4)
    weight = torch.randn(2096, 64)
    blocks = Int4Linear(weight, None, torch.float32)
    monkeypatch.setattr("hftool.nn.quantization.ROWS_PER_BLOCK", len(weight))
    whole = Int4Linear(weight, None, torch.float32)
    assert torch.equal(blocks.packed, whole.packed)
    assert torch.equal(blocks.scales, whole.scales)


def test_int4_is_closer_than_levels_from_least_to_greatest() -> None:
    torch.manual_seed(5)
    weight = torch.randn(256, 128)
    groups = weight.reshape(256, 4, INT4_GROUP)
    least = groups.amin(-1, keepdim=True)
    step = (groups.amax(-1, keepdim=True) - least) / 15
    plain = ((groups - least) / step).round() * step + least
    found = Int4Linear(weight, None, torch.float32)(torch.eye(128)).T
    error, plain_error = ((w.reshape_as(weight) - weight).square().mean() for w in (found, plain))
    assert error < 0.92 * plain_error


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_output_layer_has_8_bits(architecture: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path, architecture)
    model = load_model(folder, fast=False).model
    quantize(model, "int4")
    assert type(model.get_output_embeddings()) is Int8Linear
    assert any(isinstance(layer, Int4Linear | Int4KernelLinear) for layer in model.modules())


@pytest.mark.parametrize("rows", [1, 5, 70])
def test_int4_keeps_the_grid_of_q4_1(rows: int) -> None:
    """Weights d * q + m, with q from 0 to 15 in each group, as llama.cpp stores them."""
    torch.manual_seed(2)
    levels = torch.randint(0, 16, (2096, 3, INT4_GROUP))
    levels[..., 0], levels[..., 1] = 0, 15
    weight = (levels * torch.rand(2096, 3, 1) + torch.randn(2096, 3, 1)).reshape(
        2096, 3 * INT4_GROUP
    )
    inputs = torch.randn(rows, 3 * INT4_GROUP)
    outputs = Int4Linear(weight, None, torch.float32)(inputs)
    torch.testing.assert_close(outputs, inputs @ weight.T, atol=1e-3, rtol=1e-4)


def test_a_row_of_zeros_stays_one() -> None:
    for layer in (Int8Linear, Int4Linear):
        outputs = layer(torch.zeros(16, 32), None, torch.float32)(torch.randn(2, 32))
        assert outputs.abs().max() < 1e-30


@pytest.mark.parametrize(("bits", "most"), [("int8", 0.03), ("int4", 0.03)])
def test_the_real_model_stays_close(bits: Any, most: float, smollm2: LanguageModel) -> None:
    """The measure is the mean Kullback-Leibler divergence from float32, in nats per token."""
    options = LoadOptions(device="cpu", offline=True, dtype="bfloat16", quantize=bits)
    model = load_language_model(options)
    ids = smollm2.tokenizer.encode(TEXT, special=True).ids
    full, small = (
        torch.log_softmax(torch.cat(list(CachedModel(m).all_logits(ids))), dim=-1)
        for m in (smollm2, model)
    )
    divergence = float((full.exp() * (full - small)).sum(-1).mean())
    assert 0 < divergence < most


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_every_architecture(architecture: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path, architecture)
    ids = [1, 2, 3, 4]
    full = CachedModel(load_model(folder)).next_logits(ids)
    options = LoadOptions(
        model=str(folder), device="cpu", offline=True, dtype="float32", quantize="int8"
    )
    small = CachedModel(load_language_model(options)).next_logits(ids)
    assert 0 < float((full - small).abs().max()) < 0.2 * float(full.std())


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3"])
def test_layers_computed_as_one_give_what_each_gives(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model(tmp_path, architecture)
    ids = torch.arange(3, 20)[None]
    models = [load_model(folder, fast=False).model for _ in range(2)]
    quantize(models[0], "int8")
    monkeypatch.setattr("hftool.nn.quantization._share_products", lambda model: None)
    quantize(models[1], "int8")
    together, apart = (model(ids).logits for model in models)
    torch.testing.assert_close(together, apart)


def test_layers_of_another_shape_are_left(tmp_path: Path) -> None:
    layers = nn.Sequential(nn.Linear(32, 16), nn.Linear(16, 16), nn.Linear(32, 8))
    quantize(layers, "int4")
    kind = linear_class("int4", (16, 32), inputs_too=False)
    assert [type(layer) for layer in layers] == [kind, nn.Linear, nn.Linear]
    with pytest.raises(HftoolError, match="no layer of the model can be quantized to int4"):
        quantize(nn.Sequential(nn.Linear(5, 5)), "int4")
    with pytest.raises(HftoolError, match="--quantize int8 needs a CPU, not meta"):
        quantize(nn.Sequential(nn.Linear(32, 16, device="meta")), "int8")


def test_on_the_command_line(tmp_path: Path) -> None:
    arguments = ("topk", TEXT, "--json", "-k", "1", "--dtype", "float32")
    (full, small) = (
        json.loads(run(*arguments, "--quantize", bits).stdout)[0] for bits in ("none", "int8")
    )
    assert full["id"] == small["id"]
    assert full["prob"] != small["prob"]
    assert small["prob"] == pytest.approx(full["prob"], abs=0.1)
    judge = str(save_classifier(tmp_path))
    assert run("sentiment", "-m", judge, "good", "--quantize", "int8").exit_code == 0
    assert run("topk", "a", "--quantize", "int5").exit_code == 2

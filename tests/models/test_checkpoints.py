"""Weights that don't fit config.json: quantized without saying how, unused, or there twice."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hftool.errors import HftoolError
from tests.conftest import run
from tests.tiny_models import load_model, save_model, transformers_model

IDS = torch.arange(12).unsqueeze(0)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama") / "m")


@pytest.fixture
def folder(llama: Path, tmp_path: Path) -> Path:
    """A copy of the model's folder, to be changed."""
    return Path(shutil.copytree(llama, tmp_path / "m"))


def write_config(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def refused(folder: Path) -> str:
    with pytest.raises(HftoolError) as caught:
        load_model(folder)
    return caught.value.message


def test_biases_that_the_config_lacks_are_reported(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    more = {f"model.layers.{i}.self_attn.q_proj.bias": torch.ones(32) for i in range(2)}
    save_file({**weights, **more}, folder / "model.safetensors", {"format": "pt"})
    result = run("topk", "hello", "-m", str(folder))
    assert result.exit_code == 0
    assert (
        "the model does not use 2 of the tensors in its weights, such as"
        " model.layers.0.self_attn.q_proj.bias; config.json may lack a setting" in result.stderr
    )
    write_config(folder, attention_bias=True)
    with pytest.raises(HftoolError, match="lacks 6 of the model's weights"):
        load_model(folder)


def test_float8_weights_without_a_config_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    weights[name] = weights[name].to(torch.float8_e4m3fn)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert refused(folder).endswith(
        f"{name} is quantized (F8_E4M3), and config.json does not state how"
    )


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"quant_method": "modelopt"}, "is quantized by 'modelopt', which transformers does not"),
        ({"bits": 4}, "config.json: quantization_config has no quant_method"),
        ({"quant_method": "gptq", "bits": 4}, "optimum"),
    ],
)
def test_other_kinds_of_quantization(folder: Path, settings: dict[str, Any], cause: str) -> None:
    write_config(folder, quantization_config=settings)
    assert cause in refused(folder)


def test_a_model_for_mlx(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj"
    weights[f"{name}.weight"] = torch.zeros(48, 4, dtype=torch.uint32)
    weights[f"{name}.scales"] = torch.zeros(48, 1, dtype=torch.float16)
    save_file(weights, folder / "model.safetensors", {"format": "mlx"})
    write_config(folder, quantization={"group_size": 64, "bits": 4})
    assert refused(folder) == f"{folder} is a model for MLX, quantized to 4 bits"


def test_of_two_sets_of_weights_that_of_transformers_is_used(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    others = {name: tensor + 1 for name, tensor in weights.items()}
    save_file(others, folder / "model-00001-of-00001.safetensors", {"format": "pt"})
    index = {
        "metadata": {},
        "weight_map": dict.fromkeys(weights, "model-00001-of-00001.safetensors"),
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with torch.inference_mode():
        expected = transformers_model(folder)(IDS).logits
    torch.testing.assert_close(load_model(folder).forward(IDS), expected)
    result = run("topk", "hello", "-m", str(folder))
    assert "has its weights twice: model.safetensors is used, as by transformers" in result.stderr

"""Weights that don't fit config.json: quantized without saying how, unused, or there twice."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GptOssConfig

from hftool.errors import HftoolError
from tests.conftest import run
from tests.tiny_models import (
    VOCABULARY,
    load_model,
    save_model,
    save_tokenizer,
    transformers_model,
)

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
        ({"quant_method": "awq", "bits": 4}, "gptqmodel"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "pip install -U bitsandbytes"),
        ({"quant_method": "compressed-tensors"}, "pip install compressed-tensors"),
        ({"quant_method": "fbgemm_fp8"}, "requires a GPU"),
    ],
)
def test_other_kinds_of_quantization(folder: Path, settings: dict[str, Any], cause: str) -> None:
    write_config(folder, quantization_config=settings)
    assert cause in refused(folder)


def test_float8_blocks_with_their_scales(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    stored, exact = dict(weights), dict(weights)
    for name in [n for n in weights if "_proj" in n]:
        scales = torch.rand(weights[name].shape[0] // 16, weights[name].shape[1] // 16) + 0.5
        each = scales.repeat_interleave(16, 0).repeat_interleave(16, 1)
        stored[name] = (weights[name] / each).to(torch.float8_e4m3fn)
        stored[f"{name.removesuffix('.weight')}.weight_scale_inv"] = scales
        exact[name] = stored[name].float() * each
    save_file(exact, folder / "model.safetensors", {"format": "pt"})
    expected = load_model(folder).forward(IDS)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    write_config(folder, quantization_config={"quant_method": "fp8", "weight_block_size": [16, 16]})
    torch.testing.assert_close(load_model(folder).forward(IDS), expected, atol=1e-3, rtol=1e-3)


def test_the_experts_of_gpt_oss_in_mxfp4(tmp_path: Path) -> None:
    """Two numbers of 4 bits a byte, the lower half first, and a power of two for every 32."""
    sizes: dict[str, Any] = {
        **{"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 64, "head_dim": 16},
        **{"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2},
        **{"num_local_experts": 4, "num_experts_per_tok": 2, "initializer_range": 0.3},
    }
    torch.manual_seed(2)
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(GptOssConfig(**sizes))
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    values = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    values = torch.cat([values, -values])
    stored = load_file(tmp_path / "model.safetensors")
    exact = dict(stored)
    for name in [n for n in stored if n.endswith(("gate_up_proj", "down_proj"))]:
        experts, inputs, outputs = stored.pop(name).shape
        shape = (experts, outputs, inputs // 32)
        blocks = torch.randint(0, 256, (*shape, 16), dtype=torch.uint8)
        scales = torch.randint(122, 126, shape, dtype=torch.uint8)
        numbers = torch.stack([values[(blocks & 15).long()], values[(blocks >> 4).long()]], -1)
        numbers = numbers.flatten(-2) * 2.0 ** (scales.float() - 127)[..., None]
        exact[name] = numbers.flatten(-2).transpose(1, 2).contiguous()
        stored |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    save_file(exact, tmp_path / "model.safetensors", {"format": "pt"})
    expected = load_model(tmp_path).forward(IDS)
    save_file(stored, tmp_path / "model.safetensors", {"format": "pt"})
    write_config(tmp_path, quantization_config={"quant_method": "mxfp4"})
    torch.testing.assert_close(load_model(tmp_path).forward(IDS), expected, atol=1e-3, rtol=1e-3)


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

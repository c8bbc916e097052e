"""The weights of GGUF files are kept in the files' blocks, against transformers' own reading."""

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3MoeConfig,
)

from hftool.errors import HftoolError
from hftool.generation.prefix_cache import CachedModel
from hftool.models.load import load_language_model
from hftool.models.validation import read_tensor_shapes
from hftool.options.model import LoadOptions
from tests.conftest import run
from tests.hub_server import write_gguf

AUTO: Any = AutoModelForCausalLM
SIZES: dict[str, Any] = {
    "vocab_size": 261,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
}
PROMPT = list(b"the quick brown fox")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HFTOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def quantized(path: Path, kind: str) -> Path:
    torch.manual_seed(5)
    model: Any = LlamaForCausalLM(LlamaConfig(**SIZES))
    write_gguf(path, model.eval(), quantized=kind)
    return path


def logits(path: Path, fast: bool = True, ids: list[int] = PROMPT, **settings: Any) -> torch.Tensor:
    options = LoadOptions(model=str(path), device="cpu", offline=True, **settings)
    return CachedModel(load_language_model(options, fast=fast)).next_logits(ids)


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_1", "Q8_0", "F16", "BF16"])
def test_a_file_is_kept_in_its_blocks(tmp_path: Path, cache: Path, kind: str) -> None:
    file = quantized(tmp_path / "tiny.gguf", kind)
    where = {"gguf_file": file.name, "dtype": torch.float32, "local_files_only": True}
    theirs = AUTO.from_pretrained(tmp_path, **where).eval()
    with torch.no_grad():
        expected = theirs(torch.tensor([PROMPT])).logits[0, -1]
    for fast in (True, False):
        got = logits(file, fast, dtype="float32")
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)
    (weights,) = cache.glob("converted/gguf-*/*.safetensors")
    assert weights.stat().st_size < file.stat().st_size
    shown = run("models", "show", str(file), "--format", "json").stdout
    count = sum(p.numel() for p in theirs.parameters())
    assert f'"parameters": {count}' in shown
    torch.testing.assert_close(logits(file, dtype="bfloat16"), expected, rtol=0.1, atol=1)


@pytest.mark.parametrize(
    ("config", "architecture", "settings"),
    [
        (
            GPT2Config(vocab_size=261, n_positions=256, n_embd=64, n_layer=2, n_head=4),
            "gpt2",
            {"feed_forward_length": 256, "attention.layer_norm_epsilon": 1e-5},
        ),
        (
            Qwen3MoeConfig(
                **{**SIZES, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
                moe_intermediate_size=32,
                norm_topk_prob=True,
            ),
            "qwen3moe",
            {
                **{"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32},
                **{"attention.key_length": 16, "attention.value_length": 16},
            },
        ),
    ],
)
def test_transposed_weights_and_experts_stay_in_their_blocks(
    tmp_path: Path, cache: Path, config: Any, architecture: str, settings: dict[str, Any]
) -> None:
    torch.manual_seed(6)
    model = AUTO.from_config(config).eval()
    file = tmp_path / "m.gguf"
    write_gguf(file, model, architecture=architecture, settings=settings, quantized="Q8_0")
    q8 = gguf.GGMLQuantizationType.Q8_0
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                is_transposed = architecture == "gpt2" and ".h." in name
                rows = (weight.T if is_transposed else weight).contiguous().numpy()
                exact = torch.from_numpy(gguf.dequantize(gguf.quantize(rows, q8), q8))
                weight.copy_(exact.T if is_transposed else exact)
        expected = model(torch.tensor([PROMPT])).logits[0, -1]
    torch.testing.assert_close(logits(file, dtype="float32"), expected, rtol=1e-5, atol=1e-4)
    (weights,) = cache.glob("converted/gguf-*/*.safetensors")
    assert weights.stat().st_size < file.stat().st_size


def test_four_bits_stay_four_bits(tmp_path: Path) -> None:
    file = quantized(tmp_path / "tiny.gguf", "Q4_0")
    few = PROMPT[:3]  # hftool_kernels rounds the inputs of more tokens to 8 bits
    exact = logits(file, ids=few, dtype="float32")
    got = logits(file, ids=few, quantize="int4")
    # Another grid would be some 3 % off.
    assert float(torch.corrcoef(torch.stack([got.float(), exact]))[0, 1]) > 0.999


@pytest.mark.parametrize(
    "metadata",
    ['{"w": ["Q4_0", 32, false]}', '{"w": ["Q4_0"]}', '{"v": ["Q4_0", 32, false]}', "[1]", "{"],
)
def test_metadata_that_do_not_fit_their_weights(tmp_path: Path, metadata: str) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"w": torch.zeros(3, 18)}, file, metadata={"blocks": metadata})
    with pytest.raises(HftoolError, match="cannot read"):
        read_tensor_shapes(file)

"""GGUF files: every setting and every tensor reaches the model, against the model they are of."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    Phi3Config,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    T5Config,
)

from hftool.models.conversion import convert_gguf
from tests.hub_server import write_gguf

SIZES: dict[str, Any] = {
    "vocab_size": 261,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
}
AUTO: Any = AutoModelForCausalLM
IDS = torch.arange(200).unsqueeze(0)
HALF = 8  # of the numbers of a head, which has 16


def llama3_factors(context: int, factor: float) -> list[float]:
    """The factors that llama.cpp's converter writes for Llama 3.1's scaling (base 10,000)."""
    result = []
    for i in range(HALF):
        wavelength = 2 * math.pi * 10000 ** (i / HALF)
        if wavelength < context / 4:
            result.append(1.0)
        elif wavelength > context:
            result.append(factor)
        else:
            smooth = (context / wavelength - 1) / 3
            result.append(1 / ((1 - smooth) / factor + smooth))
    return result


def llama3(context: int, factor: float) -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": context,
    }


def rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 10000.0, **more}


EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
OF_EXPERTS: dict[str, Any] = {
    "expert_count": 4,
    "expert_used_count": 2,
    "expert_feed_forward_length": 16,
}
GEMMA: dict[str, Any] = {**SIZES, "tie_word_embeddings": True, "head_dim": 32, "sliding_window": 64}
OF_GEMMA = {
    "attention.key_length": 32,
    "attention.value_length": 32,
    "attention.sliding_window": 64,
}
LOCAL: dict[str, Any] = {
    "rope_parameters": {
        "full_attention": rope("default"),
        "sliding_attention": rope("default"),
    }
}

CASES: dict[str, tuple[Any, str, Mapping[str, Any], Mapping[str, list[float]]]] = {
    "llama 3.1": (
        LlamaConfig(**SIZES, rope_parameters=llama3(8192, 8.0)),
        "llama",
        {},
        {"rope_freqs.weight": llama3_factors(8192, 8.0)},
    ),
    "other factors": (
        LlamaConfig(**SIZES, rope_parameters=llama3(64, 4.0)),
        "llama",
        {},
        {"rope_freqs.weight": llama3_factors(64, 4.0)},
    ),
    "linear": (
        LlamaConfig(**SIZES, rope_parameters=rope("linear", factor=4.0)),
        "llama",
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
        {},
    ),
    "yarn": (
        Qwen2Config(
            **SIZES,
            rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=64),
        ),
        "qwen2",
        {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 64,
        },
        {},
    ),
    "base": (
        Qwen3Config(**SIZES, head_dim=16, rope_parameters=rope("default") | {"rope_theta": 500.0}),
        "qwen3",
        {"rope.freq_base": 500.0, "attention.key_length": 16, "attention.value_length": 16},
        {},
    ),
    "head size": (
        Qwen3Config(**SIZES, head_dim=32),
        "qwen3",
        {"attention.key_length": 32, "attention.value_length": 32, "rope.dimension_count": 32},
        {},
    ),
    "biases": (LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True), "llama", {}, {}),
    "experts": (
        Qwen3MoeConfig(
            **{**SIZES, **EXPERTS, "intermediate_size": 16, "head_dim": 16}, norm_topk_prob=True
        ),
        "qwen3moe",
        {**OF_EXPERTS, "attention.key_length": 16, "attention.value_length": 16},
        {},
    ),
    "a shared expert": (
        Qwen2MoeConfig(**SIZES, **EXPERTS, shared_expert_intermediate_size=24),
        "qwen2moe",
        {**OF_EXPERTS, "expert_shared_feed_forward_length": 24},
        {},
    ),
    "transposed weights": (
        GPT2Config(vocab_size=261, n_positions=256, n_embd=32, n_layer=2, n_head=2),
        "gpt2",
        {"feed_forward_length": 128, "attention.layer_norm_epsilon": 1e-5},
        {},
    ),
    "queries scaled by the head": (
        Gemma3TextConfig(**GEMMA, query_pre_attn_scalar=32, **LOCAL),
        "gemma3",
        OF_GEMMA,
        {},
    ),
    "queries scaled by the width": (
        Gemma2Config(**{**GEMMA, "num_hidden_layers": 46}, query_pre_attn_scalar=16),
        "gemma2",
        {**OF_GEMMA, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_model_is_the_one_it_was_written_from(tmp_path: Path, name: str) -> None:
    config, architecture, settings, tensors = CASES[name]
    torch.manual_seed(2)
    model = AUTO.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
        expected = model(IDS).logits
    write_gguf(
        tmp_path / "m.gguf", model, architecture=architecture, settings=settings, tensors=tensors
    )
    copy = converted(tmp_path)
    with torch.no_grad():
        logits = AUTO.from_pretrained(copy).eval()(IDS).logits
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=2e-5)


def converted(folder: Path) -> Path:
    target = folder / "copy"
    target.mkdir()
    convert_gguf(folder / "m.gguf", target, weights=True)
    return target


@pytest.mark.parametrize("activation", ["relu", "gated-gelu"])
def test_t5_with_and_without_gates(tmp_path: Path, activation: str) -> None:
    torch.manual_seed(4)
    make: Any = T5Config
    config = make(
        vocab_size=261,
        d_model=32,
        d_kv=16,
        d_ff=48,
        num_layers=2,
        num_heads=2,
        feed_forward_proj=activation,
        decoder_start_token_id=0,
    )
    config.intermediate_size, config.num_key_value_heads = 48, 2
    config.max_position_embeddings, config.rms_norm_eps = 256, 1e-6
    auto: Any = AutoModelForSeq2SeqLM
    model = auto.from_config(config).eval()
    settings = {"attention.key_length": 16, "attention.value_length": 16}
    settings |= {"attention.relative_buckets_count": 32, "decoder_start_token_id": 0}
    write_gguf(tmp_path / "m.gguf", model, architecture="t5", settings=settings)
    asked = {"input_ids": IDS[:, :20], "decoder_input_ids": IDS[:, :5]}
    with torch.no_grad():
        logits = auto.from_pretrained(converted(tmp_path)).eval()(**asked).logits
        torch.testing.assert_close(logits, model(**asked).logits)


def test_llama3_keeps_its_name_so_that_the_fast_code_computes_it(tmp_path: Path) -> None:
    config, _, settings, tensors = CASES["llama 3.1"]
    model = AUTO.from_config(config)
    write_gguf(tmp_path / "m.gguf", model, settings=settings, tensors=tensors)
    written = json.loads((converted(tmp_path) / "config.json").read_text())
    assert written["rope_parameters"] == config.rope_parameters


def test_a_model_that_is_called_mistral(tmp_path: Path) -> None:
    model = AUTO.from_config(LlamaConfig(**SIZES)).eval()
    write_gguf(tmp_path / "m.gguf", model, name="mistral")
    copy = AUTO.from_pretrained(converted(tmp_path)).eval()
    with torch.no_grad():
        torch.testing.assert_close(copy(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize(
    ("settings", "tensors", "cause"),
    [
        (
            {"magic_scale": 2.0},
            {},
            "it has the setting llama.magic_scale = 2.0, for which its model has no place",
        ),
        ({"logit_scale": 0.5}, {}, "it has the setting llama.logit_scale = 0.5"),
        ({"rope.scaling.type": "su"}, {}, "it scales rotary embeddings as 'su', which hftool"),
        (
            {},
            {"blk.0.attn_sinks.weight": [1.0, 2.0]},
            "it has 1 tensors that its model has no place for, such as blk.0.attn_sinks.weight",
        ),
    ],
)
def test_what_has_no_place_in_the_model_is_an_error(
    tmp_path: Path,
    settings: Mapping[str, Any],
    tensors: Mapping[str, list[float]],
    cause: str,
) -> None:
    model = AUTO.from_config(LlamaConfig(**SIZES))
    write_gguf(tmp_path / "m.gguf", model, settings=settings, tensors=tensors)
    with pytest.raises(ValueError) as caught:
        converted(tmp_path)
    assert cause in str(caught.value)


def test_the_factors_of_phi3(tmp_path: Path) -> None:
    long, short = [2.0 + i for i in range(HALF)], [1.0 + i / 8 for i in range(HALF)]
    scaling = rope("longrope", long_factor=long, short_factor=short)
    scaling |= {"original_max_position_embeddings": 64, "attention_factor": 1.25}
    config = Phi3Config(
        **SIZES,
        pad_token_id=None,
        rope_parameters=scaling,
        original_max_position_embeddings=64,
    )
    model = AUTO.from_config(config).eval()
    write_gguf(
        tmp_path / "m.gguf",
        model,
        architecture="phi3",
        settings={"rope.scaling.original_context_length": 64, "rope.scaling.attn_factor": 1.25},
        tensors={"rope_factors_long.weight": long, "rope_factors_short.weight": short},
    )
    copy = AUTO.from_pretrained(converted(tmp_path)).eval()
    with torch.no_grad():
        for ids in (IDS[:, :40], IDS):
            torch.testing.assert_close(copy(ids).logits, model(ids).logits)

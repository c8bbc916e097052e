"""Read the config.json of Llama and related models, if `hftool.nn.llama` can compute them."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from hftool.nn.architectures import LLAMA_MODEL_TYPES, computed_model_type

# Keys that a config must have, with their types. A config with a key that is not in KNOWN_KEYS is
# left to transformers: it may change what the model computes.
REQUIRED_KEYS = {
    "hidden_act": str,
    "hidden_size": int,
    "intermediate_size": int,
    "max_position_embeddings": int,
    "num_attention_heads": int,
    "num_hidden_layers": int,
    "num_key_value_heads": int,
    "rms_norm_eps": float,
    "tie_word_embeddings": bool,
    "vocab_size": int,
}
WITHOUT_EFFECT = {
    *("_model_name_or_path", "_name_or_path", "architectures", "attention_dropout"),
    *("bos_token_id", "dtype", "eos_token_id", "initializer_range", "is_llama_config"),
    *("max_window_layers", "model_type", "pad_token_id", "pretraining_tp", "rope_interleaved"),
    *("torch_dtype", "transformers.js_config", "transformers_version", "unk_token_id"),
    *("use_cache",),
}
KNOWN_KEYS = {
    *REQUIRED_KEYS,
    *WITHOUT_EFFECT,
    *("attention_bias", "head_dim", "layer_types", "mlp_bias", "rope_parameters", "rope_scaling"),
    *("rope_theta", "sliding_window", "use_mrope", "use_sliding_window"),
}


@dataclass(frozen=True)
class LlamaConfig:
    """The shape of a model, by the names of config.json.

    `biases` names the linear layers with a bias. `rotation` has the angle by which each position
    rotates each pair of a head's numbers, in radians: float32 [head_dim / 2].
    """

    hidden_size: int
    intermediate_size: int
    max_position_embeddings: int
    num_attention_heads: int
    num_hidden_layers: int
    num_key_value_heads: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    vocab_size: int
    head_dim: int
    biases: frozenset[str]
    normed_heads: bool
    rotation: torch.Tensor
    model_type: str
    eos_token_id: Any

    def get_text_config(self) -> "LlamaConfig":
        """Return the config itself, as transformers' configs of text-only models do."""
        return self


def read_config(config: Mapping[str, Any]) -> LlamaConfig | None:
    """Return the content of a config.json; None if it has anything that this code does not know."""
    model_type = computed_model_type(config, LLAMA_MODEL_TYPES)
    if model_type is None or set(config) - KNOWN_KEYS:
        return None
    if any(type(config.get(name)) is not required for name, required in REQUIRED_KEYS.items()):
        return None
    end_ids = config.get("eos_token_id")
    if any(type(i) is not int for i in (end_ids if isinstance(end_ids, list) else [end_ids or 0])):
        return None
    if config["hidden_act"] != "silu" or config.get("use_mrope"):
        return None
    if _has_sliding_window(model_type, config):
        return None
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    if min(heads, kv_heads, config["num_hidden_layers"]) < 1 or heads % kv_heads:
        return None
    size = config.get("head_dim") or config["hidden_size"] // heads
    rotation = _rotation(config, size) if type(size) is int and size > 0 and size % 2 == 0 else None
    if rotation is None:
        return None
    fields = {name: config[name] for name in REQUIRED_KEYS if name != "hidden_act"}
    return LlamaConfig(
        **fields,
        head_dim=size,
        biases=_biases(model_type, config),
        normed_heads=model_type == "qwen3",
        rotation=rotation,
        model_type=model_type,
        eos_token_id=end_ids,
    )


def _has_sliding_window(model_type: str, config: Mapping[str, Any]) -> bool:
    """Return whether a layer attends only to a limited number of tokens before."""
    if model_type == "mistral":  # has a window of 4096 if its config does not mention one
        return config.get("sliding_window", 4096) is not None
    kinds = config.get("layer_types") or []
    full = isinstance(kinds, list) and all(kind == "full_attention" for kind in kinds)
    return bool(config.get("use_sliding_window")) or not full


def _biases(model_type: str, config: Mapping[str, Any]) -> frozenset[str]:
    attention = {"q_proj", "k_proj", "v_proj"}
    if model_type == "qwen2":
        return frozenset(attention)
    biases = set[str]()
    if model_type != "mistral" and config.get("attention_bias"):
        biases |= attention | {"o_proj"}
    if model_type == "llama" and config.get("mlp_bias"):
        biases |= {"gate_proj", "up_proj", "down_proj"}
    return frozenset(biases)


def _rotation(config: Mapping[str, Any], size: int) -> torch.Tensor | None:
    """Return the angles of rotary position embeddings (Su et al. 2021), also those of Llama 3.1
    for long texts; None for any other kind."""
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(parameters, dict):
        return None
    rope = {"rope_theta": config.get("rope_theta"), "rope_type": "default", **parameters}
    base = rope["rope_theta"]
    if type(base) not in (int, float) or not 0 < base <= sys.float_info.max:
        return None
    if rope["rope_type"] == "default" and set(rope) == {"rope_theta", "rope_type"}:
        angles: torch.Tensor = 1.0 / (base ** (torch.arange(0, size, 2, dtype=torch.float) / size))
        return angles
    numbers = {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
    if rope["rope_type"] != "llama3" or set(rope) != {"rope_theta", "rope_type", *numbers}:
        return None
    if any(type(rope[name]) not in (int, float) or rope[name] <= 0 for name in numbers):
        return None
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    complete: Any = SimpleNamespace(
        head_dim=size, rope_parameters=rope, standardize_rope_params=lambda: None
    )
    angles = ROPE_INIT_FUNCTIONS["llama3"](complete)[0]
    return angles


def weight_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight by its name in a checkpoint."""
    hidden, width, size = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_attention_heads * size, config.num_key_value_heads * size
    linear = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (width, hidden),
        "mlp.up_proj": (width, hidden),
        "mlp.down_proj": (hidden, width),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    for i in range(config.num_hidden_layers):
        layer = f"model.layers.{i}."
        for name, shape in linear.items():
            shapes[f"{layer}{name}.weight"] = shape
            if name.split(".")[1] in config.biases:
                shapes[f"{layer}{name}.bias"] = shape[:1]
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}{name}.weight"] = (hidden,)
        if config.normed_heads:
            for name in ("q_norm", "k_norm"):
                shapes[f"{layer}self_attn.{name}.weight"] = (size,)
    return shapes

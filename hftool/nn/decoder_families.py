"""The families of decoders that `hftool.nn.decoder` computes.

A family is described by the settings that transformers' classes for it read, with their defaults,
and by a few traits. Any other setting in a config.json has no effect there, and has none here; a
test compares the settings with the installed version of transformers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SIZES = (
    *("head_dim", "hidden_size", "intermediate_size", "max_position_embeddings"),
    *("num_attention_heads", "num_hidden_layers", "num_key_value_heads", "vocab_size"),
)
KINDS = ("full_attention", "sliding_attention")  # of layers


@dataclass(frozen=True)
class Family:
    """What the decoders of a family have in common.

    `biases` names linear layers that always have one; with `attention_bias` and `mlp_bias` in
    their settings all of the block have. `fused` weights are one matrix for queries, keys and
    values, and one for gate and up. `normed_heads` norms queries and keys. `gemma` norms multiply
    by one more than their weight, in float32, and come after a block as well as before.
    """

    settings: Mapping[str, Any]
    biases: tuple[str, ...] = ()
    fused: bool = False
    normed_heads: bool = False
    gemma: bool = False


# The values that transformers' configurations have where a config.json has none.
COMMON = {
    "head_dim": None,
    "hidden_act": "silu",
    "num_key_value_heads": None,
    "rms_norm_eps": 1e-6,
    "rope_parameters": None,
    "tie_word_embeddings": False,
}
QWEN = {
    **COMMON,
    **{"layer_types": None, "max_position_embeddings": 32768, "max_window_layers": 28},
    **{"num_key_value_heads": 32, "sliding_window": 4096, "use_sliding_window": False},
}
FAMILIES = {
    "gemma3_text": Family(
        {
            **COMMON,
            **{"attention_bias": False, "attn_logit_softcapping": None, "head_dim": 256},
            **{"final_logit_softcapping": None, "hidden_activation": "gelu_pytorch_tanh"},
            **{"layer_types": None, "max_position_embeddings": 131072, "num_attention_heads": 8},
            **{"num_key_value_heads": 4, "query_pre_attn_scalar": 256, "sliding_window": 4096},
            **{"tie_word_embeddings": True, "use_bidirectional_attention": False},
            **{"vocab_size": 262208, "intermediate_size": 9216, "num_hidden_layers": 26},
            "hidden_size": 2304,
        },
        normed_heads=True,
        gemma=True,
    ),
    "llama": Family(
        {**COMMON, "attention_bias": False, "max_position_embeddings": 2048, "mlp_bias": False}
    ),
    "mistral": Family(
        {
            **COMMON,
            **{"max_position_embeddings": 131072, "num_key_value_heads": 8},
            "sliding_window": 4096,
        }
    ),
    "phi3": Family(
        {
            **COMMON,
            **{"max_position_embeddings": 4096, "original_max_position_embeddings": 4096},
            **{"rms_norm_eps": 1e-5, "sliding_window": None},
        },
        fused=True,
    ),
    "qwen2": Family(QWEN, biases=("q_proj", "k_proj", "v_proj")),
    "qwen3": Family({**QWEN, "attention_bias": False, "head_dim": 128}, normed_heads=True),
    "smollm3": Family(
        {
            **COMMON,
            **{"attention_bias": False, "layer_types": None, "max_position_embeddings": 32768},
            **{"mlp_bias": False, "no_rope_layer_interval": 4, "no_rope_layers": None},
            **{"num_key_value_heads": 4, "sliding_window": None, "tie_word_embeddings": True},
            "use_sliding_window": False,
        }
    ),
}

"""Complete the configuration that transformers reads from a GGUF file.

transformers passes over what it has no name for: here each setting and each tensor of the file
reaches the configuration, or is an error. What the settings mean is in
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and in llama.cpp.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hftool.models.gguf_reader import GgufHeader

# Settings by their name without the architecture, and the names that configurations have for them.
ATTRIBUTES: Mapping[str, Sequence[str]] = {
    "attention.head_count": ("num_attention_heads", "n_head"),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.key_length": ("global_head_dim", "head_dim", "d_kv"),
    "attention.key_length_swa": ("head_dim",),
    "attention.layer_norm_epsilon": (
        *("layer_norm_eps", "norm_epsilon", "layer_norm_epsilon", "norm_eps"),
    ),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps", "layer_norm_epsilon"),
    "attention.shared_kv_layers": ("num_kv_shared_layers",),
    "attention.relative_buckets_count": ("relative_attention_num_buckets",),
    "attention.sliding_window": ("sliding_window",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "block_count": ("num_hidden_layers", "n_layer", "num_layers"),
    "context_length": ("max_position_embeddings", "n_positions"),
    "decoder_block_count": ("num_decoder_layers",),
    "decoder_start_token_id": ("decoder_start_token_id",),
    "embedding_length": ("hidden_size", "n_embd", "d_model"),
    "embedding_length_per_layer_input": ("hidden_size_per_layer_input",),
    "expert_count": ("num_experts", "num_local_experts"),
    "expert_feed_forward_length": ("moe_intermediate_size", "intermediate_size"),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size",),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_weights_norm": ("norm_topk_prob",),
    "feed_forward_length": ("intermediate_size", "n_inner", "d_ff"),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "ssm.conv_kernel": ("conv_kernel",),
    "ssm.inner_size": ("intermediate_size",),
    "ssm.state_size": ("state_size",),
    "ssm.time_step_rank": ("time_step_rank",),
    "vocab_size": ("vocab_size",),
}
# Settings that `complete_config` reads below.
OF_ROPE = {
    *("rope.dimension_count", "rope.freq_base", "rope.freq_base_swa", "rope.scale_linear"),
    *("rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length"),
    *("rope.scaling.attn_factor", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"),
}
WITHOUT_EFFECT = {
    *("attention.value_length", "attention.value_length_swa", "rope.scaling.finetuned"),
    *("rope.dimension_count_swa", "tensor_data_layout"),
    *("use_parallel_residual", "attention.sliding_window_pattern"),  # read elsewhere
}
# Settings that have no effect with this value.
NEUTRAL = {
    "attention.causal": True,
    "attention.clamp_kqv": 0.0,
    "attention.max_alibi_bias": 0.0,
    "attention.scale": 0.0,
    "expert_count": 0,
    "expert_used_count": 0,
    "expert_weights_scale": 1.0,
    "leading_dense_block_count": 0,
    "logit_scale": 1.0,
    "embedding_scale": 1.0,
    "pooling_type": 0,
    "residual_scale": 1.0,
    "rope.scaling.yarn_ext_factor": 1.0,
    "rope.scaling.yarn_attn_factor": 1.0,
    "ssm.dt_b_c_rms": False,
}
ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
# Layers of Gemma 2 27B and Gemma 3 27B, whose queries are scaled by another size than heads have.
SCALED_BY_WIDTH = {"gemma2": 46, "gemma3_text": 62}
SIGMOID, SOFTMAX = 2, 1  # how a router's scores are made
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3_CONTEXT = 8192  # of the models before their context was extended


def complete_config(
    config: Any,
    metadata: Mapping[str, Any],
    names: Sequence[str],
    rows: int | None,
    factors: Mapping[str, Sequence[float]],
) -> None:
    """Give a configuration what transformers leaves out.

    Args:
        config: transformers' configuration of the file.
        metadata: the file's settings.
        names: its tensors.
        rows: the number of rows of the embedding, None if it is not in the file.
        factors: the numbers in those of ROPE_TENSORS that it has.

    Raises:
        ValueError: a setting has no place in the configuration.
    """
    from transformers.integrations.gguf.gguf_config_mapping import GGUF_CONFIG_ARCHS

    architecture = metadata["general.architecture"]
    settings = {
        name.removeprefix(f"{architecture}."): value
        for name, value in metadata.items()
        if name.startswith(f"{architecture}.")
    }
    if architecture in GGUF_CONFIG_ARCHS:  # transformers reads all of their settings
        return
    text = config.get_text_config()
    text.vocab_size = rows or text.vocab_size
    for name, value in settings.items():
        _set(text, architecture, name, value)
    for role in ("bos", "eos", "padding"):  # else they are those of the class's first model
        if f"tokenizer.ggml.{role}_token_id" not in metadata:
            setattr(text, f"{role[:3]}_token_id", None)
    _set_layer_types(text, settings)
    _set_biases(text, names)
    _set_unstated(text, names)
    _set_rope(text, settings, factors)


def _set(config: Any, architecture: str, name: str, value: Any) -> None:
    if name in OF_ROPE or name in WITHOUT_EFFECT or NEUTRAL.get(name) == value:
        return
    if isinstance(value, list) and len(set(value)) == 1:  # by layer
        (value,) = set(value)
    for attribute in ATTRIBUTES.get(name, ()):
        if hasattr(config, attribute) and not isinstance(value, list):
            setattr(config, attribute, value)
            return
    heads, hidden = (getattr(config, n, 0) for n in ("num_attention_heads", "hidden_size"))
    implied = {
        "attention.head_count": 0,  # of a model without attention
        "attention.head_count_kv": heads,
        "attention.key_length": hidden // heads if heads else 0,
        "expert_gating_func": SIGMOID if architecture == "minimax-m2" else SOFTMAX,
        "context_length": value,  # a model without positions has no limit
        "feed_forward_length": 4 * hidden,
    }
    if name in implied and value in (0, implied[name]):
        return
    raise ValueError(
        f"it has the setting {architecture}.{name} = {str(value)[:40]}, for which its model has no"
        " place in transformers"
    )


def _set_layer_types(config: Any, settings: Mapping[str, Any]) -> None:
    """Take over which layers have a sliding window: every so many have none, or a list."""
    pattern = settings.get("attention.sliding_window_pattern")
    if pattern is None or not hasattr(config, "layer_types"):
        return
    layers = range(config.num_hidden_layers)
    sliding = (
        [bool(pattern[i]) for i in layers]
        if isinstance(pattern, list)
        else [(i + 1) % pattern != 0 for i in layers]
    )
    config.layer_types = ["sliding_attention" if is_so else "full_attention" for is_so in sliding]


def _set_biases(config: Any, names: Sequence[str]) -> None:
    for attribute, layers in (("attention_bias", "attn_"), ("mlp_bias", "ffn_")):
        if hasattr(config, attribute):
            parts = [n.split(".") for n in names if n.startswith("blk.") and n.endswith(".bias")]
            biased = any(p[2].startswith(layers) and "norm" not in p[2] for p in parts)
            setattr(config, attribute, biased)


def _set_unstated(config: Any, names: Sequence[str]) -> None:
    """Set what no file states: llama.cpp takes it from the layers that a file has."""
    if config.model_type in SCALED_BY_WIDTH:
        is_largest = config.num_hidden_layers == SCALED_BY_WIDTH[config.model_type]
        width = config.hidden_size // config.num_attention_heads
        config.query_pre_attn_scalar = width if is_largest else config.head_dim
    if config.model_type == "t5":  # those with a gate are T5 1.1 and FLAN-T5
        config.is_gated_act = any(".ffn_gate." in name for name in names)
        config.feed_forward_proj = "gated-gelu" if config.is_gated_act else "relu"
        config.dense_act_fn = "gelu_new" if config.is_gated_act else "relu"


def _set_rope(
    config: Any, settings: Mapping[str, Any], factors: Mapping[str, Sequence[float]]
) -> None:
    """Take over the base, the scaling and the share of rotary position embeddings.

    Raises:
        ValueError: the kind of scaling is not known.
    """
    given = getattr(config, "rope_parameters", None)
    if not given:
        if any(name.startswith("rope.scaling.") for name in settings) or factors:
            raise ValueError("it scales rotary embeddings, which its model does not have")
        return
    layered = given if all(isinstance(value, dict) for value in given.values()) else None
    rope = dict(layered["full_attention"] if layered else given)
    if base := settings.get("rope.freq_base"):
        rope["rope_theta"] = base
    head = getattr(config, "global_head_dim", None) or getattr(config, "head_dim", None)
    head = head or config.hidden_size // config.num_attention_heads
    rotated = settings.get("rope.dimension_count", head)
    if rotated != head:
        if "partial_rotary_factor" not in rope:
            raise ValueError(f"it rotates {rotated} of each head's {head} numbers, its model all")
        rope["partial_rotary_factor"] = rotated / head
    if rope["rope_type"] == "proportional":  # Gemma 4's; the others of its factors are infinite
        turning = [factor == 1.0 for factor in factors.get("rope_freqs.weight", ())]
        if turning:
            rope["partial_rotary_factor"] = sum(turning) / len(turning)
    else:
        rope |= _scaling(config, settings, rope["rope_theta"], rotated, factors)
    if not layered:
        config.rope_parameters = rope
        return
    config.rope_parameters = {**layered, "full_attention": rope}
    if local := settings.get("rope.freq_base_swa"):
        config.rope_parameters["sliding_attention"] = {
            **layered["sliding_attention"],
            "rope_theta": local,
        }


def _scaling(
    config: Any,
    settings: Mapping[str, Any],
    base: float,
    rotated: int,
    factors: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    context = settings.get("context_length", config.max_position_embeddings)
    original = settings.get("rope.scaling.original_context_length")
    attention = settings.get("rope.scaling.attn_factor")
    factor = settings.get("rope.scaling.factor") or settings.get("rope.scale_linear") or 1.0
    kind = settings.get("rope.scaling.type") or ("linear" if factor != 1.0 else "none")
    if long := factors.get("rope_factors_long.weight"):
        config.original_max_position_embeddings = original or context
        return {
            "rope_type": "longrope",
            "short_factor": list(factors.get("rope_factors_short.weight") or long),
            "long_factor": list(long),
            "original_max_position_embeddings": original or context,
            **({"attention_factor": attention} if attention is not None else {}),
        }
    if frequencies := factors.get("rope_freqs.weight"):
        if kind not in ("none", "llama3"):
            raise ValueError(f"it scales rotary embeddings twice: rope_freqs.weight and '{kind}'")
        return _of_frequencies(frequencies, base, rotated, original)
    if kind in ("none", "longrope"):
        return {"rope_type": "default"}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind != "yarn":
        raise ValueError(f"it scales rotary embeddings as '{kind}', which hftool does not know")
    yarn = {"rope_type": "yarn", "factor": factor}
    yarn["original_max_position_embeddings"] = original or int(context / factor)
    if attention is not None:
        yarn["attention_factor"] = attention * (0.1 * math.log(factor) + 1)
    for name in ("beta_fast", "beta_slow"):
        if (value := settings.get(f"rope.scaling.yarn_{name}")) is not None:
            yarn[name] = value
    return yarn


def _of_frequencies(
    factors: Sequence[float], base: float, rotated: int, original: int | None
) -> dict[str, Any]:
    """Return the scaling that divides each frequency by a factor: Llama 3's if it has these
    factors, else the same factors for every length."""
    llama3 = {
        "rope_type": "llama3",
        "factor": float(max(factors)),
        "original_max_position_embeddings": original or LLAMA3_CONTEXT,
        **LLAMA3,
    }
    pairs = zip(factors, _llama3_factors(llama3, base, rotated), strict=False)
    if all(math.isclose(ours, theirs, rel_tol=1e-4) for ours, theirs in pairs):
        return llama3
    return {
        "rope_type": "longrope",
        "short_factor": list(factors),
        "long_factor": list(factors),
        "original_max_position_embeddings": original or LLAMA3_CONTEXT,
        "attention_factor": 1.0,
    }


def _llama3_factors(rope: Mapping[str, Any], base: float, rotated: int) -> Iterator[float]:
    """Yield the factor of each frequency; as in transformers' `_compute_llama3_parameters`."""
    context, low, high = (
        rope["original_max_position_embeddings"],
        rope["low_freq_factor"],
        rope["high_freq_factor"],
    )
    for i in range(0, rotated, 2):
        turns = context / (2 * math.pi * base ** (i / rotated))
        smooth = min(max((turns - low) / (high - low), 0.0), 1.0)
        yield 1 / ((1 - smooth) / rope["factor"] + smooth)


def unused_tensors(model: Any, header: GgufHeader) -> set[str]:
    """Return the tensors of a file that transformers does not put into a model.

    It skips those without a name in the model; here they are found by its own table of names.
    """
    from transformers.integrations.gguf.gguf_conversion_mapping import GGUF_ARCHS
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    architecture = header.metadata["general.architecture"]
    names = {tensor.name for tensor in header.tensors}
    if architecture in GGUF_ARCHS:  # what is left over there, transformers reports as unexpected
        return set()
    create: Any = TENSOR_PROCESSORS.get(architecture, TensorProcessor)
    used = set(get_gguf_hf_weights_map(model, create(config=model.config.to_dict())))
    used |= {f"{name.removesuffix('.weight')}.weight" for name in used}  # experts have no suffix
    tied = {"output.weight"} if model.config.get_text_config().tie_word_embeddings else set()
    derived = {name for name in names if name.endswith("attn_rot_embd.inv_freq")}
    return names - used - tied - derived - set(ROPE_TENSORS)

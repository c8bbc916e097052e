"""Tiny models of every architecture that the installed transformers makes text with.

The weights are random and large, so that a wrong position, mask or cache changes the text: with the
usual small ones a model says the same whatever comes before. A tokenizer of bytes goes with each
model, whose ids are those of the bytes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

Task = Literal["causal", "image-text", "encoder-decoder", "masked"]

# The auto class of each task, and transformers' table of its architectures.
AUTO_CLASSES: dict[Task, tuple[str, str]] = {
    "causal": ("AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"),
    "image-text": (
        "AutoModelForImageTextToText",
        "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    ),
    "encoder-decoder": (
        "AutoModelForSeq2SeqLM",
        "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    ),
    "masked": ("AutoModelForMaskedLM", "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),
}

SPECIAL = ("<s>", "</s>", "<pad>", "<mask>", "<unk>", "<image>", "<sep>", "<cls>")
BOS, EOS, PAD, MASK, UNK, IMAGE, SEP, CLS = range(256, 256 + len(SPECIAL))
VOCABULARY = 272
HIDDEN = 64
HEADS = 4
CONTEXT = 1024
LARGEST = 250_000_000  # numbers; more take too long

# Sizes by the names that configurations give them.
SIZES: dict[str, int] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embed_dim"), HIDDEN),
    **dict.fromkeys(("embedding_size", "input_embedding_size", "output_embedding_size"), HIDDEN),
    **dict.fromkeys(("encoder_hidden_size", "decoder_hidden_size", "out_hidden_size"), HIDDEN),
    **dict.fromkeys(("text_hidden_size", "vision_hidden_size", "hidden_dim"), HIDDEN),
    **dict.fromkeys(("projection_dim", "projection_hidden_size", "output_dim"), HIDDEN),
    **dict.fromkeys(("projector_hidden_size", "projector_input_dim", "mm_embed_dim"), HIDDEN),
    **dict.fromkeys(("projector_output_dim", "projection_hidden_dim"), HIDDEN),
    **dict.fromkeys(("backbone_hidden_size", "image_token_embed_dim", "audio_embed_dim"), HIDDEN),
    **dict.fromkeys(("output_proj_dims", "router_hidden_size", "attention_hidden_size"), HIDDEN),
    **dict.fromkeys(("hidden_size_global", "lru_width", "audio_hidden_size"), HIDDEN),
    **dict.fromkeys(("true_hidden_size", "pronunciation_embed_dim", "shape_embed_dim"), HIDDEN),
    **dict.fromkeys(("intermediate_size", "moe_intermediate_size", "n_inner", "d_inner"), 96),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim", "d_ff", "dff"), 96),
    **dict.fromkeys(("ffn_hidden_size", "expert_ffn_hidden_size", "feed_forward_size"), 96),
    **dict.fromkeys(("shared_expert_intermediate_size", "moe_hidden_size", "dim_ff"), 96),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "share_expert_dim"), 96),
    **dict.fromkeys(("dense_intermediate_size", "shared_intermediate_size", "mlp_dim"), 96),
    **dict.fromkeys(("intermediate_size_mlp", "projection_intermediate_size"), 96),
    **dict.fromkeys(("shared_experts_intermediate_size", "alignment_intermediate_size"), 96),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_encoder_layers", "depth"), 2),
    **dict.fromkeys(("num_decoder_layers", "num_blocks", "speech_encoder_layers"), 2),
    **dict.fromkeys(("t2u_encoder_layers", "t2u_decoder_layers", "num_global_layers"), 1),
    **dict.fromkeys(("resampler_depth", "aligner_num_add_layers", "num_lstm_layers"), 1),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads"), HEADS),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), HEADS),
    **dict.fromkeys(("num_encoder_attention_heads", "num_decoder_attention_heads"), HEADS),
    **dict.fromkeys(("attention_heads", "speech_encoder_attention_heads"), HEADS),
    **dict.fromkeys(("swa_num_attention_heads", "conf_num_attention_heads"), HEADS),
    **dict.fromkeys(("t2u_encoder_attention_heads", "t2u_decoder_attention_heads"), HEADS),
    **dict.fromkeys(("encoder_ffn", "speech_encoder_intermediate_size"), 96),
    **dict.fromkeys(("t2u_encoder_ffn_dim", "t2u_decoder_ffn_dim"), 96),
    **dict.fromkeys(("num_key_value_heads", "swa_num_key_value_heads"), 2),
    **dict.fromkeys(("num_self_attention_heads", "num_cross_attention_heads"), HEADS),
    **dict.fromkeys(("head_dim", "swa_head_dim", "d_kv", "d_head", "kv_channels", "dim_head"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "index_head_dim"), 16),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"), 16),
    **dict.fromkeys(("attention_head_size", "global_head_dim", "rotary_dim"), 16),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "linear_num_heads"), HEADS),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank"), 32),
    **dict.fromkeys(("index_n_heads", "o_groups"), 4),
    "index_topk": 16,
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts"), 8),
    **dict.fromkeys(("moe_num_experts", "zero_expert_num"), 8),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "topk_group", "n_group"), 2),
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "src_vocab_size"), VOCABULARY),
    **dict.fromkeys(("tgt_vocab_size", "unpadded_vocab_size", "t2u_vocab_size"), VOCABULARY),
    **dict.fromkeys(("char_vocab_size", "audio_vocab_size", "encoder_hash_byte"), VOCABULARY),
    **dict.fromkeys(("entity_vocab_size", "pronunciation_vocab_size", "shape_vocab_size"), 272),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), CONTEXT),
    **dict.fromkeys(("max_seq_len", "max_target_positions", "context_length"), CONTEXT),
    **dict.fromkeys(("max_encoder_position_embeddings", "t2u_max_position_embeddings"), CONTEXT),
    **dict.fromkeys(("max_decoder_position_embeddings",), CONTEXT),
    **dict.fromkeys(("sliding_window", "attention_window_size", "sliding_window_size"), 16),
    **dict.fromkeys(("local_attention", "local_attention_window_len"), 16),
    "attention_chunk_size": 16,
    "sliding_window_pattern": 2,
    **dict.fromkeys(("hidden_size_per_layer_input", "laurel_rank", "prediction_head_size"), 16),
    **dict.fromkeys(("mamba_d_state", "state_size", "ssm_state_size"), 16),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 8),
    **dict.fromkeys(("mamba_head_dim", "mamba_d_head"), 16),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size"), 16),
    "mamba_d_ssm": 128,
    "query_pre_attn_scalar": 16,
    **dict.fromkeys(("image_size", "crop_size", "resolution"), 32),
    "patch_size": 16,
    **dict.fromkeys(("num_position_embeddings", "position_embedding_size"), 16),
    **dict.fromkeys(("latent_query_num", "num_query_tokens", "resampler_n_latents"), 4),
    **dict.fromkeys(("num_mel_bins", "n_mel_bins", "adapter_rank"), 16),
    "encoder_hash_byte_group_vocab": 500,
    "ngram_vocab_size_base": 500,
    "num_centroids": 32,
    "centroid_intermediate_top_k": 4,
    "max_source_positions": CONTEXT,
    "num_embeddings": 64,
    "codebook_size": 64,
    "shared_expert_num": 1,
}
# Sizes that a configuration may leave out (None), and then derives from others.
DERIVED = ("head_dim", "num_key_value_heads", "n_inner", "d_inner", "lru_width", "rotary_dim")
TOKEN_IDS = {
    **dict.fromkeys(("bos_token_id", "bos_index"), BOS),
    **dict.fromkeys(("eos_token_id", "eos_index", "eod_token_id"), EOS),
    **dict.fromkeys(("pad_token_id", "pad_index"), PAD),
    **dict.fromkeys(("mask_token_id", "mask_index"), MASK),
    **dict.fromkeys(("unk_token_id", "unk_index"), UNK),
    "sep_token_id": SEP,
    "cls_token_id": CLS,
    "decoder_start_token_id": BOS,
    "forced_eos_token_id": None,
    "forced_bos_token_id": None,
}


@dataclass(frozen=True)
class Architecture:
    """A model type that transformers maps to a class for a task."""

    task: Task
    model_type: str
    class_name: str


def architectures(tasks: tuple[Task, ...] = tuple(AUTO_CLASSES)) -> Iterator[Architecture]:
    """Yield what the installed transformers maps to each task's class."""
    from transformers.models.auto import modeling_auto

    seq2seq = modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    for task in tasks:
        for model_type, name in getattr(modeling_auto, AUTO_CLASSES[task][1]).items():
            if task != "masked" or seq2seq.get(model_type) != name:
                yield Architecture(task, model_type, name)


def tiny_config(architecture: Architecture) -> Any:
    """Return a configuration of an architecture with all its sizes small."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[architecture.model_type]
    config = config_class(**tiny_values(config_class))
    if architecture.task == "causal" and hasattr(config, "is_decoder"):
        config.is_decoder = True  # otherwise BERT and related models are masked ones
    return config


def tiny_values(config_class: Any, given: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the arguments that make a configuration small, nested ones included."""
    values = dict(given or {})
    subs = config_class.sub_configs_defaults
    for name, default in {**config_class.default_config_fields(), **values}.items():
        if name in TOKEN_IDS:
            values[name] = TOKEN_IDS[name]
        elif name.endswith(("_token_id", "_token_index")) and type(default) is int:
            values[name] = IMAGE
        elif name in SIZES and (type(default) is int or (default is None and name in DERIVED)):
            values[name] = SIZES[name]
    if "kv_lora_rank" in values and "num_key_value_heads" in values:
        values["num_key_value_heads"] = HEADS  # multi-head latent attention shares no heads
    values.update(_layer_kinds(config_class))
    for name, spec in subs.items():
        sub = _sub_class(spec)
        if sub is not None:
            values[name] = {**tiny_values(sub, spec.init_kwargs), "model_type": sub.model_type}
    values.update(OVERRIDES.get(config_class.model_type, {}))
    return values


def _layer_kinds(config_class: Any) -> dict[str, Any]:
    """Return a list of layers with one of each kind that the default configuration has."""
    try:
        full = config_class()
    except Exception:  # some have no defaults
        return {}
    found: dict[str, Any] = {}
    for name in ("layer_types", "layers_block_type", "mlp_layer_types", "block_types"):
        kinds = getattr(full, name, None)
        attribute = config_class.attribute_map.get(name, name)
        if isinstance(getattr(config_class, attribute, None), property):
            continue
        if isinstance(kinds, list | tuple) and kinds and all(isinstance(k, str) for k in kinds):
            found[attribute] = list(dict.fromkeys(kinds))
    most = max([2, *map(len, found.values())])
    if not found:
        return {}
    lists = {name: [kinds[i % len(kinds)] for i in range(most)] for name, kinds in found.items()}
    return {**lists, "num_hidden_layers": most}


def _sub_class(spec: Any) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if hasattr(spec.config_class, "default_config_fields"):
        if spec.config_class.model_type or spec.model_type not in CONFIG_MAPPING:
            return spec.config_class
    return CONFIG_MAPPING[spec.model_type] if spec.model_type in CONFIG_MAPPING else None


# What the names do not tell, by model type.
_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
_GEMMA_KINDS = ["sliding_attention", "full_attention"]
_SHARED: dict[str, Any] = {
    "layer_types": _GEMMA_KINDS * 2,
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
}
OVERRIDES: dict[str, dict[str, Any]] = {
    **{
        f"{name}_text": {"rope_parameters": _MROPE}
        for name in ("qwen2_vl", "qwen2_5_vl", "qwen2_5_omni", "glm4v", "glm_ocr", "paddleocr_vl")
    },
    "glm4v_moe_text": {
        "rope_parameters": {**_MROPE, "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
    },
    "chameleon": {"vocabulary_map": {"<image>": IMAGE}},
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense", "sparse"], "num_experts_per_tok": 2},
    "diffusion_gemma_text": {"num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 96},
    "emu3": {"vocabulary_map": {"<image>": IMAGE}},
    "qwen2_5_omni_thinker": {"vision_start_token_id": IMAGE},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": IMAGE},
    "step3p5": {"sliding_window": 16},
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {
        "rope_parameters": {k: dict(_MROPE) for k in ("sliding_attention", "full_attention")}
    },
    "cosmos3_edge_text": {"rope_parameters": _MROPE},
    "cosmos3_omni_text": {"rope_parameters": _MROPE},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0}},
    "dots1": {"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "deepseek_v2": {"num_experts_per_tok": 2, "topk_group": 1, "n_group": 1},
    "dots3_note_vision_encoder": {"adapter_in_dim": HIDDEN, "adapter_out_dim": HIDDEN},
    "dots3_note_audio_encoder": {"adapter_input_size": HIDDEN, "adapter_out_dim": HIDDEN},
    "dots3_note": {"num_key_value_heads": HEADS},
    "dots3_note_text": {"num_key_value_heads": HEADS},
    "ernie4_5_vl_moe_text": {"moe_layer_start_index": 1},
    "esm": {"vocab_size": VOCABULARY, "mask_token_id": MASK, "pad_token_id": PAD},
    "gemma3n_text": {**_SHARED, "activation_sparsity_pattern": [0.0] * 4},
    "gemma4_text": _SHARED,
    "gemma4_unified_text": _SHARED,
    "glm5_next_text": {"num_key_value_heads": HEADS, "qk_rope_head_dim": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "granite4_vision": {"deepstack_layer_map": [[-1, 0]], "downsample_rate": "1/2"},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "hunyuan_vl_text": {"head_dim": 16, "rope_parameters": _MROPE},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8},
    "minimax": {"layer_types": ["linear_attention", "full_attention"]},
    "ministral": {"head_dim": 16},
    "molmo2_adapter": {"vision_feature_layer": [0, 1]},
    "muse_spark_audio": {"num_hidden_layers": 4, "hidden_sizes": [16, 16, 32, 64]},
    "nemotron": {"num_key_value_heads": 2},
    "perceiver": {"d_latents": 64, "num_latents": 16, "num_self_attends_per_block": 2},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 32,
        "indexer_compress_ratio": 4,
    },
    "reformer": {
        "axial_pos_shape": [32, 32],
        "axial_pos_embds_dim": [32, 32],
        "attn_layers": ["local", "lsh"],
        "num_buckets": 8,
    },
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 6, "layers_block_type": ["linear_attention", "hybrid"] * 3},
    "zaya": {"num_experts_per_tok": 1},
}


def build(architecture: Architecture) -> Any:
    """Return a tiny model with large random weights, in evaluation mode.

    Raises: whatever its configuration or its class raises.
    """
    import transformers

    auto = getattr(transformers, AUTO_CLASSES[architecture.task][0])
    config = tiny_config(architecture)
    with torch.device("meta"):
        numbers = sum(p.numel() for p in auto.from_config(config).parameters())
    if numbers > LARGEST:
        raise ValueError(f"its smallest configuration has {numbers:,} numbers")
    torch.manual_seed(0)
    model = auto.from_config(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                embeds = "embed" in name or "wte" in name
                parameter.normal_(0, 1.0 if embeds else 0.15 if "head" in name else 0.12)
    return model


def save(architecture: Architecture, folder: Path) -> None:
    """Save a tiny model with its tokenizer in an empty folder.

    Raises: as `build`.
    """
    model = build(architecture)
    model.save_pretrained(folder)
    generation = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
    if model.config.is_encoder_decoder:
        generation["decoder_start_token_id"] = BOS
    (folder / "generation_config.json").write_text(json.dumps(generation))
    save_tokenizer(folder)


def save_tokenizer(folder: Path) -> None:
    """Save a tokenizer whose ids are those of the bytes, and the special tokens."""
    characters = byte_characters()
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(characters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = ("bos_token", "eos_token", "pad_token", "mask_token", "unk_token")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **dict(zip(names, SPECIAL, strict=False)),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def byte_characters() -> list[str]:
    """Return the character that stands for each byte in byte-level tokenizers, as GPT-2's."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in shown]
    others = {b: chr(256 + i) for i, b in enumerate(hidden)}
    return [chr(b) if b in shown else others[b] for b in range(256)]

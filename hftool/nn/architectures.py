"""What hftool knows about model families, by the names they have in config.json and GGUF files.

A new family is made known here; the code that uses a name imports it from here. Nothing in this
module imports torch.
"""

from collections.abc import Mapping
from typing import Any

from hftool.catalogue import Task

# Endings of the class names in config.json's `architectures`. `ForConditionalGeneration` is the
# ending of multimodal models that generate text, and of encoder-decoders, which don't qualify:
# their config.json has `is_encoder_decoder`.
CAUSAL_SUFFIXES = ("ForCausalLM", "LMHeadModel")
GENERATOR_SUFFIXES = (*CAUSAL_SUFFIXES, "ForConditionalGeneration")
CLASSIFIER_SUFFIX = "ForSequenceClassification"

# The architectures that `hftool.nn` computes without transformers, with the `model_type` that
# their config.json must have (`decoder_config.py` and `encoder.py` check everything else).
DECODER_MODEL_TYPES = {
    "Gemma3ForCausalLM": "gemma3_text",
    "Gemma3ForConditionalGeneration": "gemma3",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Phi3ForCausalLM": "phi3",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "SmolLM3ForCausalLM": "smollm3",
}
ENCODER_MODEL_TYPES = {
    "BertForSequenceClassification": "bert",
    "CamembertForSequenceClassification": "camembert",
    "DistilBertForSequenceClassification": "distilbert",
    "RobertaForSequenceClassification": "roberta",
    "XLMRobertaForSequenceClassification": "xlm-roberta",
}

# transformers' classes whose head reads only the first token of the last layer, and whose layers
# have their attention as a submodule `attention` (transformers 5.23, `modeling_*.py`): the rest of
# the last layer need not be computed for the other tokens.
FIRST_TOKEN_CLASSIFIERS = (
    "BertForSequenceClassification",
    "CamembertForSequenceClassification",
    "ElectraForSequenceClassification",
    "RobertaForSequenceClassification",
    "XLMRobertaForSequenceClassification",
)

# Model types whose result depends on padding although it is masked, through convolutions
# (CANINE, ConvBERT, MobileBERT, Nyströmformer), Fourier transforms (FNet), pooling (Funnel), or
# because the head reads the last position (XLNet).
PADDING_SENSITIVE = (
    "canine",
    "convbert",
    "fnet",
    "funnel",
    "mobilebert",
    "nystromformer",
    "xlnet",
)

# Model types whose caches in transformers give other results than one pass over all tokens: if a
# prompt is divided (Reformer, Unlimited-OCR), if its indexer finds equal scores (dots3), or always
# (Moshi).
UNRELIABLE_CACHE = ("dots3_note", "dots3_note_text", "moshi", "reformer", "unlimited_ocr")

# Model types whose beams are searched without a cache: transformers does not reorder the states of
# MiniMax's linear attention with them, and gives ProphetNet positions that it refuses.
UNORDERED_CACHE = ("minimax", "prophetnet")

# Model types that transformers lists among those that generate text, and that continue none.
OTHER_MODEL_TYPES = {
    "diffusion_gemma": "writes whole blocks of text by denoising them",
    "shieldgemma2": "judges images",
}

# Kinds of rotary embedding (`rope_type`) whose angles a forward pass changes by its own length
# (transformers, `dynamic_rope_update`), so that threads can't share such a model.
LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")

# Linear layers of a block that transformers' models call one after the other with the same input,
# in the order in which they call them: they can be computed as one product.
SHARED_INPUT_LAYERS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))

# The class of GPT-2's linear layers, which store their weight transposed: [inputs, outputs].
TRANSPOSED_LINEAR = "Conv1D"

# Kinds of rotary embedding that stretch the context by a `factor`.
STRETCHED_ROPE = ("dynamic", "linear", "yarn")

# The names that config.json gives to the same thing in different families.
CONTEXT_LENGTH_KEYS = (  # tokens; the others are those of GPT-2, DBRX, LED and Whisper
    *("max_position_embeddings", "n_positions", "max_seq_len"),
    *("max_decoder_position_embeddings", "max_target_positions"),
)
LAYER_COUNT_KEYS = (
    *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"),
    *("num_hidden_groups", "inner_group_num"),  # ALBERT's
)
HIDDEN_SIZE_KEYS = ("hidden_size", "n_embd", "d_model", "dim")
# Other sizes that a weight has in one of its dimensions.
DIMENSION_KEYS = (
    *("vocab_size", "intermediate_size", "n_inner", "num_attention_heads", "num_labels"),
    *("head_dim", "num_experts"),
)

# GGUF's metadata keys without the architecture in front ("llama.block_count"), and the same in
# config.json (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). `head_dim` is GGUF's
# `attention.key_length`, and the number of heads its `attention.head_count`.
GGUF_CONFIG_KEYS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "head_count": "num_attention_heads",
    "key_length": "head_dim",
    "expert_count": "num_experts",
}


class NotComputed(Exception):
    """A model has something that `hftool.nn` does not compute; the message completes "because"."""


def task_of(architecture: str) -> Task | None:
    """Return what a model of an architecture is for; None if its name does not tell."""
    if architecture.endswith(CLASSIFIER_SUFFIX):
        return "text-classification"
    return "text-generation" if architecture.endswith(CAUSAL_SUFFIXES) else None


def context_length(config: Mapping[str, Any]) -> int | None:
    """Return the maximum number of tokens of a model; None if its config has no limit.

    Where rotary embeddings are stretched it is the stretched length. Some configs have it as
    `max_position_embeddings`, others the length before.
    """
    if "relative_attention_num_buckets" in config:  # T5's `n_positions` is not a limit
        return None
    lengths = [config.get(name) for name in CONTEXT_LENGTH_KEYS]
    length = next((n for n in lengths if type(n) is int and n > 0), None)  # XLNet's has -1
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    # Gemma 3 stretches some of its layers, and its `max_position_embeddings` is all that it takes.
    if length is None or not isinstance(rope, Mapping) or "rope_local_base_freq" in config:
        return length
    factor = rope.get("factor")
    kind = rope.get("rope_type", rope.get("type"))
    if kind in STRETCHED_ROPE and isinstance(factor, int | float):
        return max(length, int((rope.get("original_max_position_embeddings") or length) * factor))
    return length


def computed_model_type(config: Mapping[str, Any], model_types: Mapping[str, str]) -> str | None:
    """Return the model type of a config.json that names one of the architectures in `model_types`,
    no other, and the model type that belongs to it; None for any other config."""
    for architecture, model_type in model_types.items():
        if config.get("architectures") == [architecture]:
            return model_type if config.get("model_type") == model_type else None
    return None


def named_architecture(config: Mapping[str, Any]) -> str:
    """Return what a config.json calls its architecture, for messages."""
    names = config.get("architectures")
    return ", ".join(map(str, names)) if isinstance(names, list) else "not named"

"""Read the config.json of a decoder, if `hftool.nn.decoder` can compute it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hftool.nn.architectures import (
    DECODER_MODEL_TYPES,
    NotComputed,
    computed_model_type,
    named_architecture,
)
from hftool.nn.decoder_families import FAMILIES, KINDS, SIZES, Family
from hftool.nn.rotary import Rope, read_ropes

Settings = Mapping[str, Any]
Activation = Literal["silu", "gelu_pytorch_tanh"]

# Settings of any model that change what transformers computes.
NOT_COMPUTED = (
    *("attention_chunk_size", "attn_implementation", "_attn_implementation", "fusion_config"),
    *("kv_sharing_modes", "output_attentions", "per_layer_config", "pruned_heads"),
    *("quantization", "quantization_config", "transformers_weights"),
)


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a model, by the names of config.json.

    `biases` names the linear layers with a bias, `windows` has the number of last tokens that each
    layer attends to (None: all), and `ropes` its position embeddings (None: none). `scaling` is a
    factor of the products of queries and keys, `embedding_scale` one of embeddings.
    """

    hidden_size: int
    intermediate_size: int
    max_position_embeddings: int
    num_attention_heads: int
    num_hidden_layers: int
    num_key_value_heads: int
    vocab_size: int
    head_dim: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    activation: Activation
    biases: frozenset[str]
    windows: tuple[int | None, ...]
    ropes: tuple[Rope | None, ...]
    scaling: float
    embedding_scale: float | None
    logit_cap: float | None
    family: Family = field(repr=False)
    rope_parameters: dict[str, Any] = field(repr=False)
    model_type: str
    eos_token_id: Any

    def get_text_config(self, decoder: bool = False) -> "DecoderConfig":
        """Return the config itself, as transformers' configs of text-only models do."""
        return self


def text_part(config: Settings) -> Settings:
    """Return the part of a multimodal model's config.json that is about text; the whole of any
    other one."""
    text = config.get("text_config")
    if not isinstance(text, dict):
        return config
    whole = {name: config[name] for name in NOT_COMPUTED if name in config}
    if config.get("eos_token_id") is not None:
        whole["eos_token_id"] = config["eos_token_id"]
    return {**text, **whole}


def read_config(config: Settings) -> DecoderConfig:
    """Return the content of a config.json.

    Raises:
        NotComputed: it has anything that this code does not compute.
    """
    model_type = computed_model_type(config, DECODER_MODEL_TYPES)
    if model_type is None:
        raise NotComputed(f"its architecture is {named_architecture(config)}")
    whole, config = config, text_part(config)
    model_type = "gemma3_text" if config is not whole else model_type
    family = FAMILIES[model_type]
    if name := next((n for n in NOT_COMPUTED if config.get(n)), None):
        raise NotComputed(f"its config.json has {name}")
    if config.get("is_causal", True) is not True:
        raise NotComputed("it is not causal")
    settings: dict[str, Any] = {**family.settings, **config}
    _complete(settings)
    _require_known(settings, family, multimodal=config is not whole)
    ropes, parameters = read_ropes(settings, config, model_type)
    scalar = settings["query_pre_attn_scalar"] if family.gemma else settings["head_dim"]
    windows = _windows(settings, model_type)
    return DecoderConfig(
        **{name: settings[name] for name in (*SIZES, "rms_norm_eps", "tie_word_embeddings")},
        activation=_activation(settings, family),
        biases=_biases(settings, family),
        windows=windows,
        ropes=tuple(_by_layer(ropes, windows, settings, model_type)),
        scaling=scalar**-0.5,
        embedding_scale=settings["hidden_size"] ** 0.5 if family.gemma else None,
        logit_cap=settings.get("final_logit_softcapping") if family.gemma else None,
        family=family,
        rope_parameters=parameters,
        model_type=model_type,
        eos_token_id=settings.get("eos_token_id"),
    )


def _complete(settings: dict[str, Any]) -> None:
    """Set what depends on other settings, and check that sizes are numbers that fit together."""
    heads, hidden = settings.get("num_attention_heads"), settings.get("hidden_size")
    if type(heads) is int and type(hidden) is int and heads > 0:
        settings["num_key_value_heads"] = settings["num_key_value_heads"] or heads
        settings["head_dim"] = settings["head_dim"] or hidden // heads
    for name in SIZES:
        if type(settings.get(name)) is not int or settings[name] < 1:
            raise NotComputed(f"its {name} is {settings.get(name)!r}")
    if settings["num_attention_heads"] % settings["num_key_value_heads"] or (
        settings["head_dim"] % 2
    ):
        raise NotComputed("its numbers of heads do not fit together")


def _require_known(settings: Settings, family: Family, *, multimodal: bool) -> None:
    """Raise for values that this code does not compute.

    Raises:
        NotComputed: with the name.
    """
    types = {"rms_norm_eps": float, "tie_word_embeddings": bool}
    for name, required in types.items():
        if type(settings[name]) is not required:
            raise NotComputed(f"its {name} is {settings[name]!r}")
    for name in ("attn_logit_softcapping", "use_bidirectional_attention"):
        if settings.get(name):
            raise NotComputed(f"it has {name}")
    cap = settings.get("final_logit_softcapping")
    if family.gemma and cap is not None and (multimodal or type(cap) not in (int, float)):
        raise NotComputed("it has final_logit_softcapping")
    ends = settings.get("eos_token_id")
    if any(type(i) is not int for i in (ends if isinstance(ends, list) else [ends or 0])):
        raise NotComputed(f"its eos_token_id is {ends!r}")


def _activation(settings: Settings, family: Family) -> Activation:
    name = settings["hidden_activation" if family.gemma else "hidden_act"]
    if name == "silu":
        return "silu"
    if name == "gelu_pytorch_tanh":
        return "gelu_pytorch_tanh"
    raise NotComputed(f"its activation is {name!r}")


def _biases(settings: Settings, family: Family) -> frozenset[str]:
    biases = {*family.biases}
    if "attention_bias" in family.settings and settings["attention_bias"]:
        biases |= {"q_proj", "k_proj", "v_proj", "o_proj"}
    if "mlp_bias" in family.settings and settings["mlp_bias"]:
        biases |= {"gate_proj", "up_proj", "down_proj"}
    return frozenset(biases)


def _windows(settings: Settings, model_type: str) -> tuple[int | None, ...]:
    """Return the number of last tokens that each layer attends to, None for all."""
    layers: int = settings["num_hidden_layers"]
    window: int | None = settings.get("sliding_window")
    known = FAMILIES[model_type].settings
    if "sliding_window" not in known:
        kinds = settings.get("layer_types") or ["full_attention"]
        if window or not isinstance(kinds, list) or set(kinds) != {"full_attention"}:
            raise NotComputed("it has a sliding window, which its family has not")
        window, settings = None, {**settings, "layer_types": None}
    if not settings.get("use_sliding_window", True):
        window = None
    if window is not None and (type(window) is not int or window < 2):
        raise NotComputed(f"its sliding_window is {window!r}")
    kinds = settings.get("layer_types")
    if kinds is None:
        kinds = [_kind(i, settings, model_type, window) for i in range(layers)]
    elif "layer_types" not in known:
        raise NotComputed("it has layer_types, which its family has not")
    if not isinstance(kinds, list) or len(kinds) != layers or not set(kinds) <= {*KINDS}:
        raise NotComputed("its layer_types are not known")
    if window is None and "sliding_attention" in kinds:
        raise NotComputed("its sliding_window is missing")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _kind(layer: int, settings: Settings, model_type: str, window: int | None) -> str:
    """Return the kind of a layer that the config does not name."""
    if model_type == "gemma3_text":
        pattern = settings.get("sliding_window_pattern", 6)
        if type(pattern) is not int or pattern < 1:
            raise NotComputed(f"its sliding_window_pattern is {pattern!r}")
        return KINDS[(layer + 1) % pattern != 0]
    if model_type.startswith("qwen"):
        return KINDS[window is not None and layer >= settings["max_window_layers"]]
    if model_type == "smollm3":
        return KINDS[window is not None and not _rotates(layer, settings)]
    return KINDS[window is not None]


def _rotates(layer: int, settings: Settings) -> bool:
    """Return whether a layer of SmolLM3 has position embeddings."""
    flags, interval = settings["no_rope_layers"], settings["no_rope_layer_interval"]
    if flags is None and type(interval) is int and interval > 0:
        return (layer + 1) % interval != 0
    if not isinstance(flags, list) or len(flags) < settings["num_hidden_layers"]:
        raise NotComputed("its no_rope_layers are not known")
    return bool(flags[layer])


def _by_layer(
    ropes: Sequence[Rope], windows: Sequence[int | None], settings: Settings, model_type: str
) -> list[Rope | None]:
    if model_type == "smollm3":
        return [ropes[0] if _rotates(i, settings) else None for i in range(len(windows))]
    return [ropes[0] if window is None else ropes[-1] for window in windows]


def weight_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight by its name in a checkpoint."""
    hidden, width, size = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_attention_heads * size, config.num_key_value_heads * size
    linear = {"self_attn.o_proj": (hidden, queries), "mlp.down_proj": (hidden, width)}
    if config.family.fused:
        linear["self_attn.qkv_proj"] = (queries + 2 * keys, hidden)
        linear["mlp.gate_up_proj"] = (2 * width, hidden)
    else:
        linear |= {"self_attn.q_proj": (queries, hidden), "self_attn.k_proj": (keys, hidden)}
        linear |= {"self_attn.v_proj": (keys, hidden), "mlp.gate_proj": (width, hidden)}
        linear["mlp.up_proj"] = (width, hidden)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    norms = ["input_layernorm", "post_attention_layernorm"]
    if config.family.gemma:
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for i in range(config.num_hidden_layers):
        layer = f"model.layers.{i}."
        for name, shape in linear.items():
            shapes[f"{layer}{name}.weight"] = shape
            if name.split(".")[1] in config.biases:
                shapes[f"{layer}{name}.bias"] = shape[:1]
        shapes |= {f"{layer}{name}.weight": (hidden,) for name in norms}
        if config.family.normed_heads:
            shapes |= {f"{layer}self_attn.{name}_norm.weight": (size,) for name in "qk"}
    return shapes

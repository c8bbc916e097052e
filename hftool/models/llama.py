"""Llama and its kin in plain torch: the same numbers as transformers' classes, in less time.

With any model transformers imports torch's compiler and its distributed parts, which takes longer
than all that a short command computes; and on a CPU more than half of a token's time goes into
calls of small operations. Here are the operations of transformers 5.23's `LlamaForCausalLM` in
their order (Qwen2, Qwen3 and Mistral differ by a bias, a norm and a window), so that results are
equal bit for bit, without what training, other devices and hooks need. Any other model, and any
config with something that is not understood here, is left to transformers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from hftool.models.quantize import GROUP, Bits
from hftool.models.tokenizer import read_json
from hftool.models.weights import Weights, stored

KINDS = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
# What a config must say, and what it may say besides; anything else is left to transformers.
NEEDED = {
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
    *(
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "initializer_range",
        "is_llama_config",
        "max_window_layers",
        "model_type",
    ),
    *(
        "pad_token_id",
        "pretraining_tp",
        "rope_interleaved",
        "torch_dtype",
        "transformers.js_config",
    ),
    *("transformers_version", "unk_token_id", "use_cache"),
}
UNDERSTOOD = {
    *NEEDED,
    *WITHOUT_EFFECT,
    *("attention_bias", "head_dim", "layer_types", "mlp_bias", "rope_parameters", "rope_scaling"),
    *("rope_theta", "sliding_window", "use_mrope", "use_sliding_window"),
}
LEAST_SQUARE = 1e-38  # where all is zero, and the norm adds nothing
SPARE = 64  # tokens a cache grows by at least when a single one no longer fits


@dataclass(frozen=True)
class LlamaConfig:
    """What the shape of such a model is.

    `biases` names the layers with a bias; `rotation` the angles by which a position turns each pair
    of a head's numbers: float32 [head_dim / 2].
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
        """Itself, as transformers' configs of models that know nothing but text."""
        return self


@dataclass(frozen=True)
class Output:
    """Logits [sequences, tokens, vocabulary], and the cache they were computed with."""

    logits: torch.Tensor
    past_key_values: "KeyValueCache"


class KeyValueCache:
    """The keys and values of each layer: [sequences, heads, room, head_dim], of which the first
    `length` tokens are filled."""

    def __init__(self, layers: int) -> None:
        self.length = 0
        self._layers: list[tuple[torch.Tensor, torch.Tensor] | None] = [None] * layers

    def append(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put new ones [sequences, heads, tokens, head_dim] behind those of a layer: all of it.

        `length` grows when every layer has its own.
        """
        end = self.length + keys.shape[2]
        held = self._layers[layer]
        if held is None or held[0].shape[2] < end:
            held = self._grown(held, keys, end)
            self._layers[layer] = held
        kept_keys, kept_values = held[0][:, :, :end], held[1][:, :, :end]
        kept_keys[:, :, self.length :] = keys
        kept_values[:, :, self.length :] = values
        return kept_keys, kept_values

    def crop(self, tokens: int) -> None:
        """Forget the last tokens; their number is negative, as transformers' caches take it."""
        self.length += tokens

    def batch_select_indices(self, rows: torch.Tensor) -> None:
        """Go on with these sequences alone."""
        self._layers = [held and (held[0][rows], held[1][rows]) for held in self._layers]

    @property
    def nbytes(self) -> int:
        """The memory it takes, room for tokens to come included."""
        return sum(held[0].nbytes + held[1].nbytes for held in self._layers if held)

    def _grown(
        self, held: tuple[torch.Tensor, torch.Tensor] | None, like: torch.Tensor, end: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Room for `end` tokens, and for more where they come one by one."""
        sequences, heads, tokens, size = like.shape
        room = end if tokens > 1 else end + max(SPARE, end // 8)
        keys, values = (like.new_empty(sequences, heads, room, size) for _ in range(2))
        if held is not None:
            keys[:, :, : self.length] = held[0][:, :, : self.length]
            values[:, :, : self.length] = held[1][:, :, : self.length]
        return keys, values


class Llama(nn.Module):
    """A decoder-only transformer of the Llama family, for inference.

    Called as transformers' classes are, with what hftool uses of their arguments.
    """

    def __init__(
        self,
        config: LlamaConfig,
        weights: Weights,
    ) -> None:
        super().__init__()
        self.config = config
        self.dtype = weights.dtype
        self.device = torch.device("cpu")
        self._embeddings = weights.tensor("model.embed_tokens.weight")
        self.layers = [
            _Layer(config, weights, f"model.layers.{i}.") for i in range(config.num_hidden_layers)
        ]
        self._norm = _Norm(weights, "model.norm", config)
        self._head = weights.linear(
            "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
        )

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: KeyValueCache | None = None,
        use_cache: bool = True,
        logits_to_keep: int = 0,
    ) -> Output:
        """The logits after each of `input_ids` [sequences, tokens], or after the last ones.

        Args:
            attention_mask: [sequences, tokens of the cache and of `input_ids`], 0 for padding.
            position_ids: [sequences, tokens]; without them they go on from the cache.
            past_key_values: is extended; without one a new cache is made.
            logits_to_keep: how many of the last tokens are asked for; 0 is all.
        """
        config = self.config
        cache = past_key_values or KeyValueCache(config.num_hidden_layers)
        tokens = input_ids.shape[1]
        if position_ids is None:
            position_ids = torch.arange(cache.length, cache.length + tokens)[None]
        angles = position_ids[..., None].float() * config.rotation
        cos, sin = angles.cos(), angles.sin()
        # Halves of a head are turned into each other: [-sin, sin] saves turning a sign each time.
        turn = (
            torch.cat((cos, cos), dim=-1)[:, None].to(self.dtype),
            torch.cat((-sin, sin), dim=-1)[:, None].to(self.dtype),
        )
        mask = _mask(attention_mask, tokens, cache.length)
        hidden = F.embedding(input_ids, self._embeddings)
        for number, layer in enumerate(self.layers):
            hidden = layer.forward(hidden, turn, mask, cache, number)
        cache.length += tokens
        hidden = hidden[:, -logits_to_keep:]
        return Output(self._head(self._norm(hidden)), cache)


class _Norm:
    """A root-mean-square norm (Zhang and Sennrich 2019)."""

    def __init__(self, weights: Weights, name: str, config: LlamaConfig) -> None:
        self._weight = weights.tensor(f"{name}.weight")
        self._eps = config.rms_norm_eps
        self._exact = weights.bits is None

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """The hidden states, normed."""
        weight, size = self._weight, len(self._weight)
        if self._exact or hidden.numel() > size:
            return weight * F.rms_norm(hidden, weight.shape, None, self._eps)
        # A single token's: in half the time, rounded in another way.
        length = float(torch.linalg.vector_norm(hidden, dtype=torch.float32))
        mean_square = max(length * length / size + self._eps, LEAST_SQUARE)
        return hidden * (1 / math.sqrt(mean_square)) * weight


class _Layer:
    """Attention and a feed-forward part, each behind a norm and added to what it came from."""

    def __init__(
        self,
        config: LlamaConfig,
        weights: Weights,
        prefix: str,
    ) -> None:
        self._heads = config.num_attention_heads
        self._kv_heads = config.num_key_value_heads
        self._size = config.head_dim
        self._width = config.intermediate_size
        self._eps = config.rms_norm_eps
        # Attention of a single token is some times faster so, but rounds in another way.
        self._packs = weights.bits is not None
        attention = f"{prefix}self_attn."
        self._attention_norm = _Norm(weights, f"{prefix}input_layernorm", config)
        self._qkv = weights.linear(*(f"{attention}{name}_proj" for name in "qkv"))
        self._out = weights.linear(f"{attention}o_proj")
        self._head_norm = None
        if config.normed_heads:  # a row for each head of the queries, then for each of the keys
            q, k = (weights.tensor(f"{attention}{name}_norm.weight") for name in "qk")
            rows = [q.expand(self._heads, 1, -1), k.expand(self._kv_heads, 1, -1)]
            self._head_norm = torch.cat(rows)
        self._mlp_norm = _Norm(weights, f"{prefix}post_attention_layernorm", config)
        self._gate_up = weights.linear(f"{prefix}mlp.gate_proj", f"{prefix}mlp.up_proj")
        self._down = weights.linear(f"{prefix}mlp.down_proj")

    def forward(
        self,
        hidden: torch.Tensor,
        turn: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor | None,
        cache: KeyValueCache,
        number: int,
    ) -> torch.Tensor:
        """The next hidden states [sequences, tokens, hidden]."""
        normed = self._attention_norm(hidden)
        hidden = hidden + self._attention(normed, turn, mask, cache, number)
        both = self._gate_up(self._mlp_norm(hidden))
        return hidden + self._down(F.silu(both[..., : self._width]) * both[..., self._width :])

    def _attention(
        self,
        normed: torch.Tensor,
        turn: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor | None,
        cache: KeyValueCache,
        number: int,
    ) -> torch.Tensor:
        sequences, tokens, _ = normed.shape
        heads, kv_heads, size = self._heads, self._kv_heads, self._size
        cos, sin = turn
        every = self._qkv(normed).view(sequences, tokens, -1, size).transpose(1, 2)
        turned = every[:, : heads + kv_heads]
        if self._head_norm is not None:
            turned = self._head_norm * F.rms_norm(turned, (size,), None, self._eps)
        turned = turned * cos + turned.roll(size // 2, -1) * sin
        keys, values = cache.append(number, turned[:, heads:], every[:, heads + kv_heads :])
        query = turned[:, :heads]
        if tokens == 1 and (mask is not None or self._packs):
            # Heads that share their keys, as if they were tokens.
            query = query.reshape(sequences, kv_heads, -1, size)
            seen = F.scaled_dot_product_attention(query, keys, values, mask)
            return self._out(seen.reshape(sequences, 1, -1))
        if mask is not None:
            shared = heads // kv_heads
            keys, values = keys.repeat_interleave(shared, 1), values.repeat_interleave(shared, 1)
        seen = F.scaled_dot_product_attention(
            query,
            keys,
            values,
            mask,
            is_causal=mask is None and tokens > 1,
            enable_gqa=mask is None,
        )
        return self._out(seen.transpose(1, 2).reshape(sequences, tokens, -1))


def _mask(filled: torch.Tensor | None, tokens: int, past: int) -> torch.Tensor | None:
    """Which tokens each new one sees: bool [sequences, 1, tokens, all]; None where each sees those
    before it and attention needs no word of that."""
    if filled is not None and bool(filled.all()):
        filled = None
    if filled is None and (tokens == 1 or past == 0):
        return None
    own = torch.arange(past, past + tokens)[:, None]
    every = torch.arange(past + tokens)
    if filled is None:
        return (every <= own)[None, None]
    # Padding sees itself: with nothing at all to see it would turn into NaN.
    seen: torch.Tensor = (every <= own) & filled.bool()[:, None] | (every == own)
    return seen[:, None]


def read_llama(folder: Path, dtype: torch.dtype, bits: Bits | None) -> Llama | None:
    """The model in a folder; None where it is another one than can be computed here.

    Raises:
        SafetensorError: a file of weights is broken.
    """
    config = understood(read_json(folder / "config.json"))
    if config is None or (bits == "int4" and config.hidden_size % GROUP):
        return None
    weights = stored(folder, _shapes(config))
    return None if weights is None else Llama(config, Weights(weights, dtype, bits))


def understood(config: Mapping[str, Any]) -> LlamaConfig | None:
    """What a config.json says, None where any of it is not understood."""
    kind = next((k for name, k in KINDS.items() if config.get("architectures") == [name]), None)
    if kind is None or config.get("model_type") != kind or set(config) - UNDERSTOOD:
        return None
    if any(type(config.get(name)) is not needed for name, needed in NEEDED.items()):
        return None
    ends = config.get("eos_token_id")
    if any(type(i) is not int for i in (ends if isinstance(ends, list) else [ends or 0])):
        return None
    if config["hidden_act"] != "silu" or _has_window(kind, config) or config.get("use_mrope"):
        return None
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    if min(heads, kv_heads, config["num_hidden_layers"]) < 1 or heads % kv_heads:
        return None
    size = config.get("head_dim") or config["hidden_size"] // heads
    rotation = _rotation(config, size) if type(size) is int and size > 0 and size % 2 == 0 else None
    if rotation is None:
        return None
    fields = {name: config[name] for name in NEEDED if name != "hidden_act"}
    return LlamaConfig(
        **fields,
        head_dim=size,
        biases=_biases(kind, config),
        normed_heads=kind == "qwen3",
        rotation=rotation,
        model_type=kind,
        eos_token_id=ends,
    )


def _has_window(kind: str, config: Mapping[str, Any]) -> bool:
    """Whether attention looks back a certain way only."""
    if kind == "mistral":  # whose window has a size where the config names none
        return config.get("sliding_window", 4096) is not None
    others = set(config.get("layer_types") or ["full_attention"]) - {"full_attention"}
    return bool(config.get("use_sliding_window") or others)


def _biases(kind: str, config: Mapping[str, Any]) -> frozenset[str]:
    attention = {"q_proj", "k_proj", "v_proj"}
    if kind == "qwen2":
        return frozenset(attention)
    found = set[str]()
    if kind != "mistral" and config.get("attention_bias"):
        found |= attention | {"o_proj"}
    if kind == "llama" and config.get("mlp_bias"):
        found |= {"gate_proj", "up_proj", "down_proj"}
    return frozenset(found)


def _rotation(config: Mapping[str, Any], size: int) -> torch.Tensor | None:
    """The angles of rotary position embeddings: Su et al. 2021, and Llama 3.1's for long texts."""
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(given, dict):
        return None
    rope = {"rope_theta": config.get("rope_theta"), "rope_type": "default", **given}
    base = rope["rope_theta"]
    if type(base) not in (int, float) or base <= 0:
        return None
    if rope["rope_type"] == "default" and set(rope) == {"rope_theta", "rope_type"}:
        angles: torch.Tensor = 1.0 / (base ** (torch.arange(0, size, 2, dtype=torch.float) / size))
        return angles
    numbers = {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
    known = set(rope) == {"rope_theta", "rope_type", *numbers}
    if rope["rope_type"] != "llama3" or not known:
        return None
    if any(type(rope[name]) not in (int, float) or rope[name] <= 0 for name in numbers):
        return None
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    complete: Any = SimpleNamespace(
        head_dim=size, rope_parameters=rope, standardize_rope_params=lambda: None
    )
    angles = ROPE_INIT_FUNCTIONS["llama3"](complete)[0]
    return angles


def _shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each weight by its name in a checkpoint."""
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

"""Llama and its kin in plain torch: the same numbers as transformers' classes, in less time.

With any model transformers imports torch's compiler and its distributed parts, which takes longer
than all that a short command computes; and on a CPU more than half of a token's time goes into
calls of small operations. Here are the operations of transformers 5.23's `LlamaForCausalLM` in
their order (Qwen2, Qwen3 and Mistral differ by a bias, a norm and a window), so that results are
equal bit for bit, without what training, other devices and hooks need. Any other model, and any
config with something that is not understood here, is left to transformers.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from hftool.json_files import read_json
from hftool.nn.llama_config import LlamaConfig, shapes, understood
from hftool.nn.quantization import GROUP, Bits
from hftool.nn.weights import Weights, stored

LEAST_SQUARE = 1e-38  # where all is zero, and the norm adds nothing
PART = 512  # tokens fed forward at once: what lies between is some times as large
SPARE = 64  # tokens a cache grows by at least when a single one no longer fits


@dataclass(frozen=True)
class CausalOutput:
    """Logits [sequences, tokens, vocabulary], and the cache they were computed with."""

    logits: torch.Tensor
    past_key_values: "KeyValueCache"


class KeyValueCache:
    """The keys and values of each layer: [sequences, heads, room, head_dim], of which the first
    `length` tokens are filled."""

    def __init__(self, layers: int) -> None:
        self.length = 0
        self._count = layers
        self._layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._expected = 0

    def expect(self, tokens: int) -> None:
        """Make room for so many when the next come: a prompt in slices is copied for each else."""
        self._expected = tokens

    def append(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put new ones [sequences, heads, tokens, head_dim] behind those of a layer: all of it.

        `length` grows when every layer has its own.
        """
        end = self.length + keys.shape[2]
        if not self._layers:  # all at once: between what a layer computes they would leave gaps
            self._layers = [self._room(keys, end) for _ in range(self._count)]
        held = self._layers[layer]
        if held[0].shape[2] < end:
            room = self._room(keys, end)
            for new, old in zip(room, held, strict=True):
                new[:, :, : self.length] = old[:, :, : self.length]
            held = self._layers[layer] = room
        kept_keys, kept_values = held[0][:, :, :end], held[1][:, :, :end]
        kept_keys[:, :, self.length :] = keys
        kept_values[:, :, self.length :] = values
        return kept_keys, kept_values

    def crop(self, tokens: int) -> None:
        """Forget the last tokens; their number is negative, as transformers' caches take it."""
        self.length += tokens

    def batch_select_indices(self, rows: torch.Tensor) -> None:
        """Go on with these sequences alone."""
        self._layers = [(keys[rows], values[rows]) for keys, values in self._layers]

    @property
    def nbytes(self) -> int:
        """The memory it takes, room for tokens to come included."""
        return sum(keys.nbytes + values.nbytes for keys, values in self._layers)

    def _room(self, like: torch.Tensor, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Room for `end` tokens, and for more where they come one by one."""
        sequences, heads, tokens, size = like.shape
        room = max(end if tokens > 1 else end + max(SPARE, end // 8), self._expected)
        shape = (sequences, heads, room, size)
        return like.new_empty(shape), like.new_empty(shape)


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
    ) -> CausalOutput:
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
        return CausalOutput(self._head(self._norm(hidden)), cache)


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
            return F.rms_norm(hidden, weight.shape, None, self._eps).mul_(weight)
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
        self._gate_and_up = weights.each(f"{prefix}mlp.gate_proj", f"{prefix}mlp.up_proj")
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
        hidden.add_(self._attention(hidden, turn, mask, cache, number))
        for part in torch.split(hidden, PART, 1):
            part.add_(self._feed_forward(part))
        return hidden

    def _feed_forward(self, hidden: torch.Tensor) -> torch.Tensor:
        gate, up = self._gate_and_up(self._mlp_norm(hidden))
        return self._down(F.silu(gate, inplace=True).mul_(up))

    def _attention(
        self,
        hidden: torch.Tensor,
        turn: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor | None,
        cache: KeyValueCache,
        number: int,
    ) -> torch.Tensor:
        sequences, tokens, _ = hidden.shape
        heads, kv_heads, size = self._heads, self._kv_heads, self._size
        cos, sin = turn
        every = self._qkv(self._attention_norm(hidden))
        every = every.view(sequences, tokens, -1, size).transpose(1, 2)
        turned = every[:, : heads + kv_heads]
        if self._head_norm is not None:
            turned = self._head_norm * F.rms_norm(turned, (size,), None, self._eps)
        turned = (turned * cos).add_(turned.roll(size // 2, -1).mul_(sin))
        keys, values = cache.append(number, turned[:, heads:], every[:, heads + kv_heads :])
        query = turned[:, :heads]
        del every, turned  # of a long prompt they are large
        if tokens == 1 and (mask is not None or self._packs):
            # Heads that share their keys, as if they were tokens.
            query = query.reshape(sequences, kv_heads, -1, size)
            seen = F.scaled_dot_product_attention(query, keys, values, mask)
            return self._out(seen.reshape(sequences, 1, -1))
        if mask is None:
            seen = _causal_attention(query, keys, values)
        else:
            seen = F.scaled_dot_product_attention(query, keys, values, mask, enable_gqa=True)
        return self._out(seen.transpose(1, 2).reshape(sequences, tokens, -1))


def _causal_attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """What the last tokens [sequences, heads, tokens, head_dim] see of all until themselves.

    Nothing is as large as tokens times tokens, and no keys are copied for heads that share them.
    """
    sequences, heads, tokens, size = query.shape
    every, end = keys.shape[1:3]
    query = query.reshape(sequences * every, -1, tokens, size)
    keys, values = (
        shared.flatten(0, 1)[:, None].expand(-1, heads // every, -1, -1)
        for shared in (keys, values)
    )
    if tokens in (1, end):
        seen = F.scaled_dot_product_attention(query, keys, values, is_causal=tokens > 1)
    else:
        # From the last token up, each row of the mask is the one before moved by a place: all of
        # them are one row, looked at from place to place.
        row = query.new_zeros(end + tokens)
        row[end:] = -torch.inf
        mask = row.as_strided((tokens, end), (1, 1))
        seen = F.scaled_dot_product_attention(query.flip(2), keys, values, mask).flip(2)
    return seen.reshape(sequences, heads, tokens, size)


def _mask(filled: torch.Tensor | None, tokens: int, past: int) -> torch.Tensor | None:
    """Which tokens each new one sees beside padding: bool [sequences, 1, tokens, all]; None where
    there is no padding, so that each sees all until itself."""
    if filled is None or bool(filled.all()):
        return None
    own = torch.arange(past, past + tokens)[:, None]
    every = torch.arange(past + tokens)
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
    weights = stored(folder, shapes(config))
    return None if weights is None else Llama(config, Weights(weights, dtype, bits))

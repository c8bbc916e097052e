"""Llama and related models in plain torch: the same numbers as transformers' classes, in less time.

For any model, transformers imports torch's compiler and its distributed packages, which takes
longer than everything a short command computes; and on a CPU more than half of the time for a token
goes into calling small operations. This module has the operations of transformers 5.23's
`LlamaForCausalLM` in the same order (Qwen2, Qwen3 and Mistral differ by a bias, a norm and a
window), so that results are equal bit for bit, without the code for training, other devices and
hooks. transformers computes any other model, and any whose config has something unknown here.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from hftool.json_files import read_json
from hftool.nn.llama_config import LlamaConfig, read_config, weight_shapes
from hftool.nn.quantization import INT4_GROUP, Bits
from hftool.nn.weights import Weights, embedded, read_weights

SMALLEST_SQUARE = 1e-38  # avoids a division by zero where all states are 0 and eps is too
# Tokens per feed-forward chunk: the intermediate activations are several times larger than the
# hidden states.
MLP_CHUNK = 512
SPARE_TOKENS = 64  # least number of tokens by which a full cache grows for a single new one


@dataclass(frozen=True)
class CausalOutput:
    """Logits [sequences, tokens, vocabulary], and the cache with the tokens they follow."""

    logits: torch.Tensor
    past_key_values: "KeyValueCache"


class KeyValueCache:
    """The keys and values of each layer, in tensors [sequences, heads, capacity, head_dim] whose
    first `length` tokens are filled; implements `hftool.nn.cache.Cache`."""

    def __init__(self, layers: int) -> None:
        self.length = 0
        self._layer_count = layers
        self._layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._expected = 0

    def run(self, model: "Llama", input_ids: torch.Tensor, **inputs: Any) -> CausalOutput:
        """Run the model on the tokens that follow, and add them to the cache."""
        output: CausalOutput = model(input_ids=input_ids, past_key_values=self, **inputs)
        return output

    def expect(self, tokens: int) -> None:
        """Reserve capacity for a total of `tokens` tokens at the next append; otherwise a prompt
        in slices is copied once per slice."""
        self._expected = tokens

    def append(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values [sequences, heads, tokens, head_dim] to those of a layer.

        `length` stays the same: the model raises it when every layer has its own.

        Returns: all keys and values of the layer, the new ones included.
        """
        end = self.length + keys.shape[2]
        if not self._layers:
            # All layers together: memory allocated between the activations would leave gaps.
            self._layers = [self._allocate(keys, end) for _ in range(self._layer_count)]
        stored = self._layers[layer]
        if stored[0].shape[2] < end:
            larger = self._allocate(keys, end)
            for new, old in zip(larger, stored, strict=True):
                new[:, :, : self.length] = old[:, :, : self.length]
            stored = self._layers[layer] = larger
        all_keys, all_values = stored[0][:, :, :end], stored[1][:, :, :end]
        all_keys[:, :, self.length :] = keys
        all_values[:, :, self.length :] = values
        return all_keys, all_values

    def can_crop(self, tokens: int) -> bool:
        """Return whether the last `tokens` tokens can be removed: always."""
        return True

    def crop(self, tokens: int) -> None:
        """Remove the last `tokens` tokens."""
        self.length -= tokens

    def select(self, rows: torch.Tensor) -> None:
        """Keep only the sequences with these indices, in this order."""
        self._layers = [(keys[rows], values[rows]) for keys, values in self._layers]

    @property
    def nbytes(self) -> int:
        """The memory that the keys and values take in bytes, spare capacity included."""
        return sum(keys.nbytes + values.nbytes for keys, values in self._layers)

    def _allocate(self, like: torch.Tensor, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return empty keys and values for `end` tokens, and for more if they come singly."""
        sequences, heads, tokens, size = like.shape
        spare = max(SPARE_TOKENS, end // 8) if tokens == 1 else 0
        shape = (sequences, heads, max(end + spare, self._expected), size)
        return like.new_empty(shape), like.new_empty(shape)


class Llama(nn.Module):
    """A decoder-only transformer of the Llama family, for inference.

    It is called as transformers' classes are, with those of their arguments that hftool uses.
    """

    def __init__(self, config: LlamaConfig, weights: Weights) -> None:
        super().__init__()
        self.config = config
        self.dtype = weights.dtype
        self.device = torch.device("cpu")
        self._embeddings = weights.tensor("model.embed_tokens.weight")
        self.layers = [
            _Layer(config, weights, f"model.layers.{i}.") for i in range(config.num_hidden_layers)
        ]
        self._norm = _Norm(weights, "model.norm", config)
        self._head = weights.head("model.embed_tokens" if config.tie_word_embeddings else "lm_head")

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: KeyValueCache | None = None,
        use_cache: bool = True,
        logits_to_keep: int = 0,
    ) -> CausalOutput:
        """Return the logits after each of `input_ids` [sequences, tokens], or after the last ones.

        Args:
            attention_mask: [sequences, tokens of the cache and of `input_ids`], 0 for padding.
            position_ids: [sequences, tokens]; by default they continue those of the cache.
            past_key_values: gets the new tokens; by default a new cache.
            use_cache: without effect; transformers' classes have it.
            logits_to_keep: the number of last tokens whose logits to compute; 0 for all.

        Raises:
            HftoolError: a token id has no row in the embeddings.
        """
        config = self.config
        cache = past_key_values
        if cache is None:
            cache = KeyValueCache(config.num_hidden_layers)
        tokens = input_ids.shape[1]
        if position_ids is None:
            position_ids = torch.arange(cache.length, cache.length + tokens)[None]
        angles = position_ids[..., None].float() * config.rotation
        cos, sin = angles.cos(), angles.sin()
        # The rotation pairs each number of a head with the one half a head away. With the sign in
        # the sines, no layer has to negate one of the halves.
        rotation = (
            torch.cat((cos, cos), dim=-1)[:, None].to(self.dtype),
            torch.cat((-sin, sin), dim=-1)[:, None].to(self.dtype),
        )
        mask = _mask(attention_mask, tokens, cache.length)
        hidden = embedded(input_ids, self._embeddings)
        for index, layer in enumerate(self.layers):
            hidden = layer.forward(hidden, rotation, mask, cache, index)
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
        """Return the normalized hidden states."""
        weight, size = self._weight, len(self._weight)
        if self._exact or hidden.numel() > size:
            return F.rms_norm(hidden, weight.shape, None, self._eps).mul_(weight)
        # For a single token this takes half the time, but it rounds differently.
        length = float(torch.linalg.vector_norm(hidden, dtype=torch.float32))
        mean_square = max(length * length / size + self._eps, SMALLEST_SQUARE)
        return hidden * (1 / math.sqrt(mean_square)) * weight


class _Layer:
    """Attention, then a feed-forward network, each on normalized states and added to its input."""

    def __init__(self, config: LlamaConfig, weights: Weights, prefix: str) -> None:
        self._heads = config.num_attention_heads
        self._kv_heads = config.num_key_value_heads
        self._size = config.head_dim
        self._eps = config.rms_norm_eps
        # Makes the attention of a single token several times faster, but rounds differently.
        self._packs_heads = weights.bits is not None
        attention = f"{prefix}self_attn."
        self._attention_norm = _Norm(weights, f"{prefix}input_layernorm", config)
        self._qkv = weights.linear(*(f"{attention}{name}_proj" for name in "qkv"))
        self._out = weights.linear(f"{attention}o_proj")
        self._head_norm = None
        if config.normed_heads:  # one row per head of the queries, then per head of the keys
            q, k = (weights.tensor(f"{attention}{name}_norm.weight") for name in "qk")
            rows = [q.expand(self._heads, 1, -1), k.expand(self._kv_heads, 1, -1)]
            self._head_norm = torch.cat(rows)
        self._mlp_norm = _Norm(weights, f"{prefix}post_attention_layernorm", config)
        self._gate_and_up = weights.each(f"{prefix}mlp.gate_proj", f"{prefix}mlp.up_proj")
        self._down = weights.linear(f"{prefix}mlp.down_proj")

    def forward(
        self,
        hidden: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor | None,
        cache: KeyValueCache,
        index: int,
    ) -> torch.Tensor:
        """Change hidden states [sequences, tokens, hidden] in place to those after this layer."""
        hidden.add_(self._attention(hidden, rotation, mask, cache, index))
        for chunk in torch.split(hidden, MLP_CHUNK, 1):
            chunk.add_(self._feed_forward(chunk))
        return hidden

    def _feed_forward(self, hidden: torch.Tensor) -> torch.Tensor:
        gate, up = self._gate_and_up(self._mlp_norm(hidden))
        return self._down(F.silu(gate, inplace=True).mul_(up))

    def _attention(
        self,
        hidden: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor | None,
        cache: KeyValueCache,
        index: int,
    ) -> torch.Tensor:
        sequences, tokens, _ = hidden.shape
        heads, kv_heads, size = self._heads, self._kv_heads, self._size
        cos, sin = rotation
        qkv = self._qkv(self._attention_norm(hidden))
        qkv = qkv.view(sequences, tokens, -1, size).transpose(1, 2)
        rotated = qkv[:, : heads + kv_heads]
        if self._head_norm is not None:
            rotated = self._head_norm * F.rms_norm(rotated, (size,), None, self._eps)
        rotated = (rotated * cos).add_(rotated.roll(size // 2, -1).mul_(sin))
        keys, values = cache.append(index, rotated[:, heads:], qkv[:, heads + kv_heads :])
        query = rotated[:, :heads]
        del qkv, rotated  # for a long prompt they are large
        if tokens == 1 and (mask is not None or self._packs_heads):
            # Treats the heads that share keys as if they were tokens.
            query = query.reshape(sequences, kv_heads, -1, size)
            output = F.scaled_dot_product_attention(query, keys, values, mask)
            return self._out(output.reshape(sequences, 1, -1))
        if mask is None:
            output = _causal_attention(query, keys, values)
        else:
            output = F.scaled_dot_product_attention(query, keys, values, mask, enable_gqa=True)
        return self._out(output.transpose(1, 2).reshape(sequences, tokens, -1))


def _causal_attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """Return the attention of the last tokens [sequences, heads, tokens, head_dim] over all tokens
    up to themselves.

    It makes nothing of the size tokens times tokens, and copies no keys for heads that share them.
    """
    sequences, heads, tokens, size = query.shape
    kv_heads, end = keys.shape[1:3]
    query = query.reshape(sequences * kv_heads, -1, tokens, size)
    keys, values = (
        shared.flatten(0, 1)[:, None].expand(-1, heads // kv_heads, -1, -1)
        for shared in (keys, values)
    )
    if tokens in (1, end):
        output = F.scaled_dot_product_attention(query, keys, values, is_causal=tokens > 1)
    else:
        # With the tokens in reverse order, each row of the causal mask is the row before shifted
        # by one. So all rows are views of one vector: zeros, then minus infinity.
        row = query.new_zeros(end + tokens)
        row[end:] = -torch.inf
        mask = row.as_strided((tokens, end), (1, 1))
        output = F.scaled_dot_product_attention(query.flip(2), keys, values, mask).flip(2)
    return output.reshape(sequences, heads, tokens, size)


def _mask(filled: torch.Tensor | None, tokens: int, past: int) -> torch.Tensor | None:
    """Return which tokens each new one attends to: bool [sequences, 1, tokens, all tokens].

    None if there is no padding, so that each attends to all tokens up to itself.
    """
    if filled is None or bool(filled.all()):
        return None
    query_positions = torch.arange(past, past + tokens)[:, None]
    key_positions = torch.arange(past + tokens)
    causal = (key_positions <= query_positions) & filled.bool()[:, None]
    # Padding attends to itself: with nothing to attend to, its states would become NaN.
    mask: torch.Tensor = causal | (key_positions == query_positions)
    return mask[:, None]


def read_llama(folder: Path, dtype: torch.dtype, bits: Bits | None) -> Llama | None:
    """Return the model in a folder; None if this module can't compute it.

    Raises:
        HftoolError: config.json or a file of weights is broken.
    """
    config = read_config(read_json(folder / "config.json"))
    if config is None or (bits == "int4" and config.hidden_size % INT4_GROUP):
        return None
    weights = read_weights(folder, weight_shapes(config))
    return None if weights is None else Llama(config, Weights(weights, dtype, bits))

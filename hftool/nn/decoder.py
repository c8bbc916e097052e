"""Llama, Gemma 3, Phi-3 and other decoders in plain torch: transformers' numbers, in less time.

For any model, transformers imports torch's compiler and its distributed packages, which takes
longer than everything a short command computes; and on a CPU more than half of the time for a token
goes into calling small operations. This module has the operations of transformers 5.23's classes in
the same order, so that results are equal bit for bit, without the code for training, other devices
and hooks. `decoder_config.py` describes how the families differ. transformers computes any other
model, and any whose config has something unknown there.
"""

import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from hftool.json_files import read_json
from hftool.nn.architectures import NotComputed
from hftool.nn.attention import Rotation, causal_attention, mask_for, rotated_heads, rotation_of
from hftool.nn.calibration import (
    ObservedWeights,
    calibrated_grids,
    needs_calibration,
    own_texts,
)
from hftool.nn.decoder_config import DecoderConfig, read_config, weight_shapes
from hftool.nn.kernels import KernelLinear
from hftool.nn.key_value_cache import KeyValueCache
from hftool.nn.quantization import INT4_GROUP
from hftool.nn.quantized_linear import Bits
from hftool.nn.token_step import new_step
from hftool.nn.weights import StoredWeights, Weights, embedded, read_weights

log = logging.getLogger("hftool")

SMALLEST_SQUARE = 1e-38  # avoids a division by zero where all states are 0 and eps is too
# Tokens per feed-forward chunk: the intermediate activations are several times larger than the
# hidden states.
MLP_CHUNK = 512
# What the weights of the language model inside a multimodal model are called.
_TEXT_HEAD = re.compile(r"(model\.)?language_model\.lm_head\.")
_TEXT = re.compile(r"(model\.)?language_model\.(model\.)?")


@dataclass(frozen=True)
class CausalOutput:
    """Logits [sequences, tokens, vocabulary], and the cache with the tokens they follow."""

    logits: torch.Tensor
    cache: KeyValueCache


class Decoder(nn.Module):
    """A decoder-only transformer, for inference.

    It is called as transformers' classes are, with those of their arguments that hftool uses.
    """

    def __init__(self, config: DecoderConfig, weights: Weights) -> None:
        super().__init__()
        self.config = config
        self.dtype = weights.dtype
        self.device = torch.device("cpu")
        self._embeddings = weights.tensor("model.embed_tokens.weight")
        self._scale = None
        if config.embedding_scale is not None:
            self._scale = torch.tensor(config.embedding_scale).to(self.dtype)
        self.layers = [_Layer(config, weights, i) for i in range(config.num_hidden_layers)]
        self._head = weights.head("model.embed_tokens" if config.tie_word_embeddings else "lm_head")
        self._norm = _Norm(weights, "model.norm", config)
        if isinstance(self._head, KernelLinear):
            self._norm.dtype = torch.float32
        self._is_exact = weights.bits is None
        self._step = new_step(config, self.layers, self._norm, self._head, self.dtype)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: KeyValueCache | None = None,
        use_cache: bool = True,
        logits_to_keep: int = 0,
    ) -> CausalOutput:
        """Return the logits after each of `input_ids` [sequences, tokens], or after the last ones.

        Args:
            attention_mask: [sequences, tokens of the cache and of `input_ids`], 0 for padding.
            position_ids: [sequences, tokens]; by default they continue those of the cache.
            cache: gets the new tokens; by default a new cache.
            use_cache: without effect; transformers' classes have it.
            logits_to_keep: the number of last tokens whose logits to compute; 0 for all.

        Raises:
            HftoolError: a token id has no row in the embeddings.
        """
        config = self.config
        if cache is None:
            cache = KeyValueCache(config.windows)
        tokens = input_ids.shape[1]
        if position_ids is None:
            position_ids = torch.arange(cache.length, cache.length + tokens)[None]
        hidden = self._embedded(input_ids)
        if not self._is_exact:  # rounding the sums after each layer would cost the most accuracy
            hidden = hidden.float()
        padded = attention_mask is not None and not bool(attention_mask.all())
        if self._step is not None and input_ids.numel() == 1 and not padded:
            return CausalOutput(self._capped(self._step(hidden, position_ids, cache)), cache)
        rotations = {id(r): rotation_of(r, position_ids, self.dtype) for r in config.ropes if r}
        masks = {w: mask_for(attention_mask, tokens, cache.length, w) for w in {*config.windows}}
        for layer, rope, window in zip(self.layers, config.ropes, config.windows, strict=True):
            hidden = layer.forward(hidden, rotations.get(id(rope)), masks[window], cache)
        cache.length += tokens
        logits = self._head(self._norm(hidden[:, -logits_to_keep:]))
        return CausalOutput(self._capped(logits), cache)

    def _embedded(self, input_ids: torch.Tensor) -> torch.Tensor:
        hidden = embedded(input_ids, self._embeddings)
        return hidden if self._scale is None else hidden * self._scale

    def _capped(self, logits: torch.Tensor) -> torch.Tensor:
        cap = self.config.logit_cap
        return logits if cap is None else torch.tanh(logits / cap) * cap


class _Norm:
    """A root-mean-square norm (Zhang and Sennrich 2019); Gemma's multiplies by one more than its
    weight, before it rounds."""

    def __init__(self, weights: Weights, name: str, config: DecoderConfig) -> None:
        self._eps = config.rms_norm_eps
        self._exact = weights.bits is None
        self.dtype = weights.dtype  # of what it returns
        self.weight = weights.tensor(f"{name}.weight")
        self._upcasts = config.family.gemma
        if self._upcasts:
            self.weight = 1.0 + self.weight.float()

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the normalized hidden states."""
        weight, size = self.weight, self.weight.shape[-1:]
        if not self._exact and hidden.numel() == size[0]:
            # For a single token this takes half the time, but it rounds differently.
            length = float(torch.linalg.vector_norm(hidden, dtype=torch.float32))
            mean_square = max(length * length / size[0] + self._eps, SMALLEST_SQUARE)
            return (hidden * (1 / math.sqrt(mean_square)) * weight).to(self.dtype)
        if self._upcasts:
            hidden = hidden.float()
        return F.rms_norm(hidden, size, None, self._eps).mul_(weight).to(self.dtype)


class _HeadNorm(_Norm):
    """The norms of the heads of queries and of keys: one row of weights for each head."""

    def __init__(self, weights: Weights, attention: str, config: DecoderConfig) -> None:
        super().__init__(weights, f"{attention}q_norm", config)
        keys = _Norm(weights, f"{attention}k_norm", config)
        rows = (config.num_attention_heads, config.num_key_value_heads)
        of_heads = zip((self.weight, keys.weight), rows, strict=True)
        self.weight = torch.cat([weight.expand(count, 1, -1) for weight, count in of_heads])


class _Layer:
    """Attention, then a feed-forward network, each on normalized states and added to its input."""

    def __init__(self, config: DecoderConfig, weights: Weights, index: int) -> None:
        self._index = index
        self._heads = config.num_attention_heads
        self._kv_heads = config.num_key_value_heads
        self._size = config.head_dim
        self._scaling = config.scaling
        self._window = config.windows[index]
        self._activation: Callable[[torch.Tensor], torch.Tensor] = _silu
        if config.activation == "gelu_pytorch_tanh":
            self._activation = _gelu
        # Makes the attention of a single token several times faster, but rounds differently.
        self._packs_heads = weights.bits is not None
        layer = f"model.layers.{index}."
        attention, mlp = f"{layer}self_attn.", f"{layer}mlp."
        self.attention_norm = _Norm(weights, f"{layer}input_layernorm", config)
        qkv = [f"{attention}{name}_proj" for name in "qkv"]
        gate_up = [f"{mlp}gate_proj", f"{mlp}up_proj"]
        if config.family.fused:
            qkv, gate_up = [f"{attention}qkv_proj"], [f"{mlp}gate_up_proj"]
        self.qkv = weights.linear(*qkv)
        self.gate_up = None
        if weights.bits is None and len(gate_up) > 1:
            self._gate_and_up = weights.each(*gate_up)
        else:
            self.gate_up = product = weights.linear(*gate_up)
            self._gate_and_up = lambda inputs: product(inputs).chunk(2, -1)
        self.out = weights.linear(f"{attention}o_proj")
        self.head_norm = None
        if config.family.normed_heads:
            self.head_norm = _HeadNorm(weights, attention, config)
        self.down = weights.linear(f"{mlp}down_proj")
        after, before = "post_attention_layernorm", "pre_feedforward_layernorm"
        self.after_attention = self.after_mlp = None
        if config.family.gemma:
            self.after_attention = _Norm(weights, f"{layer}{after}", config)
            self.after_mlp = _Norm(weights, f"{layer}post_feedforward_layernorm", config)
            after = before
        self.mlp_norm = _Norm(weights, f"{layer}{after}", config)

    def forward(
        self,
        hidden: torch.Tensor,
        rotation: Rotation | None,
        mask: torch.Tensor | None,
        cache: KeyValueCache,
    ) -> torch.Tensor:
        """Change hidden states [sequences, tokens, hidden] in place to those after this layer."""
        # No name keeps what was added: for a long prompt it is large.
        hidden.add_(_normed(self._attention(hidden, rotation, mask, cache), self.after_attention))
        for chunk in torch.split(hidden, MLP_CHUNK, 1):
            chunk.add_(_normed(self._feed_forward(chunk), self.after_mlp))
        return hidden

    def _feed_forward(self, hidden: torch.Tensor) -> torch.Tensor:
        gate, up = self._gate_and_up(self.mlp_norm(hidden))
        return self.down(self._activation(gate).mul_(up))

    def _attention(
        self,
        hidden: torch.Tensor,
        rotation: Rotation | None,
        mask: torch.Tensor | None,
        cache: KeyValueCache,
    ) -> torch.Tensor:
        sequences, tokens, _ = hidden.shape
        heads, kv_heads, size = self._heads, self._kv_heads, self._size
        qkv = self.qkv(self.attention_norm(hidden))
        qkv = qkv.view(sequences, tokens, -1, size).transpose(1, 2)
        rotated = qkv[:, : heads + kv_heads]
        if self.head_norm is not None:
            rotated = self.head_norm(rotated)
        if rotation is not None:
            rotated = rotated_heads(rotated, *rotation)
        new_keys, new_values = rotated[:, heads:], qkv[:, heads + kv_heads :]
        keys, values = cache.append(self._index, new_keys, new_values, self._window)
        query, scale = rotated[:, :heads], self._scaling
        del qkv, rotated, new_keys, new_values  # for a long prompt they are large
        if tokens == 1 and (mask is not None or self._packs_heads):
            # Treats the heads that share keys as if they were tokens.
            query = query.reshape(sequences, kv_heads, -1, size)
            output = F.scaled_dot_product_attention(query, keys, values, mask, scale=scale)
            return self.out(output.reshape(sequences, 1, -1))
        if mask is None:
            output = causal_attention(query, keys, values, scale)
        else:
            output = F.scaled_dot_product_attention(
                query, keys, values, mask, scale=scale, enable_gqa=True
            )
        return self.out(output.transpose(1, 2).reshape(sequences, tokens, -1))


def _normed(output: torch.Tensor, norm: _Norm | None) -> torch.Tensor:
    return output if norm is None else norm(output)


def _silu(gate: torch.Tensor) -> torch.Tensor:
    return F.silu(gate, inplace=True)


def _gelu(gate: torch.Tensor) -> torch.Tensor:
    return F.gelu(gate, approximate="tanh")


def read_decoder(
    folder: Path,
    dtype: torch.dtype,
    bits: Bits | None,
    kept: dict[str, torch.Tensor] | None = None,
) -> Decoder | None:
    """Return the model in a folder; None if this module can't compute it.

    `kept` has what was made of its weights before, and gets what is made now. Only what will be
    kept is worth the time that it takes to round weights to 4 bits by texts.

    Raises:
        HftoolError: config.json or a file of weights is broken.
    """
    content = read_json(folder / "config.json")
    try:
        config = read_config(content)
        if bits == "int4" and config.hidden_size % INT4_GROUP:
            raise NotComputed(f"its hidden_size is not a multiple of {INT4_GROUP}")
        named = _text_name if "text_config" in content else _used_name
        weights = read_weights(folder, weight_shapes(config), named)
    except NotComputed as reason:
        log.debug("%s: transformers computes it, because %s", folder, reason)
        return None
    rounded = Weights(weights, dtype, bits, kept=kept)
    if bits == "int4" and kept == {} and needs_calibration(weights):
        _calibrate(config, weights, rounded, content.get("bos_token_id"))
    return Decoder(config, rounded)


def _calibrate(
    config: DecoderConfig, stored: StoredWeights, rounded: Weights, beginning: object
) -> None:
    """Round the layers one after the other, by the inputs that each gets from those before it.

    Args:
        beginning: the token that begins a text, if there is one.
    """
    log.info("rounding the weights by texts that the model writes, once: this may take minutes")
    writer = Decoder(config, Weights(stored, rounded.dtype, "int8"))
    texts = own_texts(writer, beginning if isinstance(beginning, int) else None)
    if texts is None:
        return
    hidden = writer._embedded(texts).float()
    del writer  # its memory
    positions = torch.arange(texts.shape[1])[None]

    def passed(layer: _Layer, states: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        rope, window = config.ropes[layer._index], config.windows[layer._index]
        rotation = None if rope is None else rotation_of(rope, positions, dtype)
        mask = mask_for(None, texts.shape[1], 0, window)
        return layer.forward(states, rotation, mask, KeyValueCache(config.windows))

    for index in range(config.num_hidden_layers):
        exact = ObservedWeights(stored)
        passed(_Layer(config, exact, index), hidden.clone(), exact.dtype)
        rounded.grids = calibrated_grids(rounded, exact.products)
        hidden = passed(_Layer(config, rounded, index), hidden, rounded.dtype)
    rounded.grids = {}


def _used_name(name: str) -> str | None:
    """Return the name of a weight, None for what older checkpoints of Llama 2 have in addition."""
    return None if name.endswith(".rotary_emb.inv_freq") else name


def _text_name(name: str) -> str | None:
    """Return what a multimodal model's weight is called in its language model, None if it is not
    in it."""
    if _TEXT_HEAD.match(name):
        return _TEXT_HEAD.sub("lm_head.", name)
    return _TEXT.sub("model.", name) if _TEXT.match(name) else None

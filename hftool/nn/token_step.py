"""A decoder's step for one token of one sequence as a single call of C: with small models most of
the time would go into calling torch's operations."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from hftool.nn.attention import rotation_of
from hftool.nn.decoder_config import DecoderConfig
from hftool.nn.kernels import DTYPES, KernelLinear, kernels
from hftool.nn.key_value_cache import KeyValueCache

Function = Callable[[torch.Tensor], torch.Tensor]


class Norm(Protocol):
    """A norm of the decoder, with its weights [..., size]."""

    weight: torch.Tensor


class Layer(Protocol):
    """A layer of the decoder: its linear layers and norms."""

    qkv: Function
    out: Function
    gate_up: Function | None
    down: Function
    attention_norm: Norm
    mlp_norm: Norm
    after_attention: Norm | None
    after_mlp: Norm | None
    head_norm: Norm | None


class TokenStep:
    """The layers and the output layer of a decoder, for one token after those in a cache.

    Hidden states are float32; keys and values have the decoder's dtype.
    """

    def __init__(
        self,
        config: DecoderConfig,
        layers: Sequence[Layer],
        norm: Norm,
        head: KernelLinear,
        dtype: torch.dtype,
    ) -> None:
        self._config = config
        self._kept: list[torch.Tensor] = []
        self._ropes = {id(rope): rope for rope in config.ropes if rope is not None}
        self._shape = (1, config.num_key_value_heads, 1, config.head_dim)
        self._key = torch.empty(self._shape, dtype=dtype)
        described = [self._layer(*pair) for pair in zip(layers, config.ropes, strict=True)]
        self._layers = (kernels().Layer * len(described))(*described)
        self._decoder = kernels().Decoder(
            *(self._layers, head.described(), self._address(norm.weight)),
            *(len(described), config.hidden_size, config.num_attention_heads),
            *(config.num_key_value_heads, config.head_dim),
            max((2 * len(rope.angles) for rope in self._ropes.values()), default=0),
            *(config.activation != "silu", dtype == torch.bfloat16),
            *(config.rms_norm_eps, config.scaling),
        )
        self._outputs = head.shape[0]

    def _layer(self, layer: Any, rope: Any) -> Any:
        linear = (layer.qkv, layer.out, layer.gate_up, layer.down)
        norms = (layer.attention_norm, layer.mlp_norm, layer.after_attention, layer.after_mlp)
        heads: list[int | None] = [None, None]
        if layer.head_norm is not None:  # a row for each head of queries, then of keys
            heads = [self._address(layer.head_norm.weight[i, 0]) for i in (0, -1)]
        return kernels().Layer(
            *(each.described() for each in linear),
            *(None if norm is None else self._address(norm.weight) for norm in norms),
            *heads,
            [*self._ropes, id(None)].index(id(rope)),
        )

    def _address(self, tensor: torch.Tensor) -> int:
        """Return where a copy of a tensor in float32 is, which lives as long as this."""
        self._kept.append(tensor.float().contiguous())
        return self._kept[-1].data_ptr()

    def __call__(
        self, embedding: torch.Tensor, position_ids: torch.Tensor, cache: KeyValueCache
    ) -> torch.Tensor:
        """Return the logits of a token: float32 [1, 1, vocabulary].

        Args:
            embedding: [1, 1, hidden]
            position_ids: [1, 1]
            cache: the tokens before; gets this one.
        """
        hidden = embedding.float().clone()
        logits = torch.empty(1, 1, self._outputs)
        ropes = self._ropes.values()
        rotations = [rotation_of(rope, position_ids, torch.float32) for rope in ropes]
        addresses = [kernels().Rotation(cos.data_ptr(), sin.data_ptr()) for cos, sin in rotations]
        addresses.append(kernels().Rotation())
        layers = cache.layers_with_room(self._key)
        if cache.addresses is None:
            cached = [
                kernels().Cached(
                    *(layer.keys.data_ptr(), layer.values.data_ptr()),
                    *(layer.keys.stride(1) // layer.keys.shape[3], layer.start, window or 0),
                )
                for layer, window in zip(layers, self._config.windows, strict=True)
            ]
            cache.addresses = (kernels().Cached * len(cached))(*cached)
        failed = kernels().step(
            ctypes.byref(self._decoder),
            cache.addresses,
            (kernels().Rotation * len(addresses))(*addresses),
            cache.length,
            hidden.data_ptr(),
            logits.data_ptr(),
        )
        if failed:
            raise MemoryError
        cache.length += 1
        return logits


def new_step(
    config: DecoderConfig, layers: Sequence[Any], norm: Any, head: Any, dtype: torch.dtype
) -> TokenStep | None:
    """Return the step of a decoder, None if not all of it can be computed by `hftool_kernels`."""
    linear = [head]
    for layer in layers:
        linear += [layer.qkv, layer.out, layer.gate_up, layer.down]
    if kernels() is None or dtype not in DTYPES:
        return None
    if not all(isinstance(layer, KernelLinear) for layer in linear):
        return None
    return TokenStep(config, layers, norm, head, dtype)

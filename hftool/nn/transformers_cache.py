"""transformers' key-value caches behind the interface of `hftool.nn.cache.Cache`."""

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from hftool.errors import NoCacheError

KEYS_AND_VALUES = (DynamicLayer, DynamicSlidingWindowLayer)


class TransformersCache:
    """A cache of the kind that a model of transformers makes for itself in its first pass."""

    def __init__(self, model: Any, *, rewinds: bool) -> None:
        self._cache: Any = None
        self._argument = cache_argument(model) or "cache"
        self._rewinds = rewinds
        self._length = 0
        self._decodes = bool(model.config.is_encoder_decoder)
        self._takes_positions = not self._decodes and _takes_positions(model)

    def run(self, model: Any, input_ids: torch.Tensor, **inputs: Any) -> Any:
        """Run the model; see `Cache.run`.

        Raises:
            NoCacheError: the model does not return a cache, or one that does not count its tokens,
                so that the model would let several new ones attend to the wrong ones.
        """
        tokens = input_ids.shape[1]
        if self._length and tokens > 1 and self._counted() != self._length:
            raise NoCacheError("the model takes no more than one token after those in its cache")
        if self._length and self._takes_positions and "position_ids" not in inputs:
            # Some models would ask the cache, and get a wrong number from the state of a layer.
            positions = torch.arange(self._length, self._length + tokens, device=input_ids.device)
            inputs["position_ids"] = positions[None].expand(len(input_ids), -1)
        inputs["decoder_input_ids" if self._decodes else "input_ids"] = input_ids
        inputs[self._argument] = self._cache
        output = model(use_cache=True, **inputs)
        self._cache = getattr(output, self._argument, None)
        if self._cache is None:
            raise NoCacheError("the model does not return a cache")
        self._length += tokens
        if self._rewinds:
            _record_past(self._layers)
        return output

    def expect(self, tokens: int) -> None:
        """Do nothing: transformers' caches grow with each token."""

    def can_crop(self, tokens: int) -> bool:
        """Return whether the last `tokens` tokens can be removed: never from a state, and from a
        sliding window only as many as it keeps beyond its size."""
        layers = self._layers
        return bool(layers) and all(_removable_tokens(layer) >= tokens for layer in layers)

    def crop(self, tokens: int) -> None:
        """Remove the last `tokens` tokens."""
        self._cache.crop(-tokens)
        self._length -= tokens

    def select(self, rows: torch.Tensor) -> None:
        """Keep only the sequences with these indices, in this order."""
        self._cache.batch_select_indices(rows)

    def repeated(self, count: int) -> "TransformersCache":
        """Return a cache with `count` copies of the only sequence; this one stays as it is."""
        copied = copy.copy(self)
        copied._cache = copy.deepcopy(self._cache)
        copied._cache.batch_repeat_interleave(count)
        return copied

    def join(self, others: Sequence["TransformersCache"]) -> None:
        """Add the sequences of other caches after those in this one; see `Cache.join`.

        Raises:
            NoCacheError: a layer holds other things than keys and values.
        """
        layers = list(zip(self._layers, *(other._layers for other in others), strict=True))
        if not layers or any(type(one) not in KEYS_AND_VALUES for same in layers for one in same):
            raise NoCacheError("the model's cache can't be joined with another")
        joined = [
            (_joined([one.keys for one in same]), _joined([one.values for one in same]))
            for same in layers
        ]
        self._length = max(self._length, *(other._length for other in others))
        for layer, (keys, values) in zip(self._layers, joined, strict=True):
            layer.keys, layer.values = keys, values
            if layer.is_sliding:
                layer.cumulative_length = self._length

    def forget(self, tokens: int) -> None:
        """Remove the first `tokens` tokens."""
        self._length -= tokens
        for layer in self._layers:
            kept = min(self._length, layer.keys.shape[-2])
            first = layer.keys.shape[-2] - kept
            layer.keys, layer.values = layer.keys[:, :, first:], layer.values[:, :, first:]
            if layer.is_sliding:
                layer.cumulative_length = self._length

    @property
    def nbytes(self) -> int:
        """The memory that the keys and values take, in bytes."""
        layers = [layer for layer in self._layers if layer.keys is not None]
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)

    def _counted(self) -> int:
        """Return the number of tokens as the cache counts them."""
        try:
            return int(self._cache.get_seq_length())
        except ValueError:  # a state does not count them, and needs no mask
            return self._length

    @property
    def _layers(self) -> list[Any]:
        cache = getattr(self._cache, "self_attention_cache", self._cache)
        return list(getattr(cache, "layers", None) or [])


def cache_argument(model: Any) -> str | None:
    """Return the name of the argument by which a model takes a cache; None if it takes none.

    transformers 5.24 renamed it, and gave it to models such as Mamba too.
    """
    names = inspect.signature(model.forward).parameters
    return next((name for name in ("cache", "past_key_values") if name in names), None)


def holds_only_keys_and_values(config: Any) -> bool:
    """Return whether the cache of such a model holds only keys and values, not a state as Mamba's,
    in which the tokens seen are merged."""
    layers = DynamicCache(config=config).layers if can_make_cache(config) else [None]
    return all(type(layer) in KEYS_AND_VALUES for layer in layers)


def can_make_cache(config: Any) -> bool:
    """Return whether transformers can make a cache for a model of such a config."""
    try:
        DynamicCache(config=config.get_text_config(decoder=True))
    except (AttributeError, TypeError):
        return False
    return True


def _takes_positions(model: Any) -> bool:
    """Return whether a model takes `position_ids` that count from 0. RoBERTa and related models
    count from one above the id of the padding token, and do so themselves."""
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return False
    return not any(
        isinstance(module, nn.Embedding) and module.padding_idx is not None
        for name, module in model.named_modules()
        if "position" in name
    )


def _record_past(layers: list[Any]) -> None:
    """Let layers with a sliding window keep the tokens that fall out of it."""
    for layer in layers:
        if isinstance(layer, DynamicSlidingWindowLayer) and not layer.record_past:
            layer.record_past = True  # all that transformers' activate_past_recording does


def _removable_tokens(layer: Any) -> int:
    if type(layer) not in KEYS_AND_VALUES:
        return 0
    seen: int = layer.get_seq_length()
    if type(layer) is DynamicLayer or seen < layer.sliding_window:
        return seen
    stored: int = layer.keys.shape[-2]
    return stored - layer.sliding_window + 1 if layer.record_past else 0


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Concatenate keys or values [sequences, heads, tokens, size] of several caches."""
    tokens = max(part.shape[2] for part in parts)
    return torch.cat([F.pad(part, (0, 0, tokens - part.shape[2], 0)) for part in parts])

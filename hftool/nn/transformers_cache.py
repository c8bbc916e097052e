"""What may be taken back of a key-value cache of transformers' own."""

from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


def keeps_tokens(config: Any) -> bool:
    """Whether such a model's cache holds keys and values alone: a state, as Mamba's, has taken its
    tokens in."""
    layers = DynamicCache(config=config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def record_past(cache: Any) -> None:
    """Let the layers with a sliding window keep what falls out of it."""
    for layer in getattr(cache, "layers", None) or []:
        if isinstance(layer, DynamicSlidingWindowLayer) and not layer.record_past:
            layer.record_past = True  # what its untyped activate_past_recording does


def can_crop(cache: Any, tokens: int) -> bool:
    """Whether a cache can be cut back by so many tokens: a state can't, and a sliding window only
    by what it has kept beyond its size."""
    layers = getattr(cache, "layers", None) or []
    return bool(layers) and all(_removable(layer) >= tokens for layer in layers)


def _removable(layer: Any) -> int:
    if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
        return 0
    seen: int = layer.get_seq_length()
    if type(layer) is DynamicLayer or seen < layer.sliding_window:
        return seen
    kept: int = layer.keys.shape[-2]
    return kept - layer.sliding_window + 1 if layer.record_past else 0


def nbytes(cache: Any) -> int:
    """The size of the keys and values."""
    layers = [layer for layer in cache.layers if layer.keys is not None]
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)

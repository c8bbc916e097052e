"""transformers' key-value caches behind the interface of `hftool.nn.cache.Cache`."""

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


class TransformersCache:
    """A cache of the kind that a model of transformers makes for itself in its first pass."""

    def __init__(self, *, rewinds: bool) -> None:
        self._cache: Any = None
        self._rewinds = rewinds

    def run(self, model: Any, input_ids: torch.Tensor, **inputs: Any) -> Any:
        """Run the model; see `Cache.run`."""
        output = model(input_ids=input_ids, past_key_values=self._cache, use_cache=True, **inputs)
        self._cache = output.past_key_values
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

    def select(self, rows: torch.Tensor) -> None:
        """Keep only the sequences with these indices, in this order."""
        self._cache.batch_select_indices(rows)

    @property
    def nbytes(self) -> int:
        """The memory that the keys and values take, in bytes."""
        layers = [layer for layer in self._layers if layer.keys is not None]
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)

    @property
    def _layers(self) -> list[Any]:
        return list(getattr(self._cache, "layers", None) or [])


def holds_only_keys_and_values(config: Any) -> bool:
    """Return whether the cache of such a model holds only keys and values, not a state as Mamba's,
    in which the tokens seen are merged."""
    layers = DynamicCache(config=config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def _record_past(layers: list[Any]) -> None:
    """Let layers with a sliding window keep the tokens that fall out of it."""
    for layer in layers:
        if isinstance(layer, DynamicSlidingWindowLayer) and not layer.record_past:
            layer.record_past = True  # all that transformers' activate_past_recording does


def _removable_tokens(layer: Any) -> int:
    if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
        return 0
    seen: int = layer.get_seq_length()
    if type(layer) is DynamicLayer or seen < layer.sliding_window:
        return seen
    stored: int = layer.keys.shape[-2]
    return stored - layer.sliding_window + 1 if layer.record_past else 0

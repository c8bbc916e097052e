"""The key-value cache of hftool's own decoder."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

SPARE_TOKENS = 64  # least number of tokens by which a full cache grows for a single new one


@dataclass
class _Layer:
    """Keys and values [sequences, heads, capacity, head_dim], of which the first one is that of
    the token at position `start`. There may be room for more sequences than there are."""

    keys: torch.Tensor
    values: torch.Tensor
    start: int


class KeyValueCache:
    """The keys and values of each layer, in tensors with spare capacity; implements
    `hftool.nn.cache.Cache`.

    Args:
        windows: the number of last tokens that each layer attends to, None for all. A layer with a
            window keeps no more than it needs for the next token.
    """

    def __init__(self, windows: Sequence[int | None]) -> None:
        self.length = 0
        self._sequences = 0
        self._windows = windows
        self._layers: list[_Layer] = []
        self._expected = 0
        self.addresses: Any = None  # of the layers, for kernels in C; None once they have moved

    def run(self, model: Any, input_ids: torch.Tensor, **inputs: Any) -> Any:
        """Run the model on the tokens that follow, and add them to the cache."""
        return model(input_ids=input_ids, cache=self, **inputs)

    def expect(self, tokens: int) -> None:
        """Reserve capacity for a total of `tokens` tokens at the next append; otherwise a prompt
        in slices is copied once per slice."""
        self._expected = tokens

    def append(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor, window: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values [sequences, heads, tokens, head_dim] to those of a layer.

        `length` stays the same: the model raises it when every layer has its own.

        Returns: all keys and values of the layer that the new tokens attend to: theirs, and with a
        `window` the last ones before.
        """
        tokens = keys.shape[2]
        stored = self._with_room(layer, keys)
        past = self.length - stored.start
        end = past + tokens
        all_keys, all_values = stored.keys, stored.values
        if len(all_keys) > self._sequences:
            all_keys, all_values = all_keys[: self._sequences], all_values[: self._sequences]
        all_keys[:, :, past:end] = keys
        all_values[:, :, past:end] = values
        begin = 0 if window is None else past - min(past, window - 1)
        return all_keys[:, :, begin:end], all_values[:, :, begin:end]

    def layers_with_room(self, token: torch.Tensor) -> list[_Layer]:
        """Return all layers, each with room for one more token, whose keys would be of the shape
        and dtype of `token`."""
        return [self._with_room(layer, token) for layer in range(len(self._windows))]

    def _with_room(self, layer: int, keys: torch.Tensor) -> _Layer:
        """Return a layer with room for more keys."""
        tokens = keys.shape[2]
        if not self._layers:
            # All layers together: memory allocated between the activations would leave gaps.
            self._layers = [self._allocate(keys, 0, kept) for kept in self._windows]
            self._sequences = len(keys)
            self.addresses = None
        stored = self._layers[layer]
        past = self.length - stored.start
        if stored.keys.shape[2] < past + tokens:
            kept = self._windows[layer]
            start = self.length - past if kept is None else self.length - min(past, kept - 1)
            larger = self._allocate(keys, self.length - start, kept)
            larger.start = start
            for new, old in ((larger.keys, stored.keys), (larger.values, stored.values)):
                of_past = old[: self._sequences, :, start - stored.start : past]
                new[:, :, : self.length - start] = of_past
            stored = self._layers[layer] = larger
            self.addresses = None
        return stored

    def can_crop(self, tokens: int) -> bool:
        """Return whether the last `tokens` tokens can be removed: unless a window has lost those
        before them."""
        length = self.length - tokens
        return all(
            layer.start == 0 or (window is not None and length - layer.start >= window - 1)
            for layer, window in zip(self._layers, self._windows, strict=False)
        )

    def crop(self, tokens: int) -> None:
        """Remove the last `tokens` tokens."""
        self.length -= tokens

    def select(self, rows: torch.Tensor) -> None:
        """Keep only the sequences with these indices, in this order."""
        self.addresses = None
        self._sequences = len(rows)
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
        if not len(moved):
            return
        if bool((rows[moved] < len(rows)).any()):
            layers = self._layers
            self._layers = [_Layer(old.keys[rows], old.values[rows], old.start) for old in layers]
            return
        for stored in (x for layer in self._layers for x in (layer.keys, layer.values)):
            stored[moved] = stored[rows[moved]]

    def join(self, others: Sequence["KeyValueCache"]) -> None:
        """Add the sequences of other caches after those in this one; see `Cache.join`."""
        sequences = self._sequences + sum(other._sequences for other in others)
        length = max(self.length, *(other.length for other in others))
        for i, ours in enumerate(self._layers):
            parts = [(other._layers[i], other._sequences, other.length) for other in others]
            past = self.length - ours.start
            most = max(past, *(end - layer.start for layer, _, end in parts))
            if len(ours.keys) < sequences or past < most:
                larger = self._allocate(ours.keys[:, :, :1], most, self._windows[i], sequences)
                parts.insert(0, (ours, self._sequences, self.length))
                self._layers[i] = larger
            joined, row = self._layers[i], sequences - sum(count for _, count, _ in parts)
            joined.start = length - most
            for layer, count, end in parts:
                first, rows = most - (end - layer.start), slice(row, row + count)
                for new, old in ((joined.keys, layer.keys), (joined.values, layer.values)):
                    new[rows, :, :first] = 0
                    new[rows, :, first:most] = old[:count, :, : most - first]
                row += count
        self._sequences, self.length = sequences, length
        self.addresses = None

    def forget(self, tokens: int) -> None:
        """Remove the first `tokens` tokens."""
        self.length -= tokens
        self.addresses = None
        for layer in self._layers:
            gone = max(0, tokens - layer.start)
            layer.keys, layer.values = layer.keys[:, :, gone:], layer.values[:, :, gone:]
            layer.start = max(0, layer.start - tokens)

    def repeated(self, count: int) -> "KeyValueCache":
        """Return a cache with `count` copies of the only sequence; this one stays as it is."""
        copied = copy.copy(self)
        copied._sequences = count
        # Views without spare capacity: the next tokens let each layer allocate its own.
        copied._layers = [
            _Layer(
                old.keys[:1, :, : self.length - old.start].expand(count, -1, -1, -1),
                old.values[:1, :, : self.length - old.start].expand(count, -1, -1, -1),
                old.start,
            )
            for old in self._layers
        ]
        return copied

    @property
    def nbytes(self) -> int:
        """The memory that the keys and values take in bytes, spare capacity included."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self._layers)

    def _allocate(
        self, like: torch.Tensor, past: int, window: int | None, sequences: int | None = None
    ) -> _Layer:
        """Return empty keys and values for `past` tokens and those in `like`, and for more if they
        come singly; of as many sequences as `like` has, or of `sequences`."""
        count, heads, tokens, size = like.shape
        end = past + tokens
        spare = max(SPARE_TOKENS, end // 8) if tokens == 1 else 0
        capacity = max(end + spare, self._expected)
        if window is not None:  # what falls out of it need not be kept
            capacity = min(capacity, max(window, past) + max(tokens, window))
        shape = (sequences or count, heads, capacity, size)
        return _Layer(like.new_empty(shape), like.new_empty(shape), 0)

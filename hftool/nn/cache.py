"""The key-value cache: one interface for hftool's own models and for those of transformers."""

import inspect
from typing import Any, Protocol

import torch

from hftool.nn.architectures import UNRELIABLE_CACHE
from hftool.nn.decoder import Decoder
from hftool.nn.key_value_cache import KeyValueCache


class Cache(Protocol):
    """The keys and values of the tokens that a model has seen, of one or several sequences."""

    def run(self, model: Any, input_ids: torch.Tensor, **inputs: Any) -> Any:
        """Run the model on the tokens that follow those in the cache, and add them to it.

        Args:
            input_ids: [sequences, tokens].
            inputs: other arguments of the model.

        Returns: the model's output.
        """

    def expect(self, tokens: int) -> None:
        """Prepare for a total of `tokens` tokens, so that they can be added in slices without
        copying the ones before."""

    def can_crop(self, tokens: int) -> bool:
        """Return whether the last `tokens` tokens can be removed."""

    def crop(self, tokens: int) -> None:
        """Remove the last `tokens` tokens."""

    def select(self, rows: torch.Tensor) -> None:
        """Keep only the sequences with these indices, in this order."""

    def repeated(self, count: int) -> "Cache":
        """Return a cache with `count` copies of the only sequence; this one stays as it is."""

    def join(self, others: Any) -> None:
        """Add the sequences of other caches of the same model after those in this one. All end at
        the same place; what comes before the shorter ones must be masked.

        Raises:
            NoCacheError: the caches hold other things than keys and values.
        """

    def forget(self, tokens: int) -> None:
        """Remove the first `tokens` tokens."""

    @property
    def nbytes(self) -> int:
        """The memory that the keys and values take, in bytes."""


def new_cache(model: Any, *, rewinds: bool = False) -> Cache | None:
    """Return an empty cache for a model, None if it works without one (RWKV, GPT-1, Reformer).

    With `rewinds` a cache with a sliding window keeps the tokens that fall out of the window, so
    that it can be cropped.
    """
    if isinstance(model, Decoder):
        windows = model.config.windows
        return KeyValueCache([None] * len(windows) if rewinds else windows)
    from hftool.nn.transformers_cache import TransformersCache, cache_argument, can_make_cache

    if cache_argument(model) is None or model.config.model_type in UNRELIABLE_CACHE:
        return None
    if not can_make_cache(model.config):
        return None
    return TransformersCache(model, rewinds=rewinds)


def can_pad(model: Any) -> bool:
    """Return whether sequences of different lengths can be padded to one batch: the model must
    take a mask, and its cache must hold only keys and values (a state would include the padding).
    """
    if isinstance(model, Decoder):
        return True
    from hftool.nn.transformers_cache import cache_argument, holds_only_keys_and_values

    parameters = inspect.signature(model.forward).parameters
    if "attention_mask" not in parameters or cache_argument(model) is None:
        return False
    if model.config.is_encoder_decoder:  # only the source is padded
        return True
    return holds_only_keys_and_values(model.config)

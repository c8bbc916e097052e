"""Logits after a sequence of tokens, computing only what is new (the key-value cache)."""

from collections.abc import Sequence
from typing import Any

import torch

from hftool.errors import HftoolError
from hftool.models.load import LanguageModel
from hftool.sampling import check_finite

PREFILL_SLICE = 2048  # tokens scored at once: bounds the memory of attention


class Decoder:
    """A language model and the key-value cache of the tokens it has seen."""

    def __init__(self, language_model: LanguageModel) -> None:
        self._language_model = language_model
        self._ids: list[int] = []
        self._cache: Any = None

    @torch.inference_mode()
    def next_logits(self, ids: Sequence[int]) -> torch.Tensor:
        """The logits of the token that follows `ids`: float32 [vocabulary].

        What `ids` shares at its beginning with the call before is not computed again.

        Raises:
            HftoolError: `ids` is longer than the context, or the logits are not numbers.
        """
        model = self._language_model.model
        require_context(self._language_model, len(ids))
        shared = self._rewind(ids)
        logits: torch.Tensor | None = None
        for start in range(shared, len(ids), PREFILL_SLICE):
            part = ids[start : start + PREFILL_SLICE]
            arguments: dict[str, Any] = {"past_key_values": self._cache, "use_cache": True}
            if self._language_model.keeps_logits:
                arguments["logits_to_keep"] = 1
            output = model(input_ids=torch.tensor([part], device=model.device), **arguments)
            self._cache = getattr(output, "past_key_values", None)
            self._ids = list(ids[: start + len(part)])
            logits = output.logits[0, -1].float()
        assert logits is not None  # ids is never empty, and the last token is always computed
        check_finite(logits, model.dtype)
        return logits

    def _rewind(self, ids: Sequence[int]) -> int:
        """Cut the cache back to what it shares with `ids`, the last token left to be computed."""
        known = len(self._ids)
        if list(ids[:known]) == self._ids and known < len(ids):
            return known
        shared = 0
        for ours, theirs in zip(self._ids, ids[:-1], strict=False):
            if ours != theirs:
                break
            shared += 1
        if shared and _can_crop(self._cache):
            self._cache.crop(shared)
            self._ids = self._ids[:shared]
            return shared
        self._cache, self._ids = None, []
        return 0


def _can_crop(cache: Any) -> bool:
    """Whether a cache can be cut back: not where a sliding window or a state forgot the past."""
    layers = getattr(cache, "layers", None)
    if layers is None or not hasattr(cache, "crop"):
        return False
    return not any(getattr(layer, "is_sliding", False) for layer in layers) and all(
        "crop" in dir(layer) for layer in layers
    )


def require_context(language_model: LanguageModel, tokens: int) -> None:
    """Raise where so many tokens don't fit the model's context.

    Raises:
        HftoolError: with both numbers.
    """
    limit = language_model.context_length
    if limit is not None and tokens > limit:
        raise HftoolError(
            f"the prompt has {tokens} tokens; the context of {language_model.name} holds {limit}",
            "shorten it: `hftool encode --max-tokens N` shows where it would be cut",
        )

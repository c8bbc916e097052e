"""Logits after a sequence of tokens, computing only what is new (the key-value cache)."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

from hftool.errors import HftoolError
from hftool.models.load import LanguageModel
from hftool.sampling import check_finite

SCORES_AT_ONCE = 2**23  # positions times vocabulary
PREFILL_SLICE = 2048  # tokens scored at once: bounds the memory of attention


class Decoder:
    """A language model and the key-value cache of the tokens it has seen."""

    def __init__(self, language_model: LanguageModel) -> None:
        self._language_model = language_model
        # Without one (Mamba, RWKV, GPT-1) all tokens are computed each time, in one pass.
        parameters = inspect.signature(language_model.model.forward).parameters
        self._has_cache = "past_key_values" in parameters
        self._ids: list[int] = []
        self._cache: Any = None

    @torch.inference_mode()
    def next_logits(self, ids: Sequence[int]) -> torch.Tensor:
        """The logits of the token that follows `ids`: float32 [vocabulary].

        What `ids` shares at its beginning with the call before is not computed again.

        Raises:
            HftoolError: `ids` is longer than the context, or the logits are not numbers.
        """
        require_context(self._language_model, len(ids))
        shared = self._rewind(ids)
        logits: torch.Tensor | None = None
        width = PREFILL_SLICE if self._has_cache else len(ids)
        for start in range(shared, len(ids), width):
            part = ids[start : start + width]
            try:
                logits = self._forward(part)
            except BaseException:
                # Ctrl-C in the middle leaves some layers a token ahead of the others.
                self._cache, self._ids = None, []
                raise
            self._ids = list(ids[: start + len(part)]) if self._has_cache else []
        assert logits is not None  # ids is never empty, and the last token is always computed
        check_finite(logits, self._language_model.model.dtype)
        return logits

    @torch.inference_mode()
    def all_logits(self, ids: Sequence[int]) -> Iterator[torch.Tensor]:
        """The logits after each of `ids`, in slices [tokens, vocabulary] of some megabytes.

        Raises: as `next_logits`.
        """
        require_context(self._language_model, len(ids))
        self._cache, self._ids = None, []
        model = self._language_model.model
        vocabulary = model.config.get_text_config().vocab_size
        width = max(1, SCORES_AT_ONCE // vocabulary) if self._has_cache else max(1, len(ids))
        for start in range(0, len(ids), width):
            part = torch.tensor([list(ids[start : start + width])], device=model.device)
            arguments = {"past_key_values": self._cache} if self._has_cache else {}
            output = model(input_ids=part, use_cache=self._has_cache, **arguments)
            if self._has_cache:
                self._cache = output.past_key_values
            logits: torch.Tensor = output.logits[0].float().cpu()
            check_finite(logits, model.dtype)
            yield logits
        self._cache, self._ids = None, []

    def _forward(self, ids: Sequence[int]) -> torch.Tensor:
        """Put ids behind those in the cache: the last one's logits, float32 [vocabulary]."""
        model = self._language_model.model
        arguments: dict[str, Any] = {"use_cache": self._has_cache}
        if self._has_cache:
            arguments["past_key_values"] = self._cache
        if self._language_model.keeps_logits:
            arguments["logits_to_keep"] = 1
        output = model(input_ids=torch.tensor([list(ids)], device=model.device), **arguments)
        if self._has_cache:
            self._cache = output.past_key_values
        logits: torch.Tensor = output.logits[0, -1].float()
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
            self._cache.crop(shared - known)  # negative: how many tokens to take away
            self._ids = self._ids[:shared]
            return shared
        self._cache, self._ids = None, []
        return 0


def _can_crop(cache: Any) -> bool:
    """Whether a cache can be cut back: not where a sliding window or a state forgot the past."""
    layers = getattr(cache, "layers", None) or []
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


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

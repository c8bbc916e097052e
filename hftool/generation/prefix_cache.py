"""Logits after a sequence of tokens, computing only what is new (the key-value cache)."""

import inspect
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from hftool.errors import HftoolError
from hftool.generation.sampling import check_finite
from hftool.models.load import LanguageModel, model_errors
from hftool.nn.llama import KeyValueCache, Llama

log = logging.getLogger("hftool")

LOGITS_PER_SLICE = 2**23  # positions times vocabulary
PREFILL_SLICE = 512  # tokens of float32 computed at once, twice as many of bfloat16: bounds memory


class CachedModel:
    """A language model and the key-value cache of the tokens it has seen.

    `rewinds` keeps what a sliding window would forget, so that the cache can be cut back cheaply:
    for drafts, and for chats, whose template may write a turn in another way than it was said.
    """

    def __init__(self, language_model: LanguageModel, *, rewinds: bool = False) -> None:
        self._language_model = language_model
        self._rewinds = rewinds
        # Without one (Mamba, RWKV, GPT-1) all tokens are computed each time, in one pass.
        parameters = inspect.signature(language_model.model.forward).parameters
        self._has_cache = "past_key_values" in parameters
        self._ids: list[int] = []
        self._cache: Any = None

    def fitting(self, ids: Sequence[int], more: list[int]) -> list[int]:
        """What of `more` fits the context behind `ids`."""
        limit = self._language_model.context_length
        return more if limit is None else more[: max(0, limit - len(ids))]

    def next_logits(self, ids: Sequence[int]) -> torch.Tensor:
        """The logits of the token that follows `ids`: float32 [vocabulary].

        What `ids` shares at its beginning with the call before is not computed again.

        Raises:
            HftoolError: `ids` is longer than the context, the logits are not numbers, or the
                memory does not suffice.
        """
        return self.last_logits(ids, 1)[0]

    @torch.inference_mode()
    def last_logits(self, ids: Sequence[int], count: int) -> torch.Tensor:
        """The logits after each of the last `count` of `ids`: float32 [count, vocabulary].

        Raises: as `next_logits`.
        """
        require_context(self._language_model, len(ids))
        began = time.perf_counter()
        shared = self._rewind(ids, len(ids) - count)
        logits: torch.Tensor | None = None
        start = shared
        self._expect(len(ids))
        half = self._language_model.model.dtype.itemsize < 4
        width = 2 * PREFILL_SLICE if half else PREFILL_SLICE
        while start < len(ids):
            whole = not self._has_cache or start + width >= len(ids)
            # All positions that are asked for lie in the last slice.
            asked = len(ids) - count
            end = len(ids) if whole or start == asked else min(start + width, asked)
            try:
                logits = self._forward(ids[start:end], count if end == len(ids) else 1)
            except BaseException:
                # Ctrl-C in the middle leaves some layers a token ahead of the others.
                self._cache, self._ids = None, []
                raise
            self._ids = list(ids[:end]) if self._has_cache else []
            start = end
        assert logits is not None  # at least `count` tokens are always computed
        if len(ids) - shared > count:
            _log_prefill(len(ids) - shared, began)
        check_finite(logits, self._language_model.model.dtype)
        return logits

    @torch.inference_mode()
    def all_logits(self, ids: Sequence[int]) -> Iterator[torch.Tensor]:
        """The logits after each of `ids`, in slices [tokens, vocabulary] of some megabytes.

        Raises: as `next_logits`.
        """
        require_context(self._language_model, len(ids))
        began = time.perf_counter()
        self._cache, self._ids = None, []
        self._expect(len(ids))
        model = self._language_model.model
        vocabulary = model.config.get_text_config().vocab_size
        width = max(1, LOGITS_PER_SLICE // vocabulary) if self._has_cache else max(1, len(ids))
        for start in range(0, len(ids), width):
            part = torch.tensor([list(ids[start : start + width])], device=model.device)
            arguments = {"past_key_values": self._cache} if self._has_cache else {}
            with model_errors():
                output = model(input_ids=part, use_cache=self._has_cache, **arguments)
            if self._has_cache:
                self._cache = output.past_key_values
            logits: torch.Tensor = output.logits[0].float().cpu()
            check_finite(logits, model.dtype)
            yield logits
        self._cache, self._ids = None, []
        _log_prefill(len(ids), began)

    def _forward(self, ids: Sequence[int], count: int) -> torch.Tensor:
        """Put ids behind those in the cache: the last ones' logits, float32 [count, vocabulary]."""
        model = self._language_model.model
        arguments: dict[str, Any] = {"use_cache": self._has_cache}
        if self._has_cache:
            arguments["past_key_values"] = self._cache
        if self._language_model.keeps_logits:
            arguments["logits_to_keep"] = count
        with model_errors():
            output = model(input_ids=torch.tensor([list(ids)], device=model.device), **arguments)
        if self._has_cache:
            self._cache = output.past_key_values
            if self._rewinds and not isinstance(self._cache, KeyValueCache):
                from hftool.nn.transformers_cache import record_past

                record_past(self._cache)
        logits: torch.Tensor = output.logits[0, -count:].float()
        return logits

    def _expect(self, tokens: int) -> None:
        model = self._language_model.model
        if isinstance(model, Llama):
            self._cache = self._cache or KeyValueCache(model.config.num_hidden_layers)
            self._cache.expect(tokens)

    def _rewind(self, ids: Sequence[int], most: int) -> int:
        """Cut the cache back to what it shares with the first `most` of `ids`."""
        known = len(self._ids)
        if known <= most and list(ids[:known]) == self._ids:
            return known
        shared = 0
        for ours, theirs in zip(self._ids, ids[:most], strict=False):
            if ours != theirs:
                break
            shared += 1
        if shared and self._can_remove(known - shared):
            self._cache.crop(shared - known)  # negative: how many tokens to take away
            self._ids = self._ids[:shared]
            return shared
        self._cache, self._ids = None, []
        return 0

    def _can_remove(self, tokens: int) -> bool:
        if isinstance(self._cache, KeyValueCache):
            return True
        from hftool.nn.transformers_cache import can_crop

        return can_crop(self._cache, tokens)


def _log_prefill(tokens: int, began: float) -> None:
    seconds = time.perf_counter() - began
    log.debug("prefill: %d tokens in %.2f s, %.0f tokens/s", tokens, seconds, tokens / seconds)


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

"""Logits after a sequence of tokens, computing only what the key-value cache does not have yet."""

import logging
import time
from collections.abc import Iterator, Sequence

import torch

from hftool.errors import HftoolError, NoCacheError, is_little_memory
from hftool.generation.drawing import check_finite
from hftool.models.language_model import LanguageModel, selected_sources
from hftool.nn.products import OneDnnProducts

log = logging.getLogger("hftool")

LOGITS_PER_SLICE = 2**23  # positions times vocabulary
BRANCH_BYTES = 2**28  # of the caches of continuations that are computed together
BRANCH_TOKENS = 256  # of those continuations
PREFILL_SLICE = 512  # tokens per pass in float32, twice as many in bfloat16: bounds the memory


class CachedModel:
    """A language model and the key-value cache of the tokens that it has seen.

    `rewinds` keeps what a sliding window would discard, so that the cache can be cropped cheaply:
    for speculative decoding, and for chats, whose template may render an earlier turn differently
    from how the model wrote it.
    """

    def __init__(self, language_model: LanguageModel, *, rewinds: bool = False) -> None:
        self._language_model = language_model
        self._rewinds = rewinds
        self._source = language_model.encode([language_model.source])
        self._continues = False  # the last pass went on from tokens in the cache
        self._reset()

    def _reset(self) -> None:
        # A model without a cache computes all tokens each time, in one pass.
        self._cache = self._language_model.new_cache(rewinds=self._rewinds)
        self._ids: list[int] = []  # the tokens in the cache
        self._length = 0  # of the longest text that they were computed in

    def fitting(self, ids: Sequence[int], more: list[int]) -> list[int]:
        """Return as many of `more` as can be computed in one pass after `ids`: as fit the context,
        and have the same angles."""
        limit = self._language_model.context_length
        most = len(more) if limit is None else max(0, limit - len(ids))
        dependence = self._language_model.length_dependence
        while dependence is not None and dependence.differ(len(ids), len(ids) + most):
            most -= 1
        return more[:most]

    def next_logits(self, ids: Sequence[int]) -> torch.Tensor:
        """Return the logits of the token that follows `ids`: float32 [vocabulary].

        The tokens that `ids` and those of the call before begin with are not computed again.

        Raises:
            HftoolError: `ids` is longer than the context, the logits are not finite, or the memory
                does not suffice.
        """
        return self.last_logits(ids, 1)[0]

    @torch.inference_mode()
    def last_logits(self, ids: Sequence[int], count: int) -> torch.Tensor:
        """Return the logits after each of the last `count` of `ids`: float32 [count, vocabulary].

        Raises: as `next_logits`.
        """
        require_context(self._language_model, len(ids))
        began = time.perf_counter()
        cached = self._rewind(ids, len(ids) - count)
        try:
            logits = self._compute(ids, cached, count)
        except HftoolError as error:
            if self._cache is None or not _is_of_cache(error, self._continues):
                raise
            # Some models take only single tokens after those in their cache, or have none.
            self._language_model.keeps_cache = False
            self._reset()
            try:
                logits = self._compute(ids, 0, count)
            except HftoolError:
                self._language_model.keeps_cache = True
                raise error from error.__cause__
            log.debug("without a key-value cache: %s", error)
        if len(ids) - cached > count:
            _log_prefill(len(ids) - cached, began)
        check_finite(logits, self._language_model.model.dtype)
        return logits

    @torch.inference_mode()
    def branch_logits(
        self, ids: Sequence[int], branches: Sequence[Sequence[int]]
    ) -> Iterator[torch.Tensor]:
        """Yield the logits after each token of each of several continuations of `ids`: float32
        [tokens, vocabulary].

        `ids` are computed once, and continuations together, as many as the memory allows for their
        copies of the cache.

        Raises: as `next_logits`.
        """
        for some in self._together(ids, branches):
            logits = self._side_by_side(ids, some) if len(some) > 1 else None
            for i, branch in enumerate(some):
                if logits is None:
                    yield self.last_logits([*ids, *branch], len(branch))
                else:
                    yield logits[i, : len(branch)]

    def _together(
        self, ids: Sequence[int], branches: Sequence[Sequence[int]]
    ) -> Iterator[Sequence[Sequence[int]]]:
        """Yield the continuations that are computed in one pass each."""
        rows = 1
        model = self._language_model
        if len(branches) > 1 and ids and model.can_batch and model.length_dependence is None:
            self._hold(ids)
            if self._cache is not None:
                rows = max(1, BRANCH_BYTES // max(1, self._cache.nbytes))
        begin = width = 0
        for end, branch in enumerate(branches):
            width = max(width, len(branch))
            if end > begin and (end - begin == rows or (end + 1 - begin) * width > BRANCH_TOKENS):
                yield branches[begin:end]
                begin, width = end, len(branch)
        yield branches[begin:]

    def _hold(self, ids: Sequence[int]) -> None:
        """Let the cache have these tokens, and no more."""
        if self._rewind(ids, len(ids)) < len(ids):
            self.last_logits(ids, 1)

    def _side_by_side(
        self, ids: Sequence[int], branches: Sequence[Sequence[int]]
    ) -> torch.Tensor | None:
        """Return the logits after the tokens of continuations of `ids`, which are in the cache:
        float32 [continuations, tokens, vocabulary], padded on the right; None if the model can't
        compute several after those in its cache."""
        width = max(map(len, branches))
        require_context(self._language_model, len(ids) + width)
        self._hold(ids)
        if self._cache is None:
            return None
        padded = [[*branch, *[0] * (width - len(branch))] for branch in branches]
        rows = torch.tensor(padded, device=self._language_model.model.device)
        cache = self._cache.repeated(len(branches))
        cache.expect(len(ids) + width)
        source = selected_sources(self._source, [0] * len(branches))
        try:
            with OneDnnProducts():
                logits = self._language_model.forward(rows, cache, **source)
        except HftoolError as error:
            if not _is_of_cache(error, True):
                raise
            return None
        check_finite(logits, self._language_model.model.dtype)
        return logits

    def _compute(self, ids: Sequence[int], cached: int, count: int) -> torch.Tensor:
        """Compute the tokens after the first `cached`, and return the logits after the last
        `count`: float32 [count, vocabulary]."""
        if self._cache is not None:
            self._cache.expect(len(ids))
        logits: torch.Tensor | None = None
        for start, end in self._slices(cached, len(ids), count):
            self._continues = start > 0
            try:
                logits = self._forward(ids[start:end], count if end == len(ids) else 1)
            except BaseException:
                # An interrupt leaves some layers with more tokens than others.
                self._reset()
                raise
            if self._cache is not None:
                self._ids = list(ids[:end])
                self._length = max(self._length, end)
        assert logits is not None  # at least `count` tokens are computed
        return logits

    def _slices(self, start: int, length: int, count: int) -> Iterator[tuple[int, int]]:
        """Yield the slices from `start` to compute in one pass each; the last `count` tokens, whose
        logits are requested, are all in the last one."""
        half = self._language_model.model.dtype.itemsize < 4
        width = 2 * PREFILL_SLICE if half else PREFILL_SLICE
        requested = length - count
        dependence = self._language_model.length_dependence
        whole = dependence is not None and dependence.differ(0, length)
        while start < length:
            rest = self._cache is None or whole or start + width >= length or start == requested
            end = length if rest else min(start + width, requested)
            yield start, end
            start = end

    @torch.inference_mode()
    def all_logits(self, ids: Sequence[int]) -> Iterator[torch.Tensor]:
        """Yield the logits after each of `ids`, in slices [tokens, vocabulary] of some megabytes.

        Raises: as `next_logits`.
        """
        require_context(self._language_model, len(ids))
        began = time.perf_counter()
        self._reset()  # frees the memory of the other cache
        model = self._language_model.model
        cache = self._language_model.new_cache()
        width = max(1, LOGITS_PER_SLICE // self._language_model.embedding_rows)
        dependence = self._language_model.length_dependence
        if cache is None or (dependence is not None and dependence.differ(0, len(ids))):
            width = max(1, len(ids))
        if len(ids) <= width:  # a cache would not be used
            cache = None
        if cache is not None:
            cache.expect(len(ids))
        for start in range(0, len(ids), width):
            part = torch.tensor([list(ids[start : start + width])], device=model.device)
            try:
                logits = self._language_model.forward(part, cache, **self._source)[0].cpu()
            except HftoolError as error:
                if cache is None or not _is_of_cache(error, start > 0):
                    raise
                whole = torch.tensor([list(ids)], device=model.device)
                logits = self._language_model.forward(whole, **self._source)[0, start:].cpu()
            check_finite(logits, model.dtype)
            yield logits
            if len(logits) > width:
                break
        _log_prefill(len(ids), began)

    def _forward(self, ids: Sequence[int], count: int) -> torch.Tensor:
        """Add ids to the cache, and return the logits after the last `count` of them: float32
        [count, vocabulary]."""
        device = self._language_model.model.device
        new = torch.tensor([list(ids)], device=device)
        return self._language_model.forward(new, self._cache, last=count, **self._source)[0]

    def _rewind(self, ids: Sequence[int], most: int) -> int:
        """Crop the cache to the tokens that it shares with the first `most` of `ids`.

        Returns: the number of these tokens.
        """
        cached = len(self._ids)
        dependence = self._language_model.length_dependence
        if dependence is not None and dependence.differ(self._length, len(ids)):
            self._reset()
            return 0
        if cached <= most and list(ids[:cached]) == self._ids:
            return cached
        shared = 0
        for ours, theirs in zip(self._ids, ids[:most], strict=False):
            if ours != theirs:
                break
            shared += 1
        if shared and self._cache is not None and self._cache.can_crop(cached - shared):
            self._cache.crop(cached - shared)
            self._ids = self._ids[:shared]
            return shared
        self._reset()
        return 0


def _is_of_cache(error: HftoolError, continues: bool) -> bool:
    """Return whether a model may compute without a cache what failed with one."""
    return isinstance(error, NoCacheError) or (continues and not is_little_memory(error))


def _log_prefill(tokens: int, began: float) -> None:
    seconds = time.perf_counter() - began
    log.debug("prefill: %d tokens in %.2f s, %.0f tokens/s", tokens, seconds, tokens / seconds)


def require_context(language_model: LanguageModel, tokens: int) -> None:
    """Raise an error if a prompt of this number of tokens does not fit the model's context.

    Raises:
        HftoolError: with both numbers.
    """
    limit = language_model.context_length
    if limit is not None and tokens > limit:
        raise HftoolError(
            f"the prompt has {tokens} tokens; the context of {language_model.name} holds {limit}",
            "shorten it: `hftool encode --max-tokens N` shows where it would be cut",
        )

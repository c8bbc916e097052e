"""Generate several texts side by side: each pass of the model gives every text its next token."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import psutil
import torch

from hftool.errors import HftoolError
from hftool.generation.drawing import Sampler, are_finite, check_finite, sample_batch
from hftool.generation.filters import build_filters
from hftool.generation.generate import (
    Continuation,
    log_context_full,
    log_cut_thought,
    new_token_limit,
)
from hftool.generation.prefix_cache import PREFILL_SLICE, CachedModel
from hftool.generation.records import CandidateGenerator, FailedRequest, Generation, Request
from hftool.generation.sequential import generate_each
from hftool.inputs.readahead import read_ahead
from hftool.models.language_model import LanguageModel, selected_sources
from hftool.nn.cache import Cache

log = logging.getLogger("hftool")

MAX_BATCH_SIZE = 64  # beyond it two cores gain little, and the first answer takes long
BATCHES_AHEAD = 4  # batches of requests that are read ahead and sorted by length
PADDING_SAMPLE = 16  # tokens to try padding with
# By how much of their size the logits of a padded prompt may differ: by rounding, no more.
PADDING_ERROR, PADDING_ERROR_HALF = 0.003, 0.15
MEMORY_SHARE = 0.5  # of the free memory, for the key-value cache of a batch


class BatchedModel:
    """A language model, and the key-value cache of several sequences padded on the left.

    Args:
        checked: first compute a short padded batch, to see if the model gives its rows what they
            have alone.
    """

    def __init__(self, language_model: LanguageModel, *, checked: bool = True) -> None:
        self._language_model = language_model
        self._cache: Cache | None = None
        self._mask = torch.empty(0)
        self._source: dict[str, Any] = {}
        self._checked = checked

    @torch.inference_mode()
    def prefill(
        self, rows: Sequence[Sequence[int]], sources: Sequence[Sequence[int]] = ()
    ) -> torch.Tensor:
        """Return the logits after each row of ids: float32 [rows, vocabulary].

        Args:
            sources: what an encoder-decoder reads for each row.

        Raises:
            HftoolError: there is not enough memory, or the model can't compute these rows together.
        """
        width = max(map(len, rows))
        if self._checked and len(rows) > 1:
            read = sources if self._language_model.is_encoder_decoder else rows
            self._require_padding(max(read, key=len))
        self._source = self._language_model.encode(sources)
        if self._source and min(map(len, rows)) < width:
            raise HftoolError("the texts begin with different numbers of tokens")
        device = self._language_model.model.device
        padded = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=device)
        filled = torch.tensor(
            [[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device
        )
        self._cache, self._mask = self._language_model.new_cache(), filled[:, :0]
        logits = torch.empty(0)
        for start in range(0, width, PREFILL_SLICE):
            part = slice(start, start + PREFILL_SLICE)
            logits = self._forward(padded[:, part], filled[:, part])
        return logits

    @torch.inference_mode()
    def step(self, ids: Sequence[int]) -> torch.Tensor:
        """Add an id to each row, and return the logits after it: float32 [rows, vocabulary]."""
        column = torch.tensor(ids, device=self._mask.device)[:, None]
        return self._forward(column, torch.ones_like(column))

    def keep(self, rows: Sequence[int]) -> None:
        """Continue with only these rows."""
        indices = torch.tensor(rows, device=self._mask.device)
        assert self._cache is not None  # as `LanguageModel.can_batch` requires
        self._cache.select(indices)
        self._mask = self._mask[indices]
        self._source = selected_sources(self._source, rows)

    def cache_bytes(self) -> int:
        """Return the size of the keys and values."""
        return self._cache.nbytes if self._cache is not None else 0

    def _forward(self, ids: torch.Tensor, filled: torch.Tensor) -> torch.Tensor:
        language_model = self._language_model
        self._mask = torch.cat([self._mask, filled], dim=1)
        dependence = language_model.length_dependence
        if dependence is not None and dependence.differ(0, int(self._mask.sum(1).max())):
            raise HftoolError("the positions of a text depend on its length")
        if self._source:
            return language_model.forward(ids, self._cache, last=1, **self._source)[:, 0]
        inputs = {"attention_mask": self._mask}
        if "position_ids" in language_model.argument_names:
            positions = (self._mask.cumsum(1) - 1).clamp(min=0)
            inputs["position_ids"] = positions[:, -ids.shape[1] :]
        return language_model.forward(ids, self._cache, last=1, **inputs)[:, 0]

    def _require_padding(self, ids: Sequence[int]) -> None:
        """Raise where the model gives padded rows other logits than those that they have alone.

        No signature tells this: some models count padding as positions, or let it into a state.
        """
        language_model = self._language_model
        if language_model.pads is None:
            sample = (list(ids) * PADDING_SAMPLE)[:PADDING_SAMPLE]
            row, next_id = sample[: PADDING_SAMPLE // 4], ids[0]
            rows: list[list[int]] = [sample, row]
            sources: list[list[int]] = []
            if language_model.is_encoder_decoder:
                language_model, sources = language_model.reading(row), rows
                row, _ = language_model.split_prompt(row)
                rows = [row, row]
            together, alone = (
                BatchedModel(language_model, checked=False),
                CachedModel(language_model),
            )
            pairs = [
                (together.prefill(rows, sources)[1], alone.next_logits(row)),
                (together.step([next_id, next_id])[1], alone.next_logits([*row, next_id])),
            ]
            exact = language_model.model.dtype.itemsize == 4
            limit = PADDING_ERROR if exact else PADDING_ERROR_HALF
            far = max(float((a - b).norm() / (b - b.mean()).norm()) for a, b in pairs)
            self._language_model.pads = far < limit
            log.debug("a padded prompt has logits that differ by %.2g of their size", far)
        if not self._language_model.pads:
            raise HftoolError("the model does not ignore padding")


def generate_side_by_side(
    language_model: LanguageModel, requests: Sequence[Request]
) -> Iterator[tuple[int, Generation | FailedRequest]]:
    """Generate a text for each of several requests in one batch: yield the index of each request
    and its record, as soon as that is complete.

    Each request has its own settings and random numbers. Its text is the one that it would have
    outside a batch, as far as the model computes the same logits there (in float32, they differ in
    the last digits). A request whose logits are not numbers fails without affecting the others.

    Raises:
        HftoolError: the memory does not suffice, the model fails, or a prompt is longer than the
            context.
    """
    began = time.perf_counter()
    limits = [new_token_limit(language_model, r.ids, r.max_new_tokens) for r in requests]
    texts = [Continuation(language_model, request) for request in requests]
    samplers = [None if r.settings.seed is None else Sampler(r.settings.seed) for r in requests]
    filters = [
        build_filters(r.settings, language_model.reading(r.source), r.ids, limit)
        for r, limit in zip(requests, limits, strict=True)
    ]
    sequences = [list(request.ids) for request in requests]
    batched_model = BatchedModel(language_model)
    active = list(range(len(requests)))  # the requests in the batch, by its rows
    logits = batched_model.prefill(sequences, [r.source for r in requests])
    while active:
        finite = are_finite(logits).tolist()
        chosen = sample_batch(
            logits,
            [sequences[i] for i in active],
            [requests[i].settings for i in active],
            [filters[i] for i in active],
            [samplers[i] for i in active],
        )
        unfinished: list[int] = []
        for row, (i, token_id) in enumerate(zip(active, chosen, strict=True)):
            sequences[i].append(token_id)
            if not finite[row]:
                yield i, _fail(language_model, requests[i], logits[row])
                continue
            texts[i].add(token_id, logits[row])
            if texts[i].finish_reason or texts[i].count == limits[i]:
                yield i, _finish(texts[i], requests[i], limits[i])
            else:
                unfinished.append(row)
        if unfinished and len(unfinished) < len(active):
            batched_model.keep(unfinished)
        active = [active[row] for row in unfinished]
        if active:
            logits = batched_model.step([sequences[i][-1] for i in active])
    tokens, seconds = sum(text.count for text in texts), time.perf_counter() - began
    speed = tokens / seconds
    log.debug("batch of %d: %d tokens in %.2f s, %.1f tokens/s", len(texts), tokens, seconds, speed)


def _finish(text: Continuation, request: Request, limit: int) -> Generation:
    text.end()
    if text.finish_reason is None and limit < request.max_new_tokens:
        log_context_full(limit)
    record = text.record()
    log_cut_thought(record)
    return record


def _fail(language_model: LanguageModel, request: Request, logits: torch.Tensor) -> FailedRequest:
    try:
        check_finite(logits, language_model.model.dtype)
    except HftoolError as error:
        return FailedRequest(request.id, request.line, str(error))
    raise AssertionError("the logits are finite")


def generate_batch(
    language_model: LanguageModel,
    requests: Iterable[Request | FailedRequest],
    batch_size: int | None = None,
    candidate_generator: CandidateGenerator | None = None,
) -> Iterator[Generation | FailedRequest]:
    """Yield a record for each request, in order; requests that failed before are passed on.

    Each record is yielded as soon as it and those before it are known. A request on which the
    model fails gets a record with the cause, and the others their texts.

    The requests that have arrived are batched by the length of their prompts, so requests that
    arrive one by one are answered immediately. Memory does not grow with their number. Beam search
    and candidate generators work on a single request at a time.
    """
    most = batch_size or MAX_BATCH_SIZE
    may_batch = candidate_generator is None and language_model.can_batch
    for window in read_ahead(requests, most * BATCHES_AHEAD, lambda request: 1):
        waiting: dict[int, Request] = {}
        batches: list[list[int]] = []
        for index, item in enumerate(window):
            if isinstance(item, Request) and may_batch and item.beams is None:
                waiting[index] = item
            else:
                batches.append([index])
        batches += _batches(language_model, waiting, most, limited=batch_size is None)
        done: dict[int, Generation | FailedRequest] = {}
        next_index = 0
        # First the batch with the first request, so that its record does not wait for others.
        for batch in sorted(batches, key=min):
            items = {index: window[index] for index in batch}
            for index, record in _records(language_model, items, candidate_generator):
                done[index] = record
                while next_index in done:
                    yield done.pop(next_index)
                    next_index += 1


def _records(
    language_model: LanguageModel,
    requests: Mapping[int, Any],
    candidate_generator: CandidateGenerator | None,
) -> Iterator[tuple[int, Generation | FailedRequest]]:
    """Yield the key of each request of a batch and its record, as soon as that is known.

    Where the batch fails, run the requests that have no record yet one by one: those that fail
    alone are the cause.
    """
    rest = dict(requests)
    if len(rest) > 1:
        keys = list(rest)
        try:
            for i, record in generate_side_by_side(language_model, list(requests.values())):
                del rest[keys[i]]
                yield keys[i], record
        except HftoolError as error:
            log.debug("a batch failed (%s): its requests run one by one", error)
    for key, request in rest.items():
        yield key, _generate_single(language_model, request, candidate_generator)


def _generate_single(
    language_model: LanguageModel,
    request: Request | FailedRequest,
    candidate_generator: CandidateGenerator | None,
) -> Generation | FailedRequest:
    if isinstance(request, FailedRequest):
        return request
    try:
        *_, record = generate_each(language_model, [request], candidate_generator)
    except HftoolError as error:
        return FailedRequest(request.id, request.line, str(error))
    assert isinstance(record, Generation)  # the record is the last event
    return record


def _batches(
    language_model: LanguageModel, requests: dict[int, Request], most: int, *, limited: bool
) -> Iterator[list[int]]:
    """Yield batches of the keys of `requests`, sorted by the length of the prompts.

    A batch has at most `most` requests and, if `limited`, a key-value cache that fits the memory.
    """
    max_tokens = _tokens_that_fit(language_model) if limited and len(requests) > 1 else None
    batch: list[int] = []
    for index in sorted(requests, key=lambda i: len(requests[i].ids)):
        longest = len(requests[index].ids) + max(
            requests[i].max_new_tokens for i in (*batch, index)
        )
        too_large = max_tokens is not None and (len(batch) + 1) * longest > max_tokens
        if batch and (len(batch) == most or too_large):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _tokens_that_fit(language_model: LanguageModel) -> int:
    """Return for how many tokens the free memory can hold keys and values."""
    batched_model = BatchedModel(language_model)
    try:
        batched_model.prefill([[0]], [[0]])
    except HftoolError:  # then each request fails on its own, with its own cause
        return 0
    if language_model.model.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(language_model.model.device)
    else:
        free = psutil.virtual_memory().available
    return int(free * MEMORY_SHARE / max(1, batched_model.cache_bytes()))

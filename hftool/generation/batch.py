"""Generate several texts side by side: each pass of the model gives every text its next token."""

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

import psutil
import torch

from hftool.errors import HftoolError
from hftool.generation.batched_model import BatchedModel
from hftool.generation.drawing import Sampler, are_finite, check_finite, sample_batch
from hftool.generation.filters import build_filters
from hftool.generation.generate import (
    Continuation,
    log_context_full,
    log_cut_thought,
    new_token_limit,
)
from hftool.generation.records import CandidateGenerator, FailedRequest, Generation, Request
from hftool.generation.sequential import generate_each
from hftool.inputs.readahead import read_ahead
from hftool.models.language_model import LanguageModel

log = logging.getLogger("hftool")

MAX_BATCH_SIZE = 64  # beyond it two cores gain little, and the first answer takes long
BATCHES_AHEAD = 4  # batches of requests that are read ahead and sorted by length
# The share of the batch's places that must be free before others join.
JOINING_SHARE = 8
MEMORY_SHARE = 0.5  # of the free memory, for the key-value cache of a batch


class _Row:
    """A request in the batch: its tokens so far, and how to choose the next one."""

    def __init__(self, language_model: LanguageModel, request: Request) -> None:
        self.request = request
        self.ids = list(request.ids)
        self.limit = new_token_limit(language_model, request.ids, request.max_new_tokens)
        self.text = Continuation(language_model, request)
        self.settings = request.settings
        self.sampler = None if self.settings.seed is None else Sampler(self.settings.seed)
        model = language_model.reading(request.source)
        self.filters = build_filters(self.settings, model, request.ids, self.limit)

    @property
    def has_ended(self) -> bool:
        """Whether no token can follow."""
        return self.text.finish_reason is not None or self.text.count == self.limit


Outcome = Generation | FailedRequest | HftoolError
"""A record, or the error on which a request failed that may succeed alone."""


def generate_side_by_side(
    language_model: LanguageModel,
    requests: Sequence[Request],
    most: int = MAX_BATCH_SIZE,
    max_tokens: int | None = None,
) -> Iterator[tuple[int, Outcome]]:
    """Generate a text for each of several requests: yield the index of each request and its record,
    as soon as that is complete.

    Each request has its own settings and random numbers. Its text is the one that it would have
    outside a batch, as far as the model computes the same logits there (in float32, they differ in
    the last digits). A request whose logits are not numbers fails without affecting the others.
    Where the memory does not suffice, the model fails, or a prompt is longer than the context, an
    error is yielded for each request that was to be computed together.

    Args:
        most: the most requests in the batch. As some end, the next ones take their places.
        max_tokens: for how many tokens the batch may have keys and values.
    """
    began, total = time.perf_counter(), 0
    waiting = deque(range(len(requests)))
    batched_model = BatchedModel(language_model)
    active: list[int] = []  # the requests in the batch, by its rows
    rows: dict[int, _Row] = {}
    while active or waiting:
        chosen: list[tuple[int, int, torch.Tensor]] = []
        try:
            if active:
                logits = batched_model.step([rows[i].ids[-1] for i in active])
                chosen += _chosen(active, rows, logits)
        except HftoolError as error:
            yield from ((i, error) for i in active)
            batched_model.keep(active := [])
        new = _joining(requests, waiting, active, most, max_tokens, batched_model)
        try:
            if new:
                rows |= {i: _Row(language_model, requests[i]) for i in new}
                sources = [requests[i].source for i in new]
                logits = batched_model.add([requests[i].ids for i in new], sources)
                chosen += _chosen(new, rows, logits)
                active += new
        except HftoolError as error:
            yield from ((i, error) for i in new)
            batched_model.keep(range(len(active)))
        unfinished: list[int] = []
        for row, (i, token_id, of_row) in enumerate(chosen):
            outcome = _advance(language_model, rows[i], token_id, of_row)
            if outcome is None:
                unfinished.append(row)
                continue
            total += rows.pop(i).text.count
            yield i, outcome
        if len(unfinished) < len(active):
            kept = _without_holes(unfinished)
            batched_model.keep(kept)
            active = [active[row] for row in kept]
    seconds = time.perf_counter() - began
    speed = total / seconds
    log.debug("batches: %d tokens in %.2f s, %.1f tokens/s", total, seconds, speed)


def _joining(
    requests: Sequence[Request],
    waiting: deque[int],
    active: Sequence[int],
    most: int,
    max_tokens: int | None,
    batched_model: BatchedModel,
) -> list[int]:
    """Return the waiting requests that join the batch now, no longer among `waiting`.

    They join several at a time: to read a single prompt takes about as long as a token of the
    whole batch.
    """
    free = most - len(active)
    if active and (not batched_model.can_add or free < max(1, most // JOINING_SHARE)):
        return []
    sizes = [len(requests[i].ids) + requests[i].max_new_tokens for i in active]
    new: list[int] = []
    while waiting and len(new) < free:
        request = requests[waiting[0]]
        sizes.append(len(request.ids) + request.max_new_tokens)
        if max_tokens is not None and len(sizes) > 1 and len(sizes) * max(sizes) > max_tokens:
            break
        new.append(waiting.popleft())
    return new


def _chosen(
    active: Sequence[int], rows: Mapping[int, _Row], logits: torch.Tensor
) -> list[tuple[int, int, torch.Tensor]]:
    """Return each active request, its next token, and the logits [vocabulary] it is chosen from.

    Raises:
        HftoolError: a filter does not accept its settings.
    """
    of_batch = [rows[i] for i in active]
    chosen = sample_batch(
        logits,
        [row.ids for row in of_batch],
        [row.settings for row in of_batch],
        [row.filters for row in of_batch],
        [row.sampler for row in of_batch],
    )
    return list(zip(active, chosen, logits, strict=True))


def _without_holes(rows: Sequence[int]) -> list[int]:
    """Return these row numbers of a batch, in an order in which few rows move: the last ones fill
    the places of those that are not kept."""
    last = [row for row in rows if row >= len(rows)]
    kept = set(rows)
    return [row if row in kept else last.pop() for row in range(len(rows))]


def _advance(
    language_model: LanguageModel, row: _Row, token_id: int, logits: torch.Tensor
) -> Generation | FailedRequest | None:
    """Add a token to a text; return the text's record if it ends with it, or why it fails.

    Args:
        logits: those that the token was chosen from [vocabulary].
    """
    row.ids.append(token_id)
    if not bool(are_finite(logits)):
        return _fail(language_model, row.request, logits)
    row.text.add(token_id, logits)
    return _finish(row) if row.has_ended else None


def _finish(row: _Row) -> Generation:
    row.text.end()
    if row.text.finish_reason is None and row.limit < row.request.max_new_tokens:
        log_context_full(row.limit)
    record = row.text.record()
    log_cut_thought(record)
    return record


def _fail(language_model: LanguageModel, request: Request, logits: torch.Tensor) -> FailedRequest:
    """Return the failure of a request whose logits [vocabulary] are not numbers."""
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
        batched = {
            index: item
            for index, item in enumerate(window)
            if may_batch and isinstance(item, Request) and item.beams is None
        }
        if len(batched) == 1:
            batched = {}
        keys = _order(batched, most)
        max_tokens = _tokens_that_fit(language_model) if batched and batch_size is None else None
        outcomes = generate_side_by_side(
            language_model, [batched[key] for key in keys], most, max_tokens
        )
        done: dict[int, Generation | FailedRequest] = {}
        for index in range(len(window)):
            while index not in done:
                key, outcome = index, None
                if index in batched:
                    position, outcome = next(outcomes)
                    key = keys[position]
                if isinstance(outcome, HftoolError):
                    log.debug("a batch failed (%s): its requests run one by one", outcome)
                if outcome is None or isinstance(outcome, HftoolError):
                    outcome = _generate_single(language_model, window[key], candidate_generator)
                done[key] = outcome
            yield done.pop(index)


def _order(requests: Mapping[int, Request], most: int) -> list[int]:
    """Return the keys of requests in the order in which to begin them: those with prompts of about
    the same length together, and first those with the first request, so that its record does not
    wait for others."""
    by_length = sorted(requests, key=lambda key: len(requests[key].ids))
    batches = [by_length[start : start + most] for start in range(0, len(by_length), most)]
    return [key for batch in sorted(batches, key=min) for key in batch]


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


def _tokens_that_fit(language_model: LanguageModel) -> int:
    """Return for how many tokens the free memory can hold keys and values."""
    batched_model = BatchedModel(language_model)
    try:
        batched_model.add([[0]], [[0]])
    except HftoolError:  # then each request fails on its own, with its own cause
        return 0
    if language_model.model.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(language_model.model.device)
    else:
        free = psutil.virtual_memory().available
    return int(free * MEMORY_SHARE / max(1, batched_model.cache_bytes()))

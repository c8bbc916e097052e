"""Several generations side by side: one pass of the model gives each its next token."""

import inspect
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import psutil
import torch

from hftool.errors import HftoolError
from hftool.generation.generate import Continuation, log_context_full, room_for
from hftool.generation.prefix_cache import PREFILL_SLICE
from hftool.generation.records import CandidateGenerator, Failure, Generation, Request
from hftool.generation.sampling import Sampler, are_finite, check_finite, sample_batch
from hftool.generation.sequential import generate_each
from hftool.inputs.readahead import read_ahead
from hftool.models.load import LanguageModel, model_errors
from hftool.nn.llama import KeyValueCache, Llama

log = logging.getLogger("hftool")

MOST_ROWS = 64  # beyond it two cores gain little, and the first answer waits long
BATCHES_AHEAD = 4  # requests read ahead and sorted by length, in batches
MEMORY_SHARE = 0.5  # of the memory that is free, for the key-value cache of a batch


class BatchedModel:
    """A language model, and the key-value cache of several sequences padded on the left."""

    def __init__(self, language_model: LanguageModel) -> None:
        self._language_model = language_model
        self._cache: Any = None
        self._mask = torch.empty(0)

    @torch.inference_mode()
    def prefill(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """The logits behind each row of ids: float32 [rows, vocabulary].

        Raises:
            HftoolError: the memory does not suffice.
        """
        width = max(map(len, rows))
        device = self._language_model.model.device
        padded = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=device)
        filled = torch.tensor(
            [[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device
        )
        self._cache, self._mask = None, filled[:, :0]
        logits = torch.empty(0)
        for start in range(0, width, PREFILL_SLICE):
            part = slice(start, start + PREFILL_SLICE)
            logits = self._forward(padded[:, part], filled[:, part])
        return logits

    @torch.inference_mode()
    def step(self, ids: Sequence[int]) -> torch.Tensor:
        """The logits behind each row and one id more: float32 [rows, vocabulary]."""
        column = torch.tensor(ids, device=self._mask.device)[:, None]
        return self._forward(column, torch.ones_like(column))

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone."""
        kept = torch.tensor(rows, device=self._mask.device)
        self._cache.batch_select_indices(kept)
        self._mask = self._mask[kept]

    def cache_bytes(self) -> int:
        """The size of the keys and values."""
        if isinstance(self._cache, KeyValueCache):
            return self._cache.nbytes
        from hftool.nn.transformers_cache import nbytes

        return nbytes(self._cache)

    def _forward(self, ids: torch.Tensor, filled: torch.Tensor) -> torch.Tensor:
        language_model = self._language_model
        self._mask = torch.cat([self._mask, filled], dim=1)
        arguments: dict[str, Any] = {"logits_to_keep": 1} if language_model.keeps_logits else {}
        if _takes(language_model, "position_ids"):
            positions = (self._mask.cumsum(1) - 1).clamp(min=0)
            arguments["position_ids"] = positions[:, -ids.shape[1] :]
        with model_errors():
            output = language_model.model(
                input_ids=ids,
                attention_mask=self._mask,
                past_key_values=self._cache,
                use_cache=True,
                **arguments,
            )
        self._cache = output.past_key_values
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits


def _takes(language_model: LanguageModel, parameter: str) -> bool:
    return parameter in inspect.signature(language_model.model.forward).parameters


def can_batch(language_model: LanguageModel) -> bool:
    """Whether a model's sequences can be padded: it has a mask, and a cache of keys and values
    alone (a state would take the padding in)."""
    if isinstance(language_model.model, Llama):
        return True
    if not all(_takes(language_model, name) for name in ("attention_mask", "past_key_values")):
        return False
    from hftool.nn.transformers_cache import keeps_tokens

    return keeps_tokens(language_model.model.config)


def generate_rows(
    language_model: LanguageModel, requests: Sequence[Request]
) -> list[Generation | Failure]:
    """The continuations of several prompts at once, in their order.

    Each has its own settings and draws: its text is the one it has alone, as far as the model's
    arithmetic is the same in a batch (in float32 it differs in the last digits).
    A row whose logits are no numbers fails alone.

    Raises:
        HftoolError: the memory does not suffice, or a prompt is longer than the context.
    """
    began = time.perf_counter()
    rooms = [room_for(language_model, r.ids, r.max_new_tokens) for r in requests]
    texts = [Continuation(language_model, request) for request in requests]
    samplers = [None if r.settings.seed is None else Sampler(r.settings.seed) for r in requests]
    known = [list(request.ids) for request in requests]
    found: list[Generation | Failure | None] = [None] * len(requests)
    decoder = BatchedModel(language_model)
    live = list(range(len(requests)))
    logits = decoder.prefill(known)
    while live:
        finite = are_finite(logits).tolist()
        chosen = sample_batch(
            logits,
            [known[i] for i in live],
            [requests[i].settings for i in live],
            [samplers[i] for i in live],
        )
        for row, (i, token_id) in enumerate(zip(live, chosen, strict=True)):
            known[i].append(token_id)
            if not finite[row]:
                found[i] = _no_numbers(language_model, requests[i], logits[row])
                continue
            texts[i].add(token_id, logits[row])
            if texts[i].finish_reason or texts[i].count == rooms[i]:
                found[i] = _finished(texts[i], requests[i], rooms[i])
        going = [row for row, i in enumerate(live) if found[i] is None]
        if going and len(going) < len(live):
            decoder.keep(going)
        live = [live[row] for row in going]
        if live:
            logits = decoder.step([known[i][-1] for i in live])
    tokens, seconds = sum(text.count for text in texts), time.perf_counter() - began
    speed = tokens / seconds
    log.debug("batch of %d: %d tokens in %.2f s, %.1f tokens/s", len(texts), tokens, seconds, speed)
    return [record for record in found if record is not None]


def _finished(text: Continuation, request: Request, room: int) -> Generation:
    text.end()
    if text.finish_reason is None and room < request.max_new_tokens:
        log_context_full(room)
    return text.record()


def _no_numbers(language_model: LanguageModel, request: Request, logits: torch.Tensor) -> Failure:
    try:
        check_finite(logits, language_model.model.dtype)
    except HftoolError as error:
        return Failure(request.id, request.line, str(error))
    raise AssertionError("the logits are numbers")


def generate_batch(
    language_model: LanguageModel,
    requests: Iterable[Request | Failure],
    batch_size: int | None = None,
    draft: CandidateGenerator | None = None,
) -> Iterator[Generation | Failure]:
    """A record for each request, in order; what failed before is passed on.

    Requests that have arrived are batched by the length of their prompts; where they arrive one
    by one each is answered at once. Memory does not grow with their number.

    Raises:
        HftoolError: the memory does not suffice for a batch.
    """
    most = batch_size or MOST_ROWS
    batchable = draft is None and can_batch(language_model)
    for window in read_ahead(requests, most * BATCHES_AHEAD, lambda request: 1):
        done: dict[int, Generation | Failure] = {}
        together: dict[int, Request] = {}
        for place, item in enumerate(window):
            if isinstance(item, Failure):
                done[place] = item
            elif batchable and item.beams is None:
                together[place] = item
            else:
                done[place] = _alone(language_model, item, draft)
        told = 0
        for batch in _batches(language_model, together, most, limited=batch_size is None):
            records = generate_rows(language_model, [together[place] for place in batch])
            done.update(zip(batch, records, strict=True))
            while told in done:
                yield done.pop(told)
                told += 1
        yield from (done[place] for place in sorted(done))


def _alone(
    language_model: LanguageModel, request: Request, draft: CandidateGenerator | None
) -> Generation | Failure:
    try:
        *_, record = generate_each(language_model, [request], draft)
    except HftoolError as error:
        return Failure(request.id, request.line, str(error))
    assert isinstance(record, Generation)  # the last event
    return record


def _batches(
    language_model: LanguageModel, requests: dict[int, Request], most: int, *, limited: bool
) -> Iterator[list[int]]:
    """Places of requests of like length, at most so many, and by their key-value cache no more
    than the memory holds."""
    tokens = _tokens_that_fit(language_model) if limited and len(requests) > 1 else None
    batch: list[int] = []
    for place in sorted(requests, key=lambda i: len(requests[i].ids)):
        longest = len(requests[place].ids) + max(
            requests[i].max_new_tokens for i in (*batch, place)
        )
        too_large = tokens is not None and (len(batch) + 1) * longest > tokens
        if batch and (len(batch) == most or too_large):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _tokens_that_fit(language_model: LanguageModel) -> int:
    """How many tokens' keys and values the free memory has room for."""
    decoder = BatchedModel(language_model)
    decoder.prefill([[0]])
    if language_model.model.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(language_model.model.device)
    else:
        free = psutil.virtual_memory().available
    return int(free * MEMORY_SHARE / max(1, decoder.cache_bytes()))

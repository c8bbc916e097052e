"""Beam search, by transformers' own `generate`."""

import logging
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from hftool.errors import HftoolError
from hftool.generation.beam_decoder import BeamDecoder
from hftool.generation.constraint_state import (
    ConstraintState,
    constraint_state,
)
from hftool.generation.drawing import check_finite
from hftool.generation.filters import build_filters, config_errors, known_biases
from hftool.generation.generate import Continuation, log_context_full, new_token_limit
from hftool.generation.prefix_cache import CachedModel
from hftool.generation.records import BeamSettings, Generation, Request
from hftool.generation.sampling import Filter
from hftool.models.language_model import LanguageModel
from hftool.models.model_errors import model_errors
from hftool.nn.architectures import UNORDERED_CACHE, UNRELIABLE_CACHE
from hftool.nn.decoder import Decoder
from hftool.nn.rope import forget_lengths
from hftool.options.constraints import CONSTRAINTS

log = logging.getLogger("hftool")

OWN_FILTERS = ("presence_penalty", "frequency_penalty", "dry", "ban", "think_tokens", *CONSTRAINTS)
FILE_FIELDS = ("early_stopping", "bos_token_id", "decoder_start_token_id")


def search(
    language_model: LanguageModel, request: Request, beams: BeamSettings
) -> Iterator[Generation]:
    """Yield the best continuations, best first.

    If the request's settings have a seed, tokens are sampled for the beams.

    Raises: as `hftool.generation.generate.generate`.
    """
    language_model = language_model.reading(request.source)
    began = time.perf_counter()
    limit = new_token_limit(language_model, request.ids, request.max_new_tokens)
    sequences = _sequences(language_model, request, beams, limit)
    state = constraint_state(request.settings, language_model, request.ids)
    if state is not None:
        sequences = _satisfying(state, sequences, language_model.end_ids)
    for number, ids in enumerate(sequences):
        continuation = Continuation(language_model, request, began)
        rows = _logits_for(language_model, request, ids)
        for token_id, logits in zip(ids, rows, strict=False):
            continuation.add(token_id, logits)
            if continuation.finish_reason:  # only padding follows
                break
        continuation.end()
        if continuation.finish_reason is None and limit < request.max_new_tokens:
            log_context_full(limit)
        yield replace(continuation.record(), index=request.index + number)


def _satisfying(
    state: ConstraintState, sequences: Sequence[list[int]], ends: Container[int]
) -> list[list[int]]:
    """Return the sequences that don't violate a constraint, each once: where it allows fewer tokens
    than there are beams, the other beams violate it or repeat the first.

    Raises:
        HftoolError: none is left.
    """
    left: list[list[int]] = []
    for ids in sequences:
        length = next((i for i, token_id in enumerate(ids, 1) if token_id in ends), len(ids))
        state.advance(ids[:length])
        if not state.violated and ids not in left:
            left.append(ids)
    if not left:
        raise HftoolError(f"no beam goes on under --{state.constraint.kind}")
    if len(left) < len(sequences):
        log.warning("the constraint leaves only %d of %d beams", len(left), len(sequences))
    return left


def _logits_for(
    language_model: LanguageModel, request: Request, ids: Sequence[int]
) -> Iterator[torch.Tensor | None]:
    """Yield the logits [vocabulary] that each of `ids` was chosen from, or None where the request
    does not ask for log-probabilities."""
    if request.logprobs is None:
        yield from [None] * len(ids)
        return
    slices = CachedModel(language_model).all_logits([*request.ids, *ids[:-1]])
    yield from islice((row for rows in slices for row in rows), len(request.ids) - 1, None)


def _sequences(
    language_model: LanguageModel, request: Request, beams: BeamSettings, limit: int
) -> list[list[int]]:
    """Return the generated ids of the best beams, padded to the length of the longest."""
    language_model.require_known(request.ids)
    with config_errors():
        config = _config(language_model, request, beams, limit)
        filters = build_filters(request.settings, language_model, request.ids, limit)
    model = language_model.model
    if isinstance(model, Decoder):
        model = BeamDecoder(model)
    prompt = torch.tensor([request.source or request.ids], device=model.device)
    inputs: dict[str, Any] = {}
    if request.source:
        inputs["decoder_input_ids"] = torch.tensor([request.ids], device=model.device)
        config.decoder_start_token_id = request.ids[0]
    if request.settings.seed is not None:
        torch.manual_seed(request.settings.seed)
    if language_model.length_dependence is not None and language_model.length_dependence.grows:
        forget_lengths(model)
    make: Any = GenerationConfig
    model.generation_config = make()  # otherwise that of the file would complete `_config`
    with model_errors():
        sequences = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            **inputs,
            generation_config=config,
            logits_processor=LogitsProcessorList(
                [
                    _RequireFinite(model.dtype),
                    *(_Own(item) for item in filters if item.name in OWN_FILTERS),
                ]
            ),
            stopping_criteria=StoppingCriteriaList(
                [_StopStrings(language_model, request), _Complete(language_model, request)]
            ),
        )
    return [[int(i) for i in row[len(request.ids) :]] for row in sequences]


def _config(
    language_model: LanguageModel, request: Request, beams: BeamSettings, limit: int
) -> Any:
    """Return all settings of the search: no more of the file's than without beams."""
    settings, config = request.settings, language_model.generation_config
    ends = sorted(language_model.end_ids)
    sampling: dict[str, Any] = {}
    if not settings.greedy:
        sampling = {
            "temperature": settings.temperature,
            "top_k": settings.top_k,
            "top_p": settings.top_p,
            "min_p": settings.min_p or None,
            "typical_p": settings.typical_p,
            "top_h": settings.top_h or None,
            "epsilon_cutoff": settings.epsilon_cutoff,
            "eta_cutoff": settings.eta_cutoff,
        }
    make: Any = GenerationConfig
    further = {**settings.further, "use_cache": _keeps_cache(language_model)}
    if language_model.is_encoder_decoder:
        further.pop("guidance_scale", None)  # as in `named_processors`
    if settings.bias:
        given = known_biases(settings, language_model)
        more = [[list(ids), bias] for ids, bias in given.items()]
        further["sequence_bias"] = [*further.get("sequence_bias", []), *more]
    if settings.ignore_eos:
        further["suppress_tokens"] = [*further.get("suppress_tokens", []), *ends]
    if settings.min_new_tokens:
        further["min_new_tokens"] = settings.min_new_tokens
    size = further.get("encoder_no_repeat_ngram_size")
    if isinstance(size, int) and size > len(request.source or request.ids):  # `named_processors`
        del further["encoder_no_repeat_ngram_size"]
    return make(
        **further,
        **{name: config[name] for name in FILE_FIELDS if config.get(name) is not None},
        num_beams=beams.num_beams,
        num_return_sequences=beams.num_return_sequences,
        length_penalty=beams.length_penalty,
        max_new_tokens=limit,
        do_sample=not settings.greedy,
        repetition_penalty=settings.repetition_penalty,
        no_repeat_ngram_size=settings.no_repeat_ngram_size,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else 0,
        **sampling,
    )


def _keeps_cache(language_model: LanguageModel) -> bool:
    """Return whether a search with a cache finds what one without finds."""
    dependence, model_type = (
        language_model.length_dependence,
        language_model.model.config.model_type,
    )
    unreliable = model_type in (*UNRELIABLE_CACHE, *UNORDERED_CACHE)
    return not unreliable and not (dependence and dependence.grows)


class _Own(LogitsProcessor):
    """A filter that transformers does not have."""

    def __init__(self, item: Filter) -> None:
        self._filter = item

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return self._filter(input_ids, scores)


class _RequireFinite(LogitsProcessor):
    """Fails a search whose logits are not numbers."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        check_finite(scores, self._dtype)
        return scores


class _StopStrings(StoppingCriteria):
    """Ends a beam whose text contains a stop string."""

    def __init__(self, language_model: LanguageModel, request: Request) -> None:
        self._tokenizer = language_model.tokenizer
        self._request = request

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        stopped = [self._has_stop(row[len(self._request.ids) :].tolist()) for row in input_ids]
        return torch.tensor(stopped, device=input_ids.device)

    def _has_stop(self, ids: list[int]) -> bool:
        if not self._request.stop:
            return False
        text = self._tokenizer.decode(ids, self._request.skip_special)
        return any(stop in text for stop in self._request.stop)


class _Complete(StoppingCriteria):
    """Ends a beam whose text satisfies the constraint, if nothing can follow: the model may have no
    token for its end."""

    def __init__(self, language_model: LanguageModel, request: Request) -> None:
        self._state = constraint_state(request.settings, language_model, request.ids)
        self._prompt_length = len(request.ids)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        complete = [self._is_complete(row) for row in input_ids[:, self._prompt_length :].tolist()]
        return torch.tensor(complete, device=input_ids.device)

    def _is_complete(self, ids: list[int]) -> bool:
        if self._state is None:
            return False
        self._state.advance(ids)
        return self._state.complete

"""Generate one text token by token: stop it, and decide which part of it is safe to show."""

import logging
import math
import time
from collections.abc import Iterator, Sequence

import torch

from hftool.generation.constraint_state import constraint_state
from hftool.generation.drawing import Sampler
from hftool.generation.filters import build_filters
from hftool.generation.prefix_cache import CachedModel, require_context
from hftool.generation.records import (
    Alternative,
    CandidateGenerator,
    FinishReason,
    Generation,
    Piece,
    Request,
    TokenLogprob,
    Usage,
)
from hftool.generation.sampling import Filter, SamplingSettings, apply_filters
from hftool.models.language_model import LanguageModel
from hftool.prompting.reasoning import ReasoningSplitter, joined_parts, tag_ids, tags_of
from hftool.tokenization.incremental_decoder import IncrementalDecoder
from hftool.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hftool")

Part = tuple[str, bool]
"""A part of a text, and whether it is the model's reasoning."""


class Continuation:
    """A text that grows token by token until something ends it.

    At every moment the strings that `add` and `end` have returned form a prefix of the final text:
    incomplete characters are held back, and so is anything that may become a stop string.
    """

    def __init__(
        self, language_model: LanguageModel, request: Request, began: float | None = None
    ) -> None:
        self._end_ids = language_model.end_ids
        self._tokenizer = language_model.tokenizer
        self._request = request
        self._constraint = constraint_state(request.settings, language_model, request.ids)
        self._stream = IncrementalDecoder(
            language_model.tokenizer,
            skip_special=request.skip_special,
            clean_up=self._constraint is None,
        )
        self._tags = tags_of(self._tokenizer)
        opened = request.opened_thought
        self._splitter = None if opened is None else ReasoningSplitter(opened, self._tags)
        self._held_back = ""
        self._logprob = 0.0  # of the tokens since the last piece
        self._began = time.perf_counter() if began is None else began
        self._parts: list[Part] = []  # all that is certain
        self.logprobs: list[TokenLogprob] = []
        self.count = 0
        self.stop: str | None = None
        self.finish_reason: FinishReason | None = None

    def add(self, token_id: int, logits: torch.Tensor | None = None) -> list[Part]:
        """Append a token, and return the parts of the text that are now certain.

        Args:
            logits: the model's logits [vocabulary] that the token was chosen from, for its
                log-probability.
        """
        self.count += 1
        if logits is not None and self._request.logprobs is not None:
            constraint = self._constraint
            allowed = None if constraint is None else constraint.allowed(len(logits))
            top = self._request.logprobs
            self.logprobs.append(token_logprob(self._tokenizer, token_id, logits, top, allowed))
        if logits is not None and self._request.with_probs:
            logprobs = torch.log_softmax(logits.double(), dim=-1)
            self._logprob += float(logprobs[token_id])
        ended = token_id in self._end_ids
        text = "" if ended and self._request.skip_special else self._text_of(token_id)
        parts = self._split(self._release(text))
        if self._constraint is not None:
            self._constraint.add(token_id)
            ended = ended or self._constraint.complete
        if self.finish_reason is None and ended:
            self.finish_reason = "stop"
        return parts

    def _text_of(self, token_id: int) -> str:
        """Return the text that a token completes. The special tokens of a model's tags are text as
        long as a tag may come."""
        splitter = self._splitter
        if splitter is None or splitter.in_answer or token_id not in tag_ids(self._tokenizer):
            return self._stream.step(token_id)
        return self._stream.end() + self._tokenizer.added_tokens[token_id].content

    def _split(self, text: str, *, last: bool = False) -> list[Part]:
        """Return the parts of the text that are certain, now that this text is.

        Args:
            last: no more text follows.
        """
        parts = [(text, False)] if text else []
        if self._splitter is not None:
            parts = [*self._splitter.parts(text), *(self._splitter.rest() if last else ())]
        self._parts += parts
        return parts

    def end(self) -> list[Part]:
        """End the text, and return what was held back."""
        text = ""
        if self.stop is None:
            text = self._release(self._stream.end())
        if self.stop is None:
            text += self._held_back
        self._held_back = ""
        return self._split(text, last=True)

    def pieces(self, parts: list[Part]) -> Iterator[Piece]:
        """Yield the pieces of a text for the parts that `add` or `end` has returned."""
        prob = None
        if self._request.with_probs and parts:
            prob, self._logprob = math.exp(self._logprob), 0.0
        for part, is_reasoning in parts:
            yield Piece(part, prob, is_reasoning)

    def record(self) -> Generation:
        """Return the text as a record."""
        seconds = time.perf_counter() - self._began
        request, opened = self._request, self._request.opened_thought
        reasoning, text = joined_parts(self._parts, bool(opened), self._tags)
        return Generation(
            id=request.id,
            index=request.index,
            prompt=request.prompt,
            text=request.echo + text,
            reasoning=reasoning,
            finish_reason=self.finish_reason or "length",
            stop=self.stop,
            usage=Usage(len(request.source or request.ids), self.count),
            seed=request.settings.seed,
            seconds=seconds,
            tokens_per_second=self.count / seconds if seconds else 0.0,
            valid=None if self._constraint is None else self._constraint.satisfied,
            logprobs=None if request.logprobs is None else tuple(self.logprobs),
        )

    def _release(self, text: str) -> str:
        """Add `text` to what is held back, and return the part that is certain: all before a stop
        string, or before anything that may be the beginning of one."""
        held = self._held_back + text
        matches = [(held.find(stop), stop) for stop in self._request.stop]
        if first := min(((at, stop) for at, stop in matches if at >= 0), default=None):
            at, self.stop = first
            self.finish_reason = "stop"
            self._held_back = ""
        else:
            at = len(held) - _partial_stop_length(held, self._request.stop)
            self._held_back = held[at:]
        return held[:at]


def _partial_stop_length(text: str, stops: Sequence[str]) -> int:
    """Return how many characters at the end of a text are the beginning of a stop string."""
    longest = max(map(len, stops), default=1) - 1
    lengths = range(min(longest, len(text)), 0, -1)
    return next((n for n in lengths if any(s.startswith(text[-n:]) for s in stops)), 0)


def token_logprob(
    tokenizer: Tokenizer,
    token_id: int,
    logits: torch.Tensor,
    top: int,
    allowed: torch.Tensor | None = None,
) -> TokenLogprob:
    """Return a token's log-probability and the `top` most probable tokens.

    Args:
        logits: the model's own, before any filter [vocabulary].
        allowed: the tokens that a constraint allows, if there is one: bool [vocabulary].
    """
    logprobs = torch.log_softmax(logits.double(), dim=-1)
    among: torch.Tensor | None = None
    if allowed is not None:
        left = logits.double().masked_fill(~allowed.to(logits.device), -torch.inf)
        among = torch.log_softmax(left, dim=-1)

    def constrained(i: int) -> float | None:
        return None if among is None or among[i] == -torch.inf else float(among[i])

    def best(of: torch.Tensor) -> tuple[Alternative, ...]:  # of log-probabilities [vocabulary]
        ids = of.topk(min(top, int((of > -torch.inf).sum()))).indices.tolist()
        return tuple(
            Alternative(i, tokenizer.token_text(i), float(logprobs[i]), constrained(i)) for i in ids
        )

    return TokenLogprob(
        token_id,
        tokenizer.token_text(token_id),
        float(logprobs[token_id]),
        best(logprobs),
        constrained(token_id),
        None if among is None else best(among),
    )


def token_ids(
    cached_model: CachedModel,
    ids: Sequence[int],
    settings: SamplingSettings,
    filters: Sequence[Filter],
    candidate_generator: CandidateGenerator | None = None,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield one token after another without end, each with the model's logits [vocabulary] for it.

    The model scores the tokens that `candidate_generator` guesses in a single pass, and accepts
    them up to the first that it would not have chosen itself, with the same random numbers. The
    text is therefore exactly the one without guesses. Speculative sampling (Leviathan et al. 2023)
    only guarantees the same distribution.

    Raises:
        HftoolError: the tokens no longer fit the context.
    """
    sampler = None if settings.seed is None else Sampler(settings.seed)
    sequence = list(ids)
    while True:
        guesses: list[int] = []
        if candidate_generator is not None:
            guesses = cached_model.fitting(sequence, candidate_generator(sequence))
        rows = cached_model.last_logits([*sequence, *guesses], len(guesses) + 1)
        for guess, logits in zip([*guesses, None], rows, strict=True):
            scores = apply_filters(logits, sequence, filters)
            if sampler is None:
                token_id = int(scores.argmax())
            else:
                token_id = sampler.draw(torch.softmax(scores, dim=-1)).id
            yield token_id, logits
            sequence.append(token_id)
            if token_id != guess:
                break


def generate(
    language_model: LanguageModel,
    request: Request,
    *,
    cached_model: CachedModel | None = None,
    candidate_generator: CandidateGenerator | None = None,
) -> Iterator[Piece | Generation]:
    """Continue a prompt: yield pieces of text as they are generated, then the record.

    Args:
        cached_model: the model with a cache that may hold the beginning of the prompt.

    Raises:
        HftoolError: the prompt is longer than the context, or the model's logits are not numbers.
    """
    if language_model.is_encoder_decoder:
        language_model, cached_model = language_model.reading(request.source), None
    continuation = Continuation(language_model, request)
    limit = new_token_limit(language_model, request.ids, request.max_new_tokens)
    cached_model = cached_model or CachedModel(
        language_model, rewinds=candidate_generator is not None
    )
    filters = build_filters(request.settings, language_model, request.ids, limit)
    tokens = token_ids(cached_model, request.ids, request.settings, filters, candidate_generator)
    if request.echo:
        yield Piece(request.echo)
    first = time.perf_counter()
    while continuation.count < limit and continuation.finish_reason is None:
        token_id, logits = next(tokens)
        if not continuation.count:
            first = time.perf_counter()
        yield from continuation.pieces(continuation.add(token_id, logits))
    yield from continuation.pieces(continuation.end())
    decode = time.perf_counter() - first
    full = continuation.finish_reason is None and limit < request.max_new_tokens
    record = continuation.record()
    yield record
    # Log only after the record: on a terminal it ends the line with the text.
    if full:
        log_context_full(limit)
    log_cut_thought(record)
    if (more := continuation.count - 1) > 0:
        log.debug("decode: %d tokens in %.2f s, %.1f tokens/s", more, decode, more / decode)


def new_token_limit(language_model: LanguageModel, ids: Sequence[int], max_new_tokens: int) -> int:
    """Return how many tokens can follow a prompt: `max_new_tokens`, or fewer if the context ends
    first.

    Raises:
        HftoolError: the prompt is longer than the context.
    """
    require_context(language_model, len(ids))
    context = language_model.context_length
    # The model never has to read the last token, so one more fits than the context holds.
    return max_new_tokens if context is None else min(max_new_tokens, context - len(ids) + 1)


def log_cut_thought(record: Generation) -> None:
    """Warn if a text ended before the model had begun its answer."""
    if record.reasoning is None or record.text:
        return
    if record.finish_reason == "length":
        log.warning(
            "the model was still thinking after %d tokens: --max-new-tokens allows more,"
            " --think-tokens N ends the thought",
            record.completion_tokens,
        )
    else:
        log.warning("the model has only thought, and given no answer")


def log_context_full(tokens: int) -> None:
    """Warn that generation stopped after this many tokens because the context is full."""
    log.warning("stopped after %d tokens: the context is full", tokens)

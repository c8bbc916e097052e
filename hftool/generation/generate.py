"""One generation, token by token: where it stops, and what of its text may be shown."""

import logging
import time
from collections.abc import Iterator, Sequence

import torch

from hftool.generation.prefix_cache import CachedModel, require_context
from hftool.generation.records import (
    Alternative,
    CandidateGenerator,
    FinishReason,
    Generation,
    Request,
    TokenLogprob,
    Usage,
)
from hftool.generation.sampling import Sampler, SamplingSettings, filtered, filters
from hftool.models.load import LanguageModel
from hftool.tokenization.incremental_decoder import IncrementalDecoder
from hftool.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hftool")


class Continuation:
    """A text that grows by tokens, up to what ends it.

    What `add` and `end` have returned is at every moment a prefix of the final text: a character
    that is not complete and what may become a stop string are held back.
    """

    def __init__(
        self, language_model: LanguageModel, request: Request, began: float | None = None
    ) -> None:
        self._end_ids = language_model.end_ids
        self._tokenizer = language_model.tokenizer
        self._request = request
        self._stream = IncrementalDecoder(
            language_model.tokenizer, skip_special=request.skip_special
        )
        self._held = ""
        self._began = time.perf_counter() if began is None else began
        self.pieces: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.count = 0
        self.stop: str | None = None
        self.finish_reason: FinishReason | None = None

    def add(self, token_id: int, logits: torch.Tensor | None = None) -> str:
        """Take a token, with the model's logits [vocabulary] at its place: the text that is
        certain now."""
        self.count += 1
        if logits is not None and self._request.logprobs is not None:
            self.logprobs.append(
                token_logprob(self._tokenizer, token_id, logits, self._request.logprobs)
            )
        ended = token_id in self._end_ids
        text = "" if ended and self._request.skip_special else self._stream.step(token_id)
        piece = self._released(text)
        if self.finish_reason is None and ended:
            self.finish_reason = "stop"
        return piece

    def end(self) -> str:
        """The text that was held back; nothing more comes."""
        piece = ""
        if self.stop is None:
            piece = self._released(self._stream.end())
        if self.stop is None and self._held:
            self.pieces.append(self._held)
            piece += self._held
        self._held = ""
        return piece

    def record(self) -> Generation:
        """What became of the request."""
        seconds = time.perf_counter() - self._began
        request = self._request
        return Generation(
            id=request.id,
            index=request.index,
            prompt=request.prompt,
            text=request.echo + "".join(self.pieces),
            finish_reason=self.finish_reason or "length",
            stop=self.stop,
            usage=Usage(len(request.ids), self.count),
            seed=request.settings.seed,
            seconds=seconds,
            tokens_per_second=self.count / seconds if seconds else 0.0,
            logprobs=None if request.logprobs is None else tuple(self.logprobs),
        )

    def _released(self, text: str) -> str:
        """What of the held text and `text` is certain: up to a stop string, or to what may be the
        beginning of one."""
        held = self._held + text
        found = [(held.find(stop), stop) for stop in self._request.stop]
        if met := min(((at, stop) for at, stop in found if at >= 0), default=None):
            at, self.stop = met
            self.finish_reason = "stop"
            self._held = ""
        else:
            at = len(held) - _beginning_at_the_end(held, self._request.stop)
            self._held = held[at:]
        if at:
            self.pieces.append(held[:at])
        return held[:at]


def _beginning_at_the_end(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of a text are the beginning of a stop string."""
    longest = max(map(len, stops), default=1) - 1
    lengths = range(min(longest, len(text)), 0, -1)
    return next((n for n in lengths if any(s.startswith(text[-n:]) for s in stops)), 0)


def token_logprob(
    tokenizer: Tokenizer, token_id: int, logits: torch.Tensor, top: int
) -> TokenLogprob:
    """A token's log-probability and the `top` best, from logits [vocabulary]."""
    logprobs = torch.log_softmax(logits.double(), dim=-1)
    best = logprobs.topk(min(top, len(logprobs)))
    return TokenLogprob(
        token_id,
        tokenizer.token_text(token_id),
        float(logprobs[token_id]),
        tuple(
            Alternative(i, tokenizer.token_text(i), value)
            for value, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ),
    )


def token_ids(
    decoder: CachedModel,
    ids: Sequence[int],
    settings: SamplingSettings,
    draft: CandidateGenerator | None = None,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Tokens without end, each with the model's logits [vocabulary] at its place.

    What `draft` guesses is scored in one pass and kept as far as it is what the model itself
    chooses there, by the same draws as without it: unlike in speculative sampling (Leviathan et
    al. 2023), where only the distribution stays the same, so does the text.

    Raises:
        HftoolError: the tokens no longer fit the context.
    """
    chain = filters(settings)
    sampler = None if settings.seed is None else Sampler(settings.seed)
    known = list(ids)
    while True:
        guessed = decoder.fitting(known, draft(known)) if draft else []
        rows = decoder.last_logits([*known, *guessed], len(guessed) + 1)
        for guess, logits in zip([*guessed, None], rows, strict=True):
            scores = filtered(logits, known, chain)
            if sampler is None:
                token_id = int(scores.argmax())
            else:
                token_id = sampler.draw(torch.softmax(scores, dim=-1)).id
            yield token_id, logits
            known.append(token_id)
            if token_id != guess:
                break


def generate(
    language_model: LanguageModel,
    request: Request,
    *,
    decoder: CachedModel | None = None,
    draft: CandidateGenerator | None = None,
) -> Iterator[str | Generation]:
    """The continuation of a prompt: its pieces of text as they are made, then the record.

    Args:
        decoder: a decoder whose cache may hold the beginning of the prompt.

    Raises:
        HftoolError: the prompt is longer than the context, or the model's logits are no numbers.
    """
    continuation = Continuation(language_model, request)
    room = room_for(language_model, request.ids, request.max_new_tokens)
    decoder = decoder or CachedModel(language_model, rewinds=draft is not None)
    tokens = token_ids(decoder, request.ids, request.settings, draft)
    if request.echo:
        yield request.echo
    first = time.perf_counter()
    while continuation.count < room and continuation.finish_reason is None:
        token_id, logits = next(tokens)
        if not continuation.count:
            first = time.perf_counter()
        if piece := continuation.add(token_id, logits):
            yield piece
    if rest := continuation.end():
        yield rest
    decode = time.perf_counter() - first
    full = continuation.finish_reason is None and room < request.max_new_tokens
    yield continuation.record()
    # After the record, which ends the line the text stands in.
    if full:
        log_context_full(room)
    if (more := continuation.count - 1) > 0:
        log.debug("decode: %d tokens in %.2f s, %.1f tokens/s", more, decode, more / decode)


def room_for(language_model: LanguageModel, ids: Sequence[int], wanted: int) -> int:
    """How many tokens may follow: `wanted`, or fewer where the context ends before.

    Raises:
        HftoolError: the prompt alone does not fit.
    """
    require_context(language_model, len(ids))
    limit = language_model.context_length
    # The last token need not be seen by the model: it is one more than the context holds.
    return wanted if limit is None else min(wanted, limit - len(ids) + 1)


def log_context_full(tokens: int) -> None:
    """Note that a generation ended because the context did."""
    log.warning("stopped after %d tokens: the context is full", tokens)

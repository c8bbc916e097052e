"""Text generation, token by token."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from hftool.decoding import Decoder, require_context
from hftool.encoding import prompt_ids
from hftool.models.load import LanguageModel
from hftool.options import PromptOptions
from hftool.sampling import Sampler, SamplingSettings, filtered, filters

log = logging.getLogger("hftool")

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Usage:
    """Counts of tokens; an end-of-sequence token that was generated counts."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Generation:
    """A continuation. `seconds` and `tokens_per_second` are those of the generation alone."""

    index: int
    prompt: str
    text: str
    finish_reason: FinishReason
    stop: str | None
    usage: Usage
    seed: int | None
    seconds: float
    tokens_per_second: float


def token_ids(
    decoder: Decoder, ids: Sequence[int], settings: SamplingSettings
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor, dict[str, torch.Tensor], float | None]]:
    """Tokens without end: (id, logits, filtered logits, removed by filter, drawn number) of each.

    Raises:
        HftoolError: the tokens no longer fit the context.
    """
    chain = filters(settings)
    sampler = None if settings.seed is None else Sampler(settings.seed)
    known = list(ids)
    while True:
        logits = decoder.next_logits(known)
        scores, removed = filtered(logits, known, chain)
        if sampler is None:
            token_id, drawn = int(scores.argmax()), None
        else:
            draw = sampler.draw(torch.softmax(scores, dim=-1))
            token_id, drawn = draw.id, draw.drawn
        yield token_id, logits, scores, removed, drawn
        known.append(token_id)


def generate_texts(
    language_model: LanguageModel,
    prompts: Iterable[str],
    prompting: PromptOptions,
    settings: SamplingSettings,
    *,
    max_new_tokens: int,
    skip_special: bool = True,
) -> Iterator[str | Generation]:
    """The continuation of each prompt, as `generate` gives it; all by the same seed.

    Raises: as `generate`.
    """
    if settings.seed is not None:
        log.debug("seed %d", settings.seed)
    for index, prompt in enumerate(prompts):
        ids = prompt_ids(language_model.tokenizer, prompt, prompting)
        for event in generate(
            language_model,
            prompt,
            ids,
            settings,
            max_new_tokens=max_new_tokens,
            skip_special=skip_special,
        ):
            yield replace(event, index=index) if isinstance(event, Generation) else event


def generate(
    language_model: LanguageModel,
    prompt: str,
    ids: Sequence[int],
    settings: SamplingSettings,
    *,
    max_new_tokens: int,
    skip_special: bool = True,
    decoder: Decoder | None = None,
) -> Iterator[str | Generation]:
    """The continuation of a prompt: its pieces of text as they are made, then the record.

    Args:
        ids: the prompt's tokens.
        decoder: a decoder whose cache may hold the beginning of `ids`.

    Raises:
        HftoolError: the prompt is longer than the context.
    """
    began = time.perf_counter()
    stream = language_model.tokenizer.stream(skip_special)
    pieces: list[str] = []
    count = 0
    finish_reason: FinishReason = "length"
    tokens = token_ids(decoder or Decoder(language_model), ids, settings)
    room = room_for(language_model, ids, max_new_tokens)
    for _ in range(room):
        token_id = next(tokens)[0]
        count += 1
        ended = token_id in language_model.end_ids
        piece = "" if ended and skip_special else stream.step(token_id)
        if piece:
            pieces.append(piece)
            yield piece
        if ended:
            finish_reason = "stop"
            break
    else:
        if room < max_new_tokens:
            log.warning("stopped after %d tokens: the context is full", room)
    if rest := stream.end():
        pieces.append(rest)
        yield rest
    seconds = time.perf_counter() - began
    yield Generation(
        index=0,
        prompt=prompt,
        text="".join(pieces),
        finish_reason=finish_reason,
        stop=None,
        usage=Usage(len(ids), count),
        seed=settings.seed,
        seconds=seconds,
        tokens_per_second=count / seconds if seconds else 0.0,
    )


def room_for(language_model: LanguageModel, ids: Sequence[int], wanted: int) -> int:
    """How many tokens may follow: `wanted`, or fewer where the context ends before.

    Raises:
        HftoolError: the prompt alone does not fit.
    """
    require_context(language_model, len(ids))
    limit = language_model.context_length
    # The last token need not be seen by the model: it is one more than the context holds.
    return wanted if limit is None else min(wanted, limit - len(ids) + 1)

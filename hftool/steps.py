"""Generation step by step, with what each step chose from."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from hftool.decoding import Decoder
from hftool.generation import room_for, token_ids
from hftool.models.load import LanguageModel
from hftool.next_token import entropy_bits
from hftool.sampling import SamplingSettings

log = logging.getLogger("hftool")


@dataclass(frozen=True)
class CandidateStep:
    """A candidate at a step: its probability before and after the filters, and the filter that
    removed it."""

    rank: int
    id: int
    token: str
    prob: float
    sampled_prob: float
    removed_by: str | None


@dataclass(frozen=True)
class Step:
    """One token chosen.

    `prob` is the model's own probability of it, `rank` its place there, `entropy` (bits) that of
    the model's distribution; `sampled_prob` its probability after the filters, which left `kept`
    tokens; `drawn` the uniform number that picked it, None when greedy. `text` is the prompt's
    continuation so far.
    """

    step: int
    id: int
    token: str
    prob: float
    sampled_prob: float
    rank: int
    entropy: float
    kept: int
    drawn: float | None
    text: str
    candidates: tuple[CandidateStep, ...]


def sample_steps(
    language_model: LanguageModel,
    ids: Sequence[int],
    settings: SamplingSettings,
    *,
    steps: int,
    k: int,
) -> Iterator[Step]:
    """Each step of a generation, with the `k` best candidates; ends at end-of-sequence.

    Raises:
        HftoolError: the prompt is longer than the context.
    """
    tokenizer = language_model.tokenizer
    stream = tokenizer.stream(skip_special=False)
    text = ""
    tokens = token_ids(Decoder(language_model), ids, settings)
    room = room_for(language_model, ids, steps)
    for number in range(1, room + 1):
        token_id, logits, scores, removed, drawn = next(tokens)
        logprobs = torch.log_softmax(logits.double(), dim=-1)
        probs, sampled = logprobs.exp(), torch.softmax(scores.double(), dim=-1)
        order = probs.sort(descending=True, stable=True).indices
        text += stream.step(token_id)
        yield Step(
            step=number,
            id=token_id,
            token=tokenizer.token_text(token_id),
            prob=float(probs[token_id]),
            sampled_prob=float(sampled[token_id]),
            rank=int((order == token_id).nonzero()[0, 0]) + 1,
            entropy=entropy_bits(logprobs),
            kept=int((scores > -torch.inf).sum()),
            drawn=drawn,
            text=text,
            candidates=tuple(
                CandidateStep(
                    rank=rank,
                    id=candidate,
                    token=tokenizer.token_text(candidate),
                    prob=float(probs[candidate]),
                    sampled_prob=float(sampled[candidate]),
                    removed_by=next((n for n, gone in removed.items() if gone[candidate]), None),
                )
                for rank, candidate in enumerate(order[:k].tolist(), 1)
            ),
        )
        if token_id in language_model.end_ids:
            return
    if room < steps:
        log.warning("stopped after %d tokens: the context is full", room)

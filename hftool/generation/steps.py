"""Generation step by step, with what each step chose from."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from hftool.generation.generate import room_for
from hftool.generation.next_token import OPTIONAL, entropy_bits
from hftool.generation.prefix_cache import CachedModel
from hftool.generation.sampling import Sampler, SamplingSettings, filters, stages
from hftool.models.load import LanguageModel
from hftool.tokenization.incremental_decoder import IncrementalDecoder

log = logging.getLogger("hftool")


@dataclass(frozen=True)
class CandidateStep:
    """A candidate at a step.

    `prob` is the model's own probability, `after` the one after each filter in turn, None from the
    filter on that removed the token, which is `removed_by`; `sampled_prob` the one after all.
    `sampled_cumulative` is the sum of `sampled_prob` from the most probable token down to this one:
    what the number drawn is held against. None for what was removed, and when greedy.
    """

    rank: int
    id: int
    token: str
    prob: float
    after: dict[str, float | None]
    sampled_prob: float
    sampled_cumulative: float | None
    removed_by: str | None


@dataclass(frozen=True)
class StepCandidates:
    """What a step chooses from: the best candidates, how many tokens the filters `kept`, and the
    `entropy` (bits) of the model's distribution. `text` is the continuation before the step."""

    step: int
    entropy: float
    kept: int
    text: str
    candidates: tuple[CandidateStep, ...]


@dataclass(frozen=True)
class Step:
    """One token chosen.

    `prob` is the model's own probability of it, `rank` its place there, `entropy` (bits) that of
    the model's distribution; `sampled_prob` its probability after the filters, which left `kept`
    tokens; `drawn` the uniform number that picked it, at least `sampled_cumulative` less
    `sampled_prob` and less than `sampled_cumulative`; None when greedy, or when a person `picked`
    it. `text` is the prompt's continuation so far.
    """

    step: int
    id: int
    token: str
    prob: float
    sampled_prob: float
    sampled_cumulative: float | None
    rank: int
    entropy: float
    kept: int
    drawn: float | None
    text: str
    candidates: tuple[CandidateStep, ...]
    picked: bool | None = field(default=None, metadata=OPTIONAL)


class _Distribution:
    """What is known of one step's tokens: float64 [vocabulary] on the CPU.

    Args:
        logits: float32 [vocabulary].
        filtered: the logits after each filter, with its name.
    """

    def __init__(self, logits: torch.Tensor, filtered: list[tuple[str, torch.Tensor]]) -> None:
        self.scores = filtered[-1][1] if filtered else logits  # where the model is, in its float32
        logprobs = torch.log_softmax(logits.cpu().double(), dim=-1)
        self.entropy = entropy_bits(logprobs)
        self.probs = logprobs.exp()
        self.order = self.probs.sort(descending=True, stable=True).indices
        self.after = [(name, _probs(scores)) for name, scores in filtered]
        self.sampled = _probs(self.scores)
        self.kept = int((~self.sampled.isnan()).sum())
        ordered, order = self.sampled.nan_to_num().sort(descending=True, stable=True)
        self.cumulative = torch.empty_like(ordered).scatter_(0, order, ordered.cumsum(0))

    def rank(self, token_id: int) -> int:
        return int((self.order == token_id).nonzero()[0, 0]) + 1


def _probs(scores: torch.Tensor) -> torch.Tensor:
    """Probabilities, NaN for what was removed: one that is merely small may be 0."""
    scores = scores.cpu().double()
    return torch.softmax(scores, dim=-1).where(scores > -torch.inf, torch.nan)


class StepSampler:
    """A generation taken step by step, at most `steps` of them and as many as the context holds.

    Each step has a drawn number of its own, whoever chooses: what a seed gives for a step does not
    depend on how the steps before were chosen.

    Raises:
        HftoolError: the prompt is longer than the context.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        ids: Sequence[int],
        settings: SamplingSettings,
        *,
        steps: int,
        k: int,
    ) -> None:
        self.tokenizer = language_model.tokenizer
        self.taken: list[Step] = []
        self._language_model = language_model
        self._decoder = CachedModel(language_model, rewinds=True)
        self._settings = settings
        self._chain = filters(settings)
        self._prompt = list(ids)
        self._wanted, self._k = steps, k
        self._room = room_for(language_model, ids, steps)
        self._found: _Distribution | None = None
        self._rewind()

    @property
    def is_open(self) -> bool:
        """Whether another step can follow."""
        ended = self.taken and self.taken[-1].id in self._language_model.end_ids
        return not ended and len(self.taken) < self._room

    @property
    def text(self) -> str:
        """The continuation so far."""
        return self.taken[-1].text if self.taken else ""

    def choice(self) -> StepCandidates:
        """What the next step chooses from."""
        found = self._distribution()
        return StepCandidates(
            len(self.taken) + 1, found.entropy, found.kept, self.text, self._candidates(found)
        )

    def take(self, picked: int | None = None) -> Step:
        """Take the next step: the token `picked`, or else the one that is drawn."""
        found = self._distribution()
        token_id, drawn = int(found.scores.argmax()), None
        if self._sampler is not None:
            draw = self._sampler.draw(torch.softmax(found.scores, dim=-1))
            token_id, drawn = draw.id, draw.drawn
        if picked is not None:
            token_id, drawn = picked, None
        step = Step(
            step=len(self.taken) + 1,
            id=token_id,
            token=self.tokenizer.token_text(token_id),
            prob=float(found.probs[token_id]),
            sampled_prob=_number(found.sampled[token_id]) or 0.0,
            sampled_cumulative=self._cumulative(found, token_id),
            rank=found.rank(token_id),
            entropy=found.entropy,
            kept=found.kept,
            drawn=drawn,
            text=self.text + self._stream.step(token_id),
            candidates=self._candidates(found),
            picked=True if picked is not None else None,
        )
        self.taken.append(step)
        self._found = None
        if len(self.taken) == self._room < self._wanted:
            log.warning("stopped after %d tokens: the context is full", self._room)
        return step

    def undo(self) -> None:
        """Take the last step back."""
        self.taken.pop()
        self._rewind()

    def _rewind(self) -> None:
        """Bring stream and sampler to where the steps taken end."""
        self._found = None
        self._stream = IncrementalDecoder(self.tokenizer, skip_special=False)
        seed = self._settings.seed
        self._sampler = None if seed is None else Sampler(seed)
        for step in self.taken:
            self._stream.step(step.id)
            if self._sampler is not None:
                self._sampler.draw(torch.ones(1))

    def _distribution(self) -> _Distribution:
        if self._found is None:
            ids = [*self._prompt, *(step.id for step in self.taken)]
            logits = self._decoder.next_logits(ids) if self.taken else self._after_prompt
            self._found = _Distribution(logits, list(stages(logits, ids, self._chain)))
        return self._found

    @cached_property
    def _after_prompt(self) -> torch.Tensor:
        """The logits of the first step, also when it is come back to: the end of a prompt computed
        again by itself is rounded in another way, and bfloat16 shows that."""
        return self._decoder.next_logits(self._prompt)

    def _candidates(self, found: _Distribution) -> tuple[CandidateStep, ...]:
        return tuple(
            self._candidate(found, rank, token_id)
            for rank, token_id in enumerate(found.order[: self._k].tolist(), 1)
        )

    def _candidate(self, found: _Distribution, rank: int, token_id: int) -> CandidateStep:
        after = {name: _number(probs[token_id]) for name, probs in found.after}
        return CandidateStep(
            rank=rank,
            id=token_id,
            token=self.tokenizer.token_text(token_id),
            prob=float(found.probs[token_id]),
            after=after,
            sampled_prob=_number(found.sampled[token_id]) or 0.0,
            sampled_cumulative=self._cumulative(found, token_id),
            removed_by=next((name for name, prob in after.items() if prob is None), None),
        )

    def _cumulative(self, found: _Distribution, token_id: int) -> float | None:
        if self._settings.greedy or found.sampled[token_id].isnan():
            return None
        return min(float(found.cumulative[token_id]), 1.0)


def _number(prob: torch.Tensor) -> float | None:
    return None if prob.isnan() else float(prob)


def run_steps(walk: StepSampler, picked: Mapping[int, int] | None = None) -> Iterator[Step]:
    """The steps that follow, up to the end; `picked` are tokens chosen beforehand, by step."""
    while walk.is_open:
        yield walk.take((picked or {}).get(len(walk.taken) + 1))

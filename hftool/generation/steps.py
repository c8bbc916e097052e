"""Generate step by step, and report what each step chose from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import torch

from hftool.errors import UsageError
from hftool.generation.candidates import Step, StepCandidate, StepCandidates
from hftool.generation.constraint_state import constraint_state
from hftool.generation.drawing import Sampler
from hftool.generation.filters import build_filters
from hftool.generation.generate import log_context_full, new_token_limit
from hftool.generation.model_defaults import log_unused_fields, most_new_tokens, stop_strings
from hftool.generation.prefix_cache import CachedModel
from hftool.generation.ranking import entropy_bits
from hftool.generation.resolution import resolve_sampling
from hftool.generation.samplers import step_number
from hftool.generation.sampling import SamplingSettings, apply_filters_in_turn
from hftool.models.language_model import LanguageModel
from hftool.options.constraints import Constraint
from hftool.options.generation import DEFAULT_STEPS
from hftool.options.inputs import PromptOptions
from hftool.options.sampling import SamplingOptions
from hftool.prompting.prompt import Prompt, prompt_ids
from hftool.tokenization.incremental_decoder import IncrementalDecoder
from hftool.tokenization.tokenizer import Tokenizer


class _Distribution:
    """The distribution of the next token; its tensors are float64 [vocabulary] on the CPU.

    Args:
        logits: float32 [vocabulary].
        filtered: each filter's name and the logits after it.

    Attributes:
        scores: the logits after all filters: float32, on the model's device.
        after: each filter's name and the probabilities after it, NaN for removed tokens.
    """

    def __init__(self, logits: torch.Tensor, filtered: list[tuple[str, torch.Tensor]]) -> None:
        self.scores = filtered[-1][1] if filtered else logits
        logprobs = torch.log_softmax(logits.cpu().double(), dim=-1)
        self.entropy = entropy_bits(logprobs)
        self.probs = logprobs.exp()
        self.order = self.probs.sort(descending=True, stable=True).indices
        self.after = [(name, _probs(scores)) for name, scores in filtered]
        self.sampled = _probs(self.scores)
        self.sampled_entropy = entropy_bits(self.sampled.nan_to_num().log())
        self.kept = int((~self.sampled.isnan()).sum())
        ordered, order = self.sampled.nan_to_num().sort(descending=True, stable=True)
        self.cumulative = torch.empty_like(ordered).scatter_(0, order, ordered.cumsum(0))

    def left_by(self, name: str | None) -> int | None:
        """Return how many tokens the filter of this name left, None if there is none."""
        left = (int((~probs.isnan()).sum()) for n, probs in self.after if n == name)
        return next(left, None)

    def rank(self, token_id: int) -> int:
        return int((self.order == token_id).nonzero()[0, 0]) + 1


def _probs(scores: torch.Tensor) -> torch.Tensor:
    """Return probabilities (float64 [vocabulary], on the CPU), NaN for removed tokens: 0 could also
    be a tiny probability."""
    scores = scores.cpu().double()
    return torch.softmax(scores, dim=-1).where(scores > -torch.inf, torch.nan)


class StepSampler:
    """Continues a prompt one token at a time, for at most `max_steps` tokens and as long as the
    context has room.

    Every step draws one random number, even if the user picks its token. The number that a seed
    gives to a step therefore does not depend on how earlier tokens were chosen.

    Args:
        k: the number of candidates to report for each step.
        stop: strings that end the text, which includes them here.

    Attributes:
        steps: the steps so far.
        limit: the most steps that the context and `max_steps` allow.

    Raises:
        HftoolError: the prompt is longer than the context.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        prompt_ids: Sequence[int],
        settings: SamplingSettings,
        *,
        max_steps: int,
        k: int,
        stop: Sequence[str] = (),
    ) -> None:
        self.prompt_ids = list(prompt_ids)
        self._begin, source = language_model.split_prompt(prompt_ids)
        self.language_model = language_model = language_model.reading(source)
        self.settings = settings
        self.steps: list[Step] = []
        self._cached_model = CachedModel(language_model, rewinds=True)
        self._max_steps, self._k, self._stop = max_steps, k, stop
        self.limit = new_token_limit(language_model, self._begin, max_steps)
        self._filters = build_filters(settings, language_model, self._begin, self.limit)
        self._constraint = constraint_state(settings, language_model, self._begin)
        self._constraint_name = None if settings.constraint is None else settings.constraint.kind
        self._distribution: _Distribution | None = None  # of the next step, once it is needed
        self._rewind()

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self.language_model.tokenizer

    @property
    def prompt(self) -> str:
        """The text of the prompt's tokens."""
        return self.tokenizer.decode(self.prompt_ids)

    @property
    def can_continue(self) -> bool:
        """Whether another step can follow."""
        ended = self.steps and self.steps[-1].id in self.language_model.end_ids
        ended = ended or any(stop in self.text for stop in self._stop)
        ended = ended or (self._constraint is not None and self._constraint.complete)
        return not ended and len(self.steps) < self.limit

    @property
    def ids(self) -> list[int]:
        """The tokens of the steps so far."""
        return [step.id for step in self.steps if step.id is not None]

    @property
    def text(self) -> str:
        """The continuation so far."""
        return self.steps[-1].text if self.steps else ""

    def run(self, picked: Mapping[int, int] | None = None) -> Iterator[Step]:
        """Take all steps that can follow.

        Args:
            picked: token ids to use instead of drawing, by the number of the step (from 1).
        """
        while self.can_continue:
            yield self.step((picked or {}).get(len(self.steps) + 1))

    def next_candidates(self) -> StepCandidates:
        """Return what the next step can choose from."""
        distribution = self._next_distribution()
        return StepCandidates(
            len(self.steps) + 1,
            distribution.entropy,
            distribution.sampled_entropy,
            distribution.kept,
            self.text,
            self._candidates(distribution),
            distribution.left_by(self._constraint_name),
        )

    def step(self, picked: int | None = None) -> Step:
        """Add the token `picked`, or draw one."""
        distribution = self._next_distribution()
        token_id, drawn = int(distribution.scores.argmax()), None
        if self._sampler is not None:
            draw = self._sampler.draw(torch.softmax(distribution.scores, dim=-1))
            token_id, drawn = draw.id, draw.uniform
        if picked is not None:
            self._require_allowed(distribution, picked)
            token_id, drawn = picked, None
        step = Step(
            step=len(self.steps) + 1,
            id=token_id,
            token=self.tokenizer.token_text(token_id),
            prob=float(distribution.probs[token_id]),
            sampled_prob=_number(distribution.sampled[token_id]) or 0.0,
            sampled_cumulative=self._cumulative(distribution, token_id),
            rank=distribution.rank(token_id),
            entropy=distribution.entropy,
            sampled_entropy=distribution.sampled_entropy,
            kept=distribution.kept,
            drawn=drawn,
            text=self.text + self._stream.step(token_id),
            candidates=self._candidates(distribution, token_id),
            picked=True if picked is not None else None,
            allowed=distribution.left_by(self._constraint_name),
            xtc_drawn=self._xtc_number(),
        )
        self.steps.append(step)
        self._distribution = None
        self._advance_constraint()
        if len(self.steps) == self.limit < self._max_steps:
            log_context_full(self.limit)
        return step

    def _require_allowed(self, distribution: _Distribution, token_id: int) -> None:
        """Raise where a token that the user picks violates the constraint.

        Raises:
            UsageError: with the token.
        """
        for name, probs in distribution.after:
            if name == self._constraint_name and probs[token_id].isnan():
                token = self.tokenizer.token_text(token_id)
                raise UsageError(f"--{name} does not allow “{token}” here")

    def _xtc_number(self) -> float | None:
        """Return the number that decides at this step if XTC acts, None without XTC."""
        if self.settings.seed is None or not self.settings.xtc_probability:
            return None
        return step_number(self.settings.seed, len(self.steps))

    def undo(self) -> None:
        """Take back the last step."""
        self.steps.pop()
        self._rewind()

    def _rewind(self) -> None:
        """Bring the decoder and the random numbers to the end of `steps`."""
        self._distribution = None
        self._stream = IncrementalDecoder(
            self.tokenizer, skip_special=False, clean_up=self._constraint is None
        )
        seed = self.settings.seed
        self._sampler = None if seed is None else Sampler(seed)
        for token_id in self.ids:
            self._stream.step(token_id)
            if self._sampler is not None:
                self._sampler.draw(torch.ones(1))
        self._advance_constraint()

    def _advance_constraint(self) -> None:
        if self._constraint is not None:
            self._constraint.advance(self.ids)

    def _next_distribution(self) -> _Distribution:
        if self._distribution is None:
            ids = [*self._begin, *self.ids]
            logits = self._cached_model.next_logits(ids) if self.steps else self._first_logits
            filtered = list(apply_filters_in_turn(logits, ids, self._filters))
            self._distribution = _Distribution(logits, filtered)
        return self._distribution

    @cached_property
    def _first_logits(self) -> torch.Tensor:
        """The logits after the prompt [vocabulary].

        They are kept, so that undoing the first step brings back the same numbers: computed again
        with the rest of the prompt in the cache, they would be rounded differently, which shows in
        bfloat16.
        """
        return self._cached_model.next_logits(self._begin)

    def _candidates(
        self, distribution: _Distribution, chosen: int | None = None
    ) -> tuple[StepCandidate, ...]:
        """Return the best candidates, then the chosen one if it ranks below them."""
        best = distribution.order[: self._k].tolist()
        ranks = dict(enumerate(best, 1))
        if chosen is not None and chosen not in best:
            ranks[distribution.rank(chosen)] = chosen
        return tuple(self._candidate(distribution, *ranked) for ranked in ranks.items())

    def _candidate(self, distribution: _Distribution, rank: int, token_id: int) -> StepCandidate:
        after = {name: _number(probs[token_id]) for name, probs in distribution.after}
        return StepCandidate(
            rank=rank,
            id=token_id,
            token=self.tokenizer.token_text(token_id),
            prob=float(distribution.probs[token_id]),
            after=after,
            sampled_prob=_number(distribution.sampled[token_id]) or 0.0,
            sampled_cumulative=self._cumulative(distribution, token_id),
            removed_by=next((name for name, prob in after.items() if prob is None), None),
        )

    def _cumulative(self, distribution: _Distribution, token_id: int) -> float | None:
        if self.settings.greedy or distribution.sampled[token_id].isnan():
            return None
        return min(float(distribution.cumulative[token_id]), 1.0)


def _number(prob: torch.Tensor) -> float | None:
    return None if prob.isnan() else float(prob)


def sampler_of_prompt(
    language_model: LanguageModel,
    prompt: Prompt,
    prompting: PromptOptions,
    sampling: SamplingOptions,
    *,
    max_steps: int | None,
    k: int,
    constraint: Constraint | None = None,
) -> StepSampler:
    """Return a sampler that continues a prompt.

    Args:
        max_steps: the most tokens to generate; None for `DEFAULT_STEPS`, or fewer if the model's
            generation_config says so.

    Raises:
        HftoolError: the prompt is empty or longer than the context, or the chat template fails.
        UsageError: as `resolve_sampling`.
    """
    ids = prompt_ids(language_model.tokenizer, prompt, prompting)
    config = language_model.generation_config
    log_unused_fields(language_model, "num_beams", "num_return_sequences")
    if max_steps is None:
        begin, _ = language_model.split_prompt(ids)
        max_steps = min(DEFAULT_STEPS, most_new_tokens(None, config, len(begin), DEFAULT_STEPS))
    settings = replace(resolve_sampling(sampling, config), constraint=constraint)
    stop = stop_strings(None, config, constraint)
    return StepSampler(language_model, ids, settings, max_steps=max_steps, k=k, stop=stop)

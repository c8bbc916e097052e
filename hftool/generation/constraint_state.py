"""A text that grows under a constraint: which tokens may come next, and whether it may end."""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from hftool.errors import HftoolError
from hftool.generation.constraint_vocabulary import Vocabulary, vocabulary_of
from hftool.generation.constraints import grammar_of, one_line_cause
from hftool.generation.sampling import SamplingSettings
from hftool.generation.thought_tracker import ThoughtTracker
from hftool.models.language_model import LanguageModel
from hftool.options.constraints import Constraint

if TYPE_CHECKING:
    from llguidance import LLMatcher


@lru_cache(maxsize=64)
def _matcher(vocabulary: Vocabulary, constraint: Constraint, before: str) -> "LLMatcher":
    """Return a matcher at the beginning of a text, to be copied.

    Raises:
        HftoolError: the constraint is too complex.
    """
    from llguidance import LLMatcher, LLParserLimits

    matcher = LLMatcher(
        vocabulary.tokens,
        grammar_of(constraint, before),
        log_level=0,
        limits=LLParserLimits(verbose_errors=False),
    )
    if matcher.is_error():
        raise HftoolError(f"--{constraint.kind}: {one_line_cause(matcher.get_error())}")
    return matcher


class ConstraintState:
    """A text that grows token by token under a constraint.

    What the model thinks before its answer, between its tags, is free.

    Args:
        prompt_ids: the tokens before the text.
        free: the number of tokens at the beginning of the text that are forced, and no part of it.

    Raises:
        HftoolError: hftool can't constrain this model's texts, or no text of it satisfies the
            constraint.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        constraint: Constraint,
        prompt_ids: Sequence[int],
        free: int = 0,
    ) -> None:
        self.constraint = constraint
        self._name = language_model.name
        self._vocabulary = vocabulary_of(language_model.tokenizer, language_model.end_ids)
        self._free = free
        data = self._vocabulary.data
        self._beginning = ThoughtTracker(data, language_model.tokenizer, prompt_ids)
        self._reset()
        if not self._new_matcher("").is_accepting():
            self._require_token(self._answer_mask(language_model.embedding_rows))

    def _reset(self) -> None:
        self._ids: list[int] = []
        self._before = self._beginning.copy()
        # A text that may begin with a tag may be an answer as well, until it contradicts one.
        self._may_answer = not self._before.thinking and not self._before.needs_tag
        self._matcher: LLMatcher | None = None  # that of the answer, from its first token
        self._start = self._free  # of what is certainly the answer, among the ids
        self.violated = False
        self._ended = False

    def advance(self, ids: Sequence[int]) -> None:
        """Take these tokens as the text so far."""
        same = next(
            (i for i, (old, new) in enumerate(zip(self._ids, ids, strict=False)) if old != new),
            min(len(self._ids), len(ids)),
        )
        if same < len(self._ids):
            if self.violated or self._ended or self._matcher is None or same <= self._start:
                self._reset()
                same = 0
            else:
                self._matcher.rollback(len(self._ids) - same)
                del self._ids[same:]
        for token_id in ids[same:]:
            self.add(token_id)

    def add(self, token_id: int) -> None:
        """Add a token to the text."""
        self._ids.append(token_id)
        if self.violated or len(self._ids) <= self._free:
            return
        if token_id in self._vocabulary.ends or self._ended:
            self.violated = self._ended or not self.satisfied
            self._ended = True
            return
        answered = self._before.in_answer
        if self._may_answer:
            self._may_answer = self._consume(token_id)
        if not answered:
            self._add_before_answer(token_id)
        elif not self._may_answer:
            self.violated = True

    def _add_before_answer(self, token_id: int) -> None:
        self._before.add(token_id)
        self._start = len(self._ids)
        if self._before.in_answer and self._before.passed:
            space = "" if self._vocabulary.spaced is None else " ?"
            self._matcher = self._new_matcher(rf"{space}\n{{0,{self._before.breaks}}}")
            self._may_answer = True
        elif self._before.in_answer:
            self.violated = not self._may_answer
        elif self._before.thinking or self._before.needs_tag:
            self._may_answer = False

    def _consume(self, token_id: int) -> bool:
        """Add a token to the answer, and return whether the constraint allows it."""
        vocabulary = self._vocabulary
        if self._matcher is None:
            if _has(vocabulary.later, token_id):
                return False
            spaced = _has(vocabulary.spaced, token_id)
            self._matcher = self._new_matcher(" " if spaced else "")
        known = self._matcher.validate_tokens([token_id]) == 1
        return known and bool(self._matcher.consume_token(token_id))

    def _new_matcher(self, before: str) -> "LLMatcher":
        return _matcher(self._vocabulary, self.constraint, before).deep_copy()

    @property
    def satisfied(self) -> bool:
        """Whether the text satisfies the constraint as it is."""
        if self.violated or not self._may_answer:
            return False
        return bool((self._matcher or self._new_matcher("")).is_accepting())

    @property
    def complete(self) -> bool:
        """Whether the text satisfies the constraint, and nothing can follow."""
        return self.satisfied and self._matcher is not None and self._matcher.is_stopped()

    def allowed(self, rows: int) -> torch.Tensor:
        """Return which tokens may come next: bool [rows], all False after a violation.

        Args:
            rows: the size of the vocabulary.

        Raises:
            HftoolError: the text can neither go on nor end.
        """
        ends = list(self._vocabulary.ends)
        if self.violated:
            return torch.zeros(rows, dtype=torch.bool)
        if self._before.thinking or len(self._ids) < self._free:
            mask = np.ones(rows, dtype=bool)
            mask[ends] = False
            if self._before.thinking:
                mask[[i for i in self._before.excluded() if i < rows]] = False
            return torch.from_numpy(mask)
        mask = self._mask(rows)
        if not self.satisfied:
            self._require_token(mask)
        return torch.from_numpy(mask)

    def _require_token(self, mask: NDArray[np.bool_]) -> None:
        if not np.delete(mask, list(self._vocabulary.ends)).any():
            begins = "continue this text" if self._ids else "begin a text"
            needed = (self._matcher or self._new_matcher("")).compute_ff_bytes()
            text = json.dumps(needed.decode("utf-8", "replace")[:20], ensure_ascii=False)
            needs = f": it needs {text}" if needed else ""
            raise HftoolError(
                f"{self._name} has no token that can {begins} under --{self.constraint.kind}{needs}"
            )

    def _mask(self, rows: int) -> NDArray[np.bool_]:
        mask = self._answer_mask(rows) if self._may_answer else np.zeros(rows, dtype=bool)
        mask[[i for i in self._before.tag_tokens() if i < rows]] = True
        return mask

    def _answer_mask(self, rows: int) -> NDArray[np.bool_]:
        if self._matcher is not None:
            return self._mask_of(self._matcher, rows)
        mask = self._mask_of(self._new_matcher(""), rows)
        if (spaced := self._vocabulary.spaced) is not None:
            mask[: len(spaced)] &= ~spaced[: len(mask)]
            after_space = self._mask_of(self._new_matcher(" "), rows)
            mask[: len(spaced)] |= after_space[: len(spaced)] & spaced[: len(mask)]
        if (later := self._vocabulary.later) is not None:
            mask[: len(later)] &= ~later[: len(mask)]
        return mask

    def _mask_of(self, matcher: "LLMatcher", rows: int) -> NDArray[np.bool_]:
        data = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        if matcher.is_error():
            raise HftoolError(f"--{self.constraint.kind}: {one_line_cause(matcher.get_error())}")
        mask = np.zeros(rows, dtype=bool)
        real = min(rows, len(self._vocabulary.data.data) + 1)
        bits = np.unpackbits(data, bitorder="little")[:real]
        mask[: len(bits)] = bits
        return mask


def _has(flags: NDArray[np.bool_] | None, token_id: int) -> bool:
    return flags is not None and token_id < len(flags) and bool(flags[token_id])


class ConstraintProcessor:
    """Removes the tokens that a constraint does not allow, as a logits processor.

    Args:
        prompt_length: the number of tokens before the text.
    """

    def __init__(self, state: ConstraintState, prompt_length: int) -> None:
        self._state, self._prompt_length = state, prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return logits [sequences, vocabulary] with -inf for what is not allowed.

        Args:
            input_ids: the tokens so far [sequences, tokens], each sequence with the same prompt.

        Raises:
            HftoolError: as `ConstraintState.allowed`, or other filters have removed all that is
                allowed.
        """
        rows = []
        for ids in input_ids[:, self._prompt_length :].tolist():
            self._state.advance(ids)
            rows.append(self._state.allowed(scores.shape[-1]))
        allowed = torch.stack(rows).to(scores.device)
        constrained = scores.masked_fill(~allowed, -torch.inf)
        if len(rows) == 1 and not self._state.violated and constrained.max() == -torch.inf:
            kind = self._state.constraint.kind
            raise HftoolError(
                f"--{kind} allows only tokens here that other filters have removed",
                "leave out options such as --no-repeat-ngram-size and --min-new-tokens",
            )
        return constrained


def constraint_state(
    settings: SamplingSettings, language_model: LanguageModel, prompt_ids: Sequence[int]
) -> ConstraintState | None:
    """Return the state at the beginning of a text, None if the settings have no constraint.

    Raises: as `ConstraintState`.
    """
    if settings.constraint is None:
        return None
    # transformers' ForcedBOSTokenLogitsProcessor works after a single token
    forced = "forced_bos_token_id" in settings.further and len(prompt_ids) == 1
    return ConstraintState(language_model, settings.constraint, prompt_ids, free=int(forced))

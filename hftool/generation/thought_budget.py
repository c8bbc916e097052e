"""End a model's reasoning after a number of tokens, so that its answer begins."""

from collections.abc import Sequence

import torch

from hftool.errors import HftoolError
from hftool.prompting.reasoning import LONGEST_TAIL, known_tags, opens_thought, tags_of
from hftool.tokenization.tokenizer import Tokenizer


class ThoughtBudget:
    """A filter of one sequence that leaves only the tokens of `</think>`, or what else leads to the
    answer, one after the other, once the model has thought for a number of tokens.

    Args:
        prompt_ids: the tokens before the generated ones.
        most: the number of tokens of a thought, without its tags.

    Raises:
        HftoolError: the model has no such tags.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int], most: int) -> None:
        self._opened = opens_thought(tokenizer, prompt_ids)
        if known_tags(tokenizer) is None and not self._opened:
            raise HftoolError(
                f"--think-tokens: {tokenizer.name} does not think between tags that hftool knows",
                "leave it out",
            )
        self._tokenizer, self._tags = tokenizer, tags_of(tokenizer)
        self._start, self._most = len(prompt_ids), most
        self._to_answer = list(tokenizer.encode(self._tags.to_answer, special=False).ids)

    def __call__(self, ids: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        """Return the logits [vocabulary], after the budget only one of them finite."""
        generated = ids[self._start :]
        beyond = self._beyond(generated)
        if beyond is None:
            return logits
        forced = torch.full_like(logits, -torch.inf)
        forced[self._to_answer[beyond]] = 0.0
        return forced

    def _beyond(self, generated: Sequence[int]) -> int | None:
        """Return how many tokens have been forced, None if none is to be."""
        if not self._most <= len(generated) < self._most + LONGEST_TAIL + len(self._to_answer):
            return None
        start = 0 if self._opened else self._length_of_opening(generated)
        if start is None:
            return None
        beyond = len(generated) - start - self._most
        if self._tags.closing in self._tokenizer.decode(generated[: start + self._most]):
            return None
        return beyond if 0 <= beyond < len(self._to_answer) else None

    def _length_of_opening(self, generated: Sequence[int]) -> int | None:
        """Return the length of the opening tag and white space before it, None without the tag."""
        for length in range(1, min(len(generated), LONGEST_TAIL) + 1):
            if self._tokenizer.decode(generated[:length]).strip() == self._tags.opening:
                return length
        return None

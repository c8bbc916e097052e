"""The turns of a chat, and how many tokens it has and may have."""

from dataclasses import dataclass, field, replace

from hftool.generation.records import OPTIONAL
from hftool.prompting.reasoning import DEFAULT, Tags, split_reasoning


@dataclass(frozen=True)
class Turn:
    """A message of the conversation. Only the model's turns have the other fields.

    `reasoning` is what the model has thought before its answer, if anything. `finish_reason` is
    "stop", "length", or "interrupted" if the user stopped the answer.
    """

    role: str
    content: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seed: int | None = None
    reasoning: str | None = field(default=None, metadata=OPTIONAL)

    def with_answer(self, text: str, opened: bool, tags: Tags = DEFAULT) -> "Turn":
        """Return the turn with the model's text, split into reasoning and answer.

        Args:
            opened: the prompt has opened the reasoning.
        """
        reasoning, answer = split_reasoning(text, opened, tags)
        return replace(self, content=answer, reasoning=reasoning)


@dataclass(frozen=True)
class Budget:
    """Numbers of tokens: of the conversation so far, of the context (None if the model has no
    known limit), and of the longest possible answer."""

    conversation: int
    context: int | None
    answer: int

"""A chat: messages, the model's answers, and the key-value cache between turns."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from hftool.decoding import Decoder
from hftool.encoding import Message, render_chat
from hftool.errors import HftoolError
from hftool.generation import Generation, generate
from hftool.models.load import LanguageModel
from hftool.sampling import SamplingSettings

log = logging.getLogger("hftool")


@dataclass(frozen=True)
class Turn:
    """A message of the transcript; the model's carry how they came about."""

    role: str
    content: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seed: int | None = None


class Conversation:
    """Remembers the messages; each answer computes only what is new."""

    def __init__(
        self,
        language_model: LanguageModel,
        settings: SamplingSettings,
        *,
        max_new_tokens: int,
        system: str | None = None,
    ) -> None:
        self._language_model = language_model
        self._settings = settings
        self._max_new_tokens = max_new_tokens
        self._decoder = Decoder(language_model)
        self._system: list[Message] = (
            [] if system is None else [{"role": "system", "content": system}]
        )
        self.messages: list[Message] = list(self._system)

    def clear(self) -> None:
        """Forget all but the system message."""
        self.messages = list(self._system)

    def answer(self, text: str) -> Iterator[str | Turn]:
        """The user's turn, the answer's pieces as they are made, then the assistant's turn.

        An answer that is broken off (the iterator is closed) is remembered as far as it came.

        Raises:
            HftoolError: the message does not fit the context even alone, or the template fails.
        """
        self.messages.append({"role": "user", "content": text})
        try:
            ids = self._fitting_ids()
        except HftoolError:
            self.messages.pop()
            raise
        yield Turn("user", text)
        pieces: list[str] = []
        events = generate(
            self._language_model,
            text,
            ids,
            self._settings,
            max_new_tokens=self._max_new_tokens,
            decoder=self._decoder,
        )
        try:
            for event in events:
                if isinstance(event, Generation):
                    yield _assistant(event)
                else:
                    pieces.append(event)
                    yield event
        finally:
            self.messages.append({"role": "assistant", "content": "".join(pieces)})

    def _fitting_ids(self) -> list[int]:
        """The ids of all messages; the oldest turns go where they leave no room to answer."""
        limit = self._language_model.context_length
        tokenizer = self._language_model.tokenizer
        dropped = 0
        while True:
            ids = tokenizer.encode(render_chat(tokenizer, self.messages), special=False).ids
            if limit is None or len(ids) + self._max_new_tokens <= limit:
                break
            first = len(self._system)
            if len(self.messages) - first < 3:  # nothing but the new message is left
                break
            del self.messages[first : first + 2]
            dropped += 1
        if dropped:
            log.warning("the context is full: dropped the oldest %d turns", dropped)
        return list(ids)


def _assistant(generation: Generation) -> Turn:
    return Turn(
        "assistant",
        generation.text,
        generation.finish_reason,
        generation.usage.prompt_tokens,
        generation.usage.completion_tokens,
        generation.seed,
    )

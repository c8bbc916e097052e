"""A chat: messages, the model's answers, and the key-value cache between turns."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from hftool.decoding import Decoder, require_context
from hftool.encoding import Message, render_chat
from hftool.generation import Generation, Request, generate
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
        ids = self._fitting_ids({"role": "user", "content": text})
        pieces: list[str] = []
        request = Request(text, tuple(ids), self._settings, self._max_new_tokens)
        events = generate(self._language_model, request, decoder=self._decoder)
        try:
            yield Turn("user", text)
            for event in events:
                if isinstance(event, Generation):
                    yield _assistant(event)
                else:
                    pieces.append(event)
                    yield event
        finally:
            self.messages.append({"role": "assistant", "content": "".join(pieces)})

    def _fitting_ids(self, message: Message) -> list[int]:
        """Remember the message; the ids of all. The oldest turns go where they leave no room.

        Raises:
            HftoolError: as `answer`; then nothing has changed.
        """
        limit = self._language_model.context_length
        tokenizer = self._language_model.tokenizer
        turns = [*self.messages[len(self._system) :], message]
        dropped = 0
        while True:
            messages = [*self._system, *turns]
            ids = tokenizer.encode(render_chat(tokenizer, messages), special=False).ids
            # Half of a small context is for what was said, whatever an answer may take.
            if limit is None or len(ids) + min(self._max_new_tokens, limit // 2) <= limit:
                break
            if len(turns) < 3:  # nothing but the new message is left
                require_context(self._language_model, len(ids))
                break
            del turns[:2]
            dropped += 1
        if dropped:
            log.warning("the context is full: dropped the oldest %d turns", dropped)
        self.messages = messages
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

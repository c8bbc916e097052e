"""A chat: messages, the model's answers, and the key-value cache between turns."""

import logging
from bisect import bisect_left
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from hftool.errors import HftoolError
from hftool.generation.generate import generate
from hftool.generation.prefix_cache import CachedModel, require_context
from hftool.generation.records import Generation, Request
from hftool.generation.sampling import SamplingSettings, resolve_sampling
from hftool.models.load import LanguageModel
from hftool.options.generation import AnswerOptions, Overflow
from hftool.prompting.chat_template import ChatTemplate, Message

log = logging.getLogger("hftool")


@dataclass(frozen=True)
class Turn:
    """A message of the transcript; the model's carry how they came about.

    `finish_reason` is "stop", "length", or "interrupted" where the answer was broken off.
    """

    role: str
    content: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Budget:
    """Tokens: of what has been said, of the context (None: no limit is known), and of the room an
    answer may take at most."""

    conversation: int
    context: int | None
    answer: int


class Conversation:
    """Remembers the messages; each answer computes only what is new.

    Args:
        template: of the model, or a plain frame.
        options: a seed is that of the next answer; each answer adds 1 to it.
        stop: texts before which an answer ends.
        overflow: what happens where the messages leave no room for an answer: the oldest turns are
            dropped whole, or the message is refused.

    Raises:
        HftoolError: as `settings_in_force`.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        template: ChatTemplate,
        options: AnswerOptions,
        *,
        system: str | None = None,
        stop: Sequence[str] = (),
        overflow: Overflow = "drop",
    ) -> None:
        self._language_model = language_model
        self.template = template
        self._overflow = overflow
        # A plain frame ends each turn with a text of its own.
        self._stop = (*stop,) if template.stop is None else (*stop, template.stop)
        self._decoder = CachedModel(language_model, rewinds=True)
        self.system = system
        self.turns: list[Message] = []
        self.configure(options)

    @property
    def model(self) -> str:
        """The model's name."""
        return self._language_model.name

    @property
    def messages(self) -> list[Message]:
        """All that the model sees, the system message first."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, *self.turns]

    @messages.setter
    def messages(self, messages: list[Message]) -> None:
        first = messages[0] if messages and messages[0]["role"] == "system" else None
        self.system = None if first is None else first["content"]
        self.turns = messages[1:] if first else list(messages)

    def next_settings(self) -> SamplingSettings:
        """The settings of the next answer. Raises: as `settings_in_force`."""
        return resolve_sampling(self.options, self._language_model.generation_config)

    def configure(self, options: AnswerOptions) -> None:
        """Answer by other options from now on.

        Raises:
            HftoolError: as `settings_in_force`; nothing has changed.
        """
        resolve_sampling(options, self._language_model.generation_config)
        self.options = options

    def clear(self) -> None:
        """Forget all but the system message."""
        self.turns = []

    def undo(self) -> Message:
        """Forget the last message of the user's, which is returned, and all after it.

        Raises:
            HftoolError: there is none.
        """
        place = self._last_question()
        message = self.turns[place]
        self.turns = self.turns[:place]
        return message

    def budget(self) -> Budget:
        """How much of the context is taken. Raises: as `ChatTemplate.render`."""
        ids = self.template.ids(self.messages, answer=False) if self.messages else []
        return Budget(len(ids), self._language_model.context_length, self._room())

    def answer(self, text: str) -> Generator[str | Turn, None, None]:
        """The user's turn, the answer's pieces as they are made, then the assistant's turn.

        An answer that is broken off is remembered as far as it came: by KeyboardInterrupt, which
        comes through after the assistant's turn, or because the iterator is closed.

        Raises:
            HftoolError: the message does not fit the context, the template fails, or the model's
                logits are not numbers. Then nothing has changed.
        """
        yield from self._answer(
            [*self.turns, {"role": "user", "content": text}], Turn("user", text)
        )

    def regenerate(self) -> Generator[str | Turn, None, None]:
        """Answer the last message of the user's again: as `answer`, without the user's turn."""
        yield from self._answer(self.turns[: self._last_question() + 1])

    def _last_question(self) -> int:
        places = (i for i in reversed(range(len(self.turns))) if self.turns[i]["role"] == "user")
        place = next(places, None)
        if place is None:
            raise HftoolError("nothing has been asked yet")
        return place

    def _answer(self, turns: list[Message], *before: Turn) -> Generator[str | Turn, None, None]:
        kept, ids = self._fitted(turns)
        settings = self.next_settings()
        if self.options.seed is not None:  # the n-th answer's is that of the first and n - 1
            self.options = replace(self.options, seed=self.options.seed + 1)
        request = Request(
            turns[-1]["content"],
            tuple(ids),
            settings,
            self.options.max_new_tokens,
            stop=self._stop,
        )
        text, complete = "", False
        turn = Turn("assistant", "", "interrupted", len(ids), None, settings.seed)
        try:
            yield from before
            for event in generate(self._language_model, request, decoder=self._decoder):
                if isinstance(event, Generation):
                    self.turns = [*kept, {"role": "assistant", "content": text}]
                    complete = True
                    yield replace(
                        turn,
                        content=text,
                        finish_reason=event.finish_reason,
                        completion_tokens=event.usage.completion_tokens,
                    )
                elif piece := event if text or self.template.stop is None else event.lstrip():
                    text += piece
                    yield piece
        except (KeyboardInterrupt, GeneratorExit) as stopped:
            self.turns = [*kept, {"role": "assistant", "content": text}]
            if isinstance(stopped, KeyboardInterrupt) and not complete:
                yield replace(turn, content=text)
            raise
        if settings.seed is not None:
            log.debug("seed %d", settings.seed)

    def _room(self) -> int:
        """How many tokens are kept free for an answer."""
        limit = self._language_model.context_length
        wanted = self.options.max_new_tokens
        # Half of a small context is for what was said, whatever an answer may take.
        return wanted if limit is None else min(wanted, limit // 2)

    def _fitted(self, turns: list[Message]) -> tuple[list[Message], list[int]]:
        """The turns that leave room for an answer, and the ids of all the model sees.

        Raises:
            HftoolError: as `answer`.
        """
        system = self.messages[: len(self.messages) - len(self.turns)]

        def ids_from(start: int) -> list[int]:
            return self.template.ids([*system, *turns[start:]])

        def fits(ids: list[int]) -> bool:
            limit = self._language_model.context_length
            return limit is None or len(ids) + self._room() <= limit

        ids = ids_from(0)
        later = [i for i, message in enumerate(turns) if i and message["role"] == "user"]
        if fits(ids):
            return turns, ids
        if later:
            if self._overflow == "stop":
                raise self._full(len(ids))
            # The fewer turns the fewer tokens; the last stays, whether it leaves room or not.
            dropped = bisect_left(
                later, True, hi=len(later) - 1, key=lambda start: fits(ids_from(start))
            )
            turns, ids = turns[later[dropped] :], ids_from(later[dropped])
        require_context(self._language_model, len(ids))
        if later:
            which = f"oldest {dropped + 1} turns" if dropped else "oldest turn"
            log.warning("the context is full: dropped the %s", which)
        return turns, ids

    def _full(self, tokens: int) -> HftoolError:
        limit, room = self._language_model.context_length, self._room()
        return HftoolError(
            f"the conversation has {tokens} tokens with this message, and an answer needs room for"
            f" {room}; the context of {self.model} holds {limit}",
            "/undo and /clear make room; --overflow drop drops the oldest turns",
        )

"""A chat: its messages, the model's answers, and a key-value cache that lasts between turns."""

import logging
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace

from hftool.chat.turns import Budget, Turn
from hftool.errors import HftoolError, UsageError
from hftool.generation.generate import generate
from hftool.generation.model_defaults import (
    complete_options,
    log_unused_fields,
    most_new_tokens,
    stop_strings,
)
from hftool.generation.prefix_cache import CachedModel, require_context
from hftool.generation.records import Generation, Piece, Request
from hftool.generation.requests import beam_settings, sampling_settings
from hftool.generation.sampling import SamplingSettings
from hftool.generation.sequential import generate_each
from hftool.models.language_model import LanguageModel
from hftool.options.constraints import Constraint
from hftool.options.generation import (
    CHAT_MAX_NEW_TOKENS,
    AnswerOptions,
    GenerationOptions,
    Overflow,
)
from hftool.prompting.chat_template import ChatTemplate
from hftool.prompting.messages import Chat, Message, text_of
from hftool.prompting.reasoning import opens_thought, tags_of

log = logging.getLogger("hftool")


class Conversation:
    """A chat that remembers its messages, and computes only what is new in each turn.

    Args:
        template: the model's chat template, or a plain frame.
        tool_template: the template for when there are tools, if it is another one.
        options: how to answer; a seed is that of the first answer, and each answer adds 1 to it.
        arguments: what the template gets beside the messages.
        stop: strings that end an answer.
        show_probs: whether pieces of answers have probabilities.
        overflow: what to do when the messages leave too little of the context for an answer: drop
            the oldest turns, or refuse the message ("stop").

    Raises:
        UsageError: as `resolve_sampling`.
        HftoolError: as `resolve_sampling`, or a stop string of the model is not text.
    """

    constraint: Constraint | None = None  # what an answer must look like
    reopen: Callable[["Conversation", str], "Conversation"]  # set where it was opened

    def __init__(
        self,
        language_model: LanguageModel,
        template: ChatTemplate,
        options: AnswerOptions,
        *,
        tool_template: ChatTemplate | None = None,
        system: str | None = None,
        arguments: Chat | None = None,
        stop: Sequence[str] = (),
        overflow: Overflow = "drop",
        show_probs: bool = False,
    ) -> None:
        self._language_model = language_model
        log_unused_fields(language_model, "num_return_sequences")
        self._template, self._tool_template = template, tool_template or template
        self._overflow = overflow
        # A plain frame has no token that ends a turn: it ends where the user's next turn begins.
        stops = stop_strings(stop or None, language_model.generation_config)
        self._stop = stops if template.stop is None else (*stops, template.stop)
        one_text = GenerationOptions(num_return_sequences=1)
        config = language_model.generation_config
        self._beams = beam_settings(complete_options(one_text, config))
        if show_probs and self._beams is not None:
            raise UsageError("--show-probs: this model's generation_config asks for beam search")
        self._show_probs = show_probs
        self._tags = tags_of(language_model.tokenizer)
        self._cached_model = CachedModel(language_model, rewinds=True)
        self.system = system
        self.arguments = arguments or Chat([])
        self.turns: list[Message] = []
        self.configure(options)
        self._has_stop_option = bool(stop)

    def constrain(self, constraint: Constraint | None) -> None:
        """Let the answers to come satisfy a constraint, or none.

        Raises:
            UsageError: `--stop` would cut them off.
        """
        if constraint is not None and self._has_stop_option:
            raise UsageError(f"--stop would cut off the text that --{constraint.kind} asks for")
        self.constraint = constraint

    @property
    def model(self) -> str:
        """The model's name."""
        return self._language_model.name

    def with_model(self, reference: str) -> "Conversation":
        """Return this conversation with another model.

        Raises: as `open_conversation`.
        """
        return self.reopen(self, reference)

    @property
    def template(self) -> ChatTemplate:
        """The template that the next answer is given with."""
        return self._template if self.arguments.tools is None else self._tool_template

    @property
    def messages(self) -> list[Message]:
        """All messages that the model sees, beginning with the system message, if any."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, *self.turns]

    @messages.setter
    def messages(self, messages: list[Message]) -> None:
        first = messages[0] if messages and messages[0]["role"] == "system" else None
        self.system = None if first is None else text_of(first.get("content"))
        self.turns = messages[1:] if first else list(messages)

    def chat(self, messages: list[Message], *, answer: bool = True) -> Chat:
        """Return messages as the template receives them."""
        return replace(self.arguments, messages=messages, answer=answer)

    @property
    def max_new_tokens(self) -> int:
        """The most tokens of an answer, as far as the conversation leaves room for them."""
        return self._most_new_tokens(0)

    def next_settings(self) -> SamplingSettings:
        """Return the settings of the next answer. Raises: as `resolve_sampling`."""
        return replace(self._settings(self.options), constraint=self.constraint)

    def _settings(self, options: AnswerOptions) -> SamplingSettings:
        config = self._language_model.generation_config
        return sampling_settings(options, config, self._beams)

    def configure(self, options: AnswerOptions) -> None:
        """Use these options for the answers to come.

        Raises:
            UsageError: as `resolve_sampling`; the options stay unchanged.
            HftoolError: as `resolve_sampling`; the options stay unchanged.
        """
        self._settings(options)
        self.options = options

    def clear(self) -> None:
        """Forget all messages but the system message."""
        self.turns = []

    def undo(self) -> Message:
        """Forget the user's last message and all that follow it, and return that message.

        Raises:
            HftoolError: the user has not sent a message.
        """
        index = self._last_user_turn()
        message = self.turns[index]
        self.turns = self.turns[:index]
        return message

    def budget(self) -> Budget:
        """Return how many tokens the conversation has and may have.

        Raises: as `ChatTemplate.render`.
        """
        ids = self.template.ids(self.chat(self.messages, answer=False)) if self.messages else []
        return Budget(len(ids), self._context(), self._answer_limit())

    def answer(self, text: str) -> Generator[Piece | Turn, None, None]:
        """Yield the user's turn, the pieces of the answer as they are generated, and the
        assistant's turn.

        An interrupted answer stays in the conversation as far as it got. The interruption is a
        KeyboardInterrupt, which passes on after the assistant's turn, or the closing of this
        generator.

        Raises:
            HftoolError: the message does not fit the context, the template fails, or the model's
                logits are not numbers. The conversation stays unchanged.
        """
        yield from self._answer(
            [*self.turns, {"role": "user", "content": text}], Turn("user", text)
        )

    def regenerate(self) -> Generator[Piece | Turn, None, None]:
        """Answer the user's last message again: as `answer`, but without the user's turn."""
        yield from self._answer(self.turns[: self._last_user_turn() + 1])

    def _last_user_turn(self) -> int:
        indices = (i for i in reversed(range(len(self.turns))) if self.turns[i]["role"] == "user")
        index = next(indices, None)
        if index is None:
            raise HftoolError("you have not sent a message yet")
        return index

    def _answer(
        self, turns: list[Message], *user_turn: Turn
    ) -> Generator[Piece | Turn, None, None]:
        """Answer the last of these turns, as `answer`; `user_turn` is yielded first, if given."""
        fitting, ids = self._fit(turns)
        settings = self.next_settings()
        if self.options.seed is not None:
            self.options = replace(self.options, seed=self.options.seed + 1)
        request = self._request(text_of(turns[-1].get("content")), ids, settings)
        text, complete = "", False
        valid: bool | None = None
        turn = Turn("assistant", "", "interrupted", len(ids), None, settings.seed)
        try:
            yield from user_turn
            for event in self._events(request):
                if isinstance(event, Generation):
                    turn = turn.with_answer(text, bool(request.opened_thought), self._tags)
                    self.turns = [*fitting, self._message(turn, text)]
                    complete, valid = True, event.valid
                    yield replace(
                        turn,
                        finish_reason=event.finish_reason,
                        completion_tokens=event.completion_tokens,
                    )
                elif piece := self._without_first_space(event.text, text):
                    text += piece
                    yield replace(event, text=piece)
        except (KeyboardInterrupt, GeneratorExit) as interruption:
            turn = turn.with_answer(text, bool(request.opened_thought), self._tags)
            self.turns = [*fitting, self._message(turn, text)]
            if isinstance(interruption, KeyboardInterrupt) and not complete:
                yield turn
            raise
        if settings.seed is not None:
            log.debug("seed %d", settings.seed)
        if valid is False:
            log.warning("the answer ended before satisfying the constraint")

    def _request(self, text: str, ids: list[int], settings: SamplingSettings) -> Request:
        return Request(
            text,
            tuple(ids),
            settings,
            self._most_new_tokens(len(ids)),
            stop=() if self.constraint else self._stop,
            beams=self._beams,
            with_probs=self._show_probs,
            opened_thought=opens_thought(self._language_model.tokenizer, ids),
        )

    def _message(self, turn: Turn, text: str) -> Message:
        """Return an answer as the template gets it: with its reasoning in the text, where most look
        for it, but apart where answers have a tag too (gpt-oss's template refuses the tags)."""
        if not self._tags.answer:
            return {"role": "assistant", "content": text}
        thinking = {"thinking": turn.reasoning} if turn.reasoning else {}
        return {"role": "assistant", "content": turn.content, **thinking}

    def _events(self, request: Request) -> Iterator[Piece | Generation]:
        if request.beams is None:
            yield from generate(self._language_model, request, cached_model=self._cached_model)
            return
        for event in generate_each(self._language_model, [request]):
            if isinstance(event, Generation):
                thought, tags = event.reasoning, self._tags
                if thought is not None:
                    opening = "" if request.opened_thought else tags.opening
                    yield Piece(f"{opening}{thought}{tags.to_answer}\n\n", is_reasoning=True)
                yield Piece(event.text)
            yield event

    def _most_new_tokens(self, prompt_tokens: int) -> int:
        config = self._language_model.generation_config
        option = self.options.max_new_tokens
        return most_new_tokens(option, config, prompt_tokens, CHAT_MAX_NEW_TOKENS)

    def _context(self) -> int | None:
        """Return how many tokens the conversation and an answer may have together."""
        config, context = (
            self._language_model.generation_config,
            self._language_model.context_length,
        )
        length = config.get("max_length")
        if length is None or self.options.max_new_tokens or config.get("max_new_tokens"):
            return context
        return int(length) if context is None else min(context, int(length))

    def _without_first_space(self, piece: str, before: str) -> str:
        """Return a piece without the space that begins an answer in the plain frame."""
        return piece if before or self.template.stop is None else piece.lstrip()

    def _answer_limit(self) -> int:
        """Return how many tokens are reserved for an answer."""
        context, config = self._context(), self._language_model.generation_config
        fields = {"max_new_tokens": config.get("max_new_tokens")}  # not `max_length`: it is all
        limit = most_new_tokens(self.options.max_new_tokens, fields, 0, CHAT_MAX_NEW_TOKENS)
        # However long answers may be, half of a small context is for the messages.
        return limit if context is None else min(limit, context // 2)

    def _fit(self, turns: list[Message]) -> tuple[list[Message], list[int]]:
        """Return the latest turns that leave enough of the context for an answer, and the ids of
        all that the model sees.

        Raises:
            HftoolError: as `answer`.
        """
        system = self.messages[: len(self.messages) - len(self.turns)]

        def ids_from(start: int) -> list[int]:
            return self.template.ids(self.chat([*system, *turns[start:]]))

        context = self._context()

        def fits(ids: list[int]) -> bool:
            return context is None or len(ids) + self._answer_limit() <= context

        ids = ids_from(0)
        starts = [i for i, message in enumerate(turns) if i and message["role"] == "user"]
        if fits(ids):
            return turns, ids
        if starts:
            if self._overflow == "stop":
                raise self._overflow_error(len(ids))
            # Fewer turns have fewer tokens. The last turn stays, even if it leaves too little.
            dropped = bisect_left(
                starts, True, hi=len(starts) - 1, key=lambda start: fits(ids_from(start))
            )
            turns, ids = turns[starts[dropped] :], ids_from(starts[dropped])
        require_context(self._language_model, len(ids))
        if starts:
            which = f"oldest {dropped + 1} turns" if dropped else "oldest turn"
            log.warning("the context is full: dropped the %s", which)
        return turns, ids

    def _overflow_error(self, tokens: int) -> HftoolError:
        context, answer = self._context(), self._answer_limit()
        return HftoolError(
            f"the conversation has {tokens} tokens with this message, and {answer} are reserved for"
            f" the answer; the context of {self.model} holds {context}",
            "shorten the conversation with /undo or /clear, or use --overflow drop",
        )

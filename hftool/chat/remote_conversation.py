"""A chat with a model behind an endpoint, which renders the template itself."""

from collections.abc import Generator, Sequence
from dataclasses import fields, replace
from typing import Any

from hftool.chat.conversation import Conversation
from hftool.chat.turns import Budget, Turn
from hftool.endpoint.generate import stream
from hftool.endpoint.parameters import remote_request
from hftool.endpoint.server import Endpoint
from hftool.errors import HftoolError
from hftool.generation.records import Generation, Piece
from hftool.generation.sampling import SamplingSettings
from hftool.options.constraints import Constraint
from hftool.options.generation import (
    CHAT_MAX_NEW_TOKENS,
    AnswerOptions,
    GenerateOptions,
    GenerationOptions,
)
from hftool.options.inputs import PromptOptions, TemplateOptions
from hftool.prompting.messages import Chat, Message

_QUESTION: list[Message] = [{"role": "user", "content": "Hello"}]


class _RemoteTemplate:
    """Stands for the template, which is at the server."""

    def render(self, chat: Chat) -> str:
        raise HftoolError(
            "the server has the template, and does not show it",
            "give --think and --template-arg when the chat begins",
        )


class RemoteConversation(Conversation):
    """A chat that remembers its messages, and sends all of them for each answer.

    How many tokens fit is the server's to say: a chat that has become too long is an error.

    Raises:
        HftoolError: the server does not know what an option asks for.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        options: AnswerOptions,
        templating: TemplateOptions,
        *,
        system: str | None = None,
        arguments: Chat | None = None,
        stop: Sequence[str] = (),
    ) -> None:
        self._endpoint = endpoint
        self._prompting = PromptOptions(
            chat=True, chat_template=templating.chat_template, template=templating.template
        )
        self._generation = GenerationOptions(stop=list(stop) or None)
        self._tokens = 0
        self.system = system
        self.arguments = arguments or Chat([])
        self.turns = []
        self.configure(options)

    def constrain(self, constraint: Constraint | None) -> None:
        """Let the answers to come satisfy a constraint, or none.

        Raises:
            HftoolError: the server does not know how; the constraint stays unchanged.
        """
        before, self.constraint = self.constraint, constraint
        try:
            self._settings(self.options)
        except HftoolError:
            self.constraint = before
            raise

    @property
    def model(self) -> str:
        """The model's name."""
        return self._endpoint.name

    @property
    def template(self) -> Any:
        """What raises where it is asked for the prompt."""
        return _RemoteTemplate()

    def budget(self) -> Budget:
        """Return how many tokens the server counted for the last answer and what preceded it."""
        return Budget(self._tokens if self.turns else 0, None, self.max_new_tokens)

    def _settings(self, options: AnswerOptions) -> SamplingSettings:
        remote_request(self._endpoint, self.chat(_QUESTION), self._options(options))
        names = {item.name for item in fields(SamplingSettings)} - {"greedy", "seed"}
        values = {name: getattr(options, name, None) for name in names}
        given = {name: value for name, value in values.items() if value is not None}
        greedy = options.greedy or options.temperature == 0
        return SamplingSettings(greedy=greedy, seed=options.seed, **given)

    def _most_new_tokens(self, prompt_tokens: int) -> int:
        return self.options.max_new_tokens or CHAT_MAX_NEW_TOKENS

    def _options(self, options: AnswerOptions) -> GenerateOptions:
        return GenerateOptions(
            self._prompting, options, self._generation, constraint=self.constraint
        )

    def _answer(
        self, turns: list[Message], *user_turn: Turn
    ) -> Generator[Piece | Turn, None, None]:
        chat = self.chat([*self.messages[: len(self.messages) - len(self.turns)], *turns])
        options = self._options(self.options)
        request = remote_request(self._endpoint, chat, options, CHAT_MAX_NEW_TOKENS)
        if self.options.seed is not None:
            self.options = replace(self.options, seed=self.options.seed + 1)
        text, complete = "", False
        turn = Turn("assistant", "", "interrupted", None, None, request.seed)
        try:
            yield from user_turn
            for event in stream(self._endpoint, request):
                if isinstance(event, Generation):
                    usage = event.usage
                    turn = replace(turn, finish_reason=event.finish_reason)
                    if usage:
                        counts = (usage.prompt_tokens, usage.completion_tokens)
                        self._tokens = sum(counts)
                        turn = replace(turn, prompt_tokens=counts[0], completion_tokens=counts[1])
                    self.turns = [*turns, {"role": "assistant", "content": text}]
                    complete = True
                    yield turn.with_answer(text, opened=False)
                else:
                    text += event.text
                    yield event
        except (KeyboardInterrupt, GeneratorExit) as interruption:
            self.turns = [*turns, {"role": "assistant", "content": text}]
            if isinstance(interruption, KeyboardInterrupt) and not complete:
                yield turn.with_answer(text, opened=False)
            raise

"""Slash commands: messages in a chat that begin with a slash."""

import difflib
import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from hftool.chat import storage
from hftool.chat.conversation import Conversation
from hftool.chat.settings import UNSET, change_setting
from hftool.chat.turns import Turn
from hftool.errors import HftoolError, UsageError
from hftool.generation.constraints import read_constraint
from hftool.generation.records import Piece
from hftool.generation.sampling import SamplingSettings
from hftool.options.constraints import ConstraintOptions
from hftool.options.ranges import SWITCH
from hftool.prompting.given_texts import tool_name
from hftool.prompting.messages import Chat, text_of
from hftool.prompting.prompt import parse_variable, read_objects
from hftool.terminal import one_line

LEAVE = "exit"
LEAVE_WORDS = (LEAVE, "quit")  # these leave without a slash
ALIASES = {"quit": LEAVE, "bye": LEAVE, "retry": "regen"}
CLOSE_IN_SPELLING = 0.75  # difflib's ratio
ALWAYS_SHOWN = ("temperature", "top_k", "top_p")
_NAME = re.compile(r"/([A-Za-z][\w-]*)(?=\s|$)", re.ASCII)


@dataclass(frozen=True)
class Note:
    """A message from hftool itself, of one or several lines."""

    text: str


Event = Piece | Turn | Note | Conversation  # a conversation takes the place of this one
Events = Generator[Event, None, None]


@dataclass(frozen=True)
class Command:
    """A slash command. `argument` is what /help shows, in brackets if it is optional."""

    name: str
    argument: str
    help: str
    run: Callable[[Conversation, str], Events]

    @property
    def usage(self) -> str:
        """The command and its argument, as /help shows them."""
        return f"/{self.name} {self.argument}".rstrip()


def parse(message: str) -> tuple[Command | None, str]:
    """Return the command of a message and its argument, or None and the text for the model.

    Raises:
        UsageError: the command is unknown, or its argument is missing or unexpected.
    """
    text = message.strip()
    if text.startswith("//"):
        return None, message.replace("//", "/", 1)
    match = _NAME.match(f"/{LEAVE}" if text in LEAVE_WORDS else text)
    if match is None:
        return None, message
    name = match[1]
    command = COMMANDS.get(ALIASES.get(name, name))
    if command is None:
        close = difflib.get_close_matches(name.lower(), (*COMMANDS, *ALIASES), 1, CLOSE_IN_SPELLING)
        guess = f"did you mean /{close[0]}? " if close else ""
        raise UsageError(
            f"unknown command /{name[:40]}",
            f"{guess}/help lists the commands; type // to send a text that begins with a slash",
        )
    argument = text[match.end() :].strip()
    if argument and not command.argument:
        raise UsageError(f"/{name} takes no argument")
    if not argument and command.argument and not command.argument.startswith("["):
        raise UsageError(f"/{name} needs an argument: {command.usage}")
    return command, argument


def respond(conversation: Conversation, message: str) -> Events:
    """Yield the model's answer to a message, or run a slash command.

    Raises:
        EOFError: the message ends the chat.
        UsageError: as `parse`.
        HftoolError: as `Conversation.answer`, or the command fails.
    """
    command, text = parse(message)
    yield from conversation.answer(text) if command is None else command.run(conversation, text)


def _help(conversation: Conversation, argument: str) -> Events:
    rows = [(command.usage, command.help) for command in COMMANDS.values()]
    yield Note(_aligned(rows) + '\n"""  begins and ends a message of several lines')


def _clear(conversation: Conversation, argument: str) -> Events:
    conversation.clear()
    kept = "everything but the system message" if conversation.system else "the conversation"
    yield Note(f"forgot {kept}")


def _system(conversation: Conversation, argument: str) -> Events:
    if argument:
        conversation.system = None if argument == '""' else argument
        yield Note("the system message is set" if conversation.system else "no system message")
    else:
        yield Note(conversation.system or "no system message")


def describe(conversation: Conversation) -> str:
    """Return the model, its context and the settings of the answers on a line."""
    context = conversation.budget().context
    parts = [conversation.model]
    if context is not None:
        parts.append(f"{context:,} tokens of context")
    settings = conversation.next_settings()
    if settings.greedy:
        parts.append("greedy")
    else:
        neutral = SamplingSettings(greedy=False, seed=None)
        values = ((f.name, getattr(settings, f.name)) for f in fields(settings))
        parts.append(
            ", ".join(
                f"{name.replace('_', '-')} {value}"
                for name, value in values
                if isinstance(value, float | int)
                and name != "seed"
                and value != getattr(neutral, name)
            )
        )
    return " · ".join(filter(None, parts))


def _model(conversation: Conversation, argument: str) -> Events:
    if argument:
        conversation = conversation.with_model(argument)
        yield conversation
    yield Note(describe(conversation))


def _set(conversation: Conversation, argument: str) -> Events:
    name, value = [*re.split(r"[=\s]", argument, maxsplit=1), ""][:2]
    if not name:
        yield Note(_aligned(_effective_settings(conversation)))
        return
    if not value.strip():
        raise UsageError(
            "/set needs a name and a value: /set NAME VALUE", "the value `default` resets a setting"
        )
    conversation.configure(change_setting(conversation.options, name, value.strip()))
    yield Note(_aligned(_effective_settings(conversation)))


def _effective_settings(conversation: Conversation) -> Iterator[tuple[str, str]]:
    """Yield the settings that affect the next answer, and their values."""
    settings = conversation.next_settings()
    seed = "drawn for each answer"
    if conversation.options.seed is not None:
        seed = f"{settings.seed}, then 1 higher for each answer"
    greedy = "on: temperature and seed have no effect" if settings.greedy else "off"
    words = {"greedy": greedy, "seed": seed}
    neutral = {**asdict(SamplingSettings(greedy=True, seed=None)), "greedy": None}
    values = asdict(settings)
    further, _ = values.pop("further"), values.pop("constraint")
    for name, value in values.items():
        if value != neutral[name] or (name in ALWAYS_SHOWN and not settings.greedy):
            shown = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            yield name, words.get(name, shown)
    yield from ((name, json.dumps(value)) for name, value in further.items())
    yield "max_new_tokens", str(conversation.max_new_tokens)


def _regen(conversation: Conversation, argument: str) -> Events:
    answer = conversation.regenerate()
    if conversation.next_settings().greedy:
        yield Note("greedy answers do not vary: this one will be the same")
    yield from answer


def _undo(conversation: Conversation, argument: str) -> Events:
    text = one_line(text_of(conversation.undo().get("content")))
    yield Note(f"forgot: {text if len(text) <= 60 else text[:59] + '…'}")


def _save(conversation: Conversation, argument: str) -> Events:
    path = Path(argument).expanduser()
    storage.save(conversation, path)
    yield Note(f"saved {_messages(conversation)} to {one_line(str(path))}")


def _load(conversation: Conversation, argument: str) -> Events:
    path = Path(argument).expanduser()
    storage.load(conversation, path)
    yield Note(f"loaded {_messages(conversation)} from {one_line(str(path))}")


def _messages(conversation: Conversation) -> str:
    count = len(conversation.messages)
    return f"{count} message{'s' * (count != 1)}"


def _template(conversation: Conversation, argument: str) -> Events:
    if conversation.messages:
        chat = conversation.chat(conversation.messages, answer=False)
        yield Note(conversation.template.render(chat))
    else:
        yield Note("the conversation is empty")


def _tokens(conversation: Conversation, argument: str) -> Events:
    budget = conversation.budget()
    rows = [("conversation", f"{budget.conversation:>9,} tokens")]
    if budget.context is not None:
        left = max(0, budget.context - budget.conversation)
        rows += [("context", f"{budget.context:>9,}"), ("left", f"{left:>9,}")]
    rows += [("an answer", f"{budget.answer:>9,} at most")]
    yield Note(_aligned(rows))


def _tools(conversation: Conversation, argument: str) -> Events:
    if argument:
        path = Path(argument).expanduser()
        tools = None if argument == '""' else read_objects(path, "tools")
        conversation.arguments = replace(conversation.arguments, tools=tools)
    yield Note("\n".join(map(tool_name, conversation.arguments.tools or ())) or "no tools")


def _think(conversation: Conversation, argument: str) -> Events:
    if argument:
        if argument.lower() not in (*SWITCH, UNSET):
            raise UsageError("/think takes on, off or default")
        think = SWITCH.get(argument.lower())
        conversation.arguments = _accepted(conversation, think=think)
    think = conversation.arguments.think
    yield Note("thinking is " + ("left to the template" if think is None else _on_or_off(think)))


def _schema(conversation: Conversation, argument: str) -> Events:
    if argument:
        constraint = None
        if argument != '""':
            constraint = read_constraint(ConstraintOptions(schema=argument))
        conversation.constrain(constraint)
    constraint = conversation.constraint
    if constraint is None:
        yield Note("answers are free texts")
    else:
        yield Note(f"answers must satisfy the {constraint.kind} {constraint.text}")


def _on_or_off(value: bool) -> str:
    return "on" if value else "off"


def _variable(conversation: Conversation, argument: str) -> Events:
    if argument:
        name, value = parse_variable(argument)
        variables = {**conversation.arguments.variables, name: value}
        if value == UNSET:
            del variables[name]
        conversation.arguments = _accepted(conversation, variables=variables)
    variables = dict(conversation.arguments.variables)
    yield Note("\n".join(f"{n}={json.dumps(v)}" for n, v in variables.items()) or "no variables")


def _accepted(conversation: Conversation, **changes: Any) -> Chat:
    """Return the conversation's arguments with changes.

    Raises:
        UsageError: the template does not accept them.
    """
    arguments = replace(conversation.arguments, **changes)
    question = [{"role": "user", "content": "Hello"}]
    try:
        conversation.template.render(replace(arguments, messages=question))
    except HftoolError as error:
        raise UsageError(error.message, error.hint) from None
    return arguments


def _exit(conversation: Conversation, argument: str) -> Events:
    raise EOFError
    yield  # makes this function a generator, like the others


def _aligned(pairs: Iterable[tuple[str, str]]) -> str:
    rows = list(pairs)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


COMMANDS = {
    command.name: command
    for command in (
        Command("help", "", "show this list", _help),
        Command("clear", "", "forget the conversation, but not the system message", _clear),
        Command("system", "[TEXT]", 'show or set the system message ("" for none)', _system),
        Command("model", "[REF]", "show the model, or go on with another", _model),
        Command("set", "[NAME VALUE]", "show or change the settings of the answers", _set),
        Command("regen", "", "answer the last message again (also /retry)", _regen),
        Command("undo", "", "forget the last message and its answer", _undo),
        Command("save", "FILE", "save the conversation (JSON)", _save),
        Command("load", "FILE", "continue a saved conversation", _load),
        Command("template", "", "show the conversation as the model sees it", _template),
        Command("tools", "[FILE]", 'show or set the tools, from JSON ("" for none)', _tools),
        Command("think", "[on|off]", "show or set whether the model reasons first", _think),
        Command(
            "schema", "[SCHEMA]", 'show or set a JSON Schema for answers ("" for none)', _schema
        ),
        Command("template-arg", "[KEY=VALUE]", "show or set variables of the template", _variable),
        Command("tokens", "", "show how much of the context is used", _tokens),
        Command(LEAVE, "", "leave the chat (also /quit, /bye, exit, quit, Ctrl-D)", _exit),
    )
}

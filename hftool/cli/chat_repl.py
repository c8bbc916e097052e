"""Run a chat: read the user's messages from a terminal or a pipe, and yield the turns."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hftool.config import history_path
from hftool.errors import HftoolError, UsageError
from hftool.generation.records import Piece
from hftool.inputs.streams import STDIN
from hftool.inputs.texts import lines
from hftool.options.inputs import ByteErrors, FileOptions
from hftool.options.output import Color
from hftool.terminal import is_terminal, show_error, show_on_stderr

if TYPE_CHECKING:
    from prompt_toolkit.history import History

    from hftool.chat.conversation import Conversation
    from hftool.chat.slash_commands import Event, Events
    from hftool.chat.turns import Turn

log = logging.getLogger("hftool")

YOURS = "bold ansigreen"  # prompt_toolkit's name for the style of the user's part
FENCE = '"""'

ReadLine = Callable[[str], str]  # shows a prompt and reads a line; EOFError where there is none


def run_chat(
    conversation: "Conversation",
    save_to: Path | None = None,
    errors: ByteErrors = "strict",
    color: Color = "auto",
) -> "Iterator[Piece | Turn]":
    """Yield the turns of a chat until stdin ends or the user leaves.

    After each message that changes the conversation, save it to `save_to`. At a terminal, Ctrl-C
    stops the answer and errors are shown; neither ends the chat. From a pipe an error ends it,
    unless it is a mistyped slash command.
    """
    from hftool.chat.slash_commands import describe
    from hftool.chat.storage import save

    terminal = is_terminal(sys.stdin)
    if terminal:
        log.info("%s", describe(conversation))
        log.info("/help lists the commands, Ctrl-C stops an answer, exit or Ctrl-D leaves")
        # Ctrl-C between answers and prompts does nothing.
        signal.signal(signal.SIGINT, lambda number, frame: None)
    saved = conversation.messages
    for message in _messages(_line_editor(errors, color) if terminal else _lines(errors)):
        try:
            conversation = yield from _turns(conversation, message, terminal)
            if save_to is not None and conversation.messages != saved:
                save(conversation, save_to)
                saved = conversation.messages
        except EOFError:
            return
        except HftoolError as error:
            if not (terminal or isinstance(error, UsageError)):
                raise
            show_error(error)


def _turns(
    conversation: "Conversation", message: str, terminal: bool
) -> "Generator[Piece | Turn, None, Conversation]":
    """Yield the pieces and turns that follow a message, show hftool's notes on stderr, and return
    the conversation, which may have another model then."""
    from hftool.chat.conversation import Conversation
    from hftool.chat.slash_commands import Note, respond

    events = respond(conversation, message)
    inside_line = False
    try:
        for event in interruptible(events) if terminal else events:
            if isinstance(event, Note):
                show_on_stderr(event.text)
            elif isinstance(event, Conversation):
                conversation = event
            else:
                inside_line = isinstance(event, Piece)
                yield event
    except HftoolError:
        if inside_line:
            yield Piece("\n")
        raise
    return conversation


def interruptible(events: "Events") -> Iterator["Event"]:
    """Pass events on until Ctrl-C, and then those that end the answer.

    KeyboardInterrupt is raised inside the generator of the events: immediately if it is computing
    one, otherwise as soon as the next one is needed.
    """
    computing = pressed = False

    def interrupt(number: int, frame: Any) -> None:
        nonlocal pressed
        pressed = True
        if computing:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        while True:
            computing = not pressed
            event = events.throw(KeyboardInterrupt) if pressed else next(events, None)
            computing = False
            if event is None:
                return
            yield event
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGINT, before)


def _messages(read: ReadLine) -> Iterator[str]:
    '''Yield messages of one line, or of several between two `"""`. Empty ones are skipped.'''
    while True:
        try:
            message = read("you> ")
            if message.lstrip().startswith(FENCE):
                message = _fenced(message.lstrip().removeprefix(FENCE), read)
        except KeyboardInterrupt:
            if not is_terminal(sys.stdin):
                raise
            continue  # Ctrl-C at the prompt discards the message
        except EOFError:
            return
        if message.strip():
            yield message


def _fenced(first: str, read: ReadLine) -> str:
    parts = [first]
    while not parts[-1].rstrip().endswith(FENCE):
        try:
            parts.append(read("...> "))
        except EOFError:
            break
    parts[-1] = parts[-1].rstrip().removesuffix(FENCE)
    return "\n".join(parts).strip("\n")


def _lines(errors: ByteErrors, *, prompting: bool = False) -> ReadLine:
    """Return a function that reads lines of stdin.

    Args:
        prompting: show the prompts, on stderr.
    """
    source = lines(FileOptions(STDIN, errors))

    def read(prompt: str) -> str:
        if prompting:
            sys.stderr.write(prompt)
            sys.stderr.flush()
        line = next(source, None)
        if line is None:
            raise EOFError
        return line

    return read


def _line_editor(errors: ByteErrors, color: Color) -> ReadLine:
    """Return a function that reads lines from the terminal, with a history and Tab completion of
    slash commands. Prompts go to stderr; they and what the user types are bold."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.output import create_output
    from prompt_toolkit.styles import Style
    from prompt_toolkit.utils import is_dumb_terminal

    from hftool.chat.slash_commands import COMMANDS

    if is_dumb_terminal():
        return _lines(errors, prompting=True)
    commands = [f"/{name}" for name in COMMANDS]
    session: PromptSession[str] = PromptSession(
        output=create_output(stdout=sys.stderr),
        history=_history(),
        completer=WordCompleter(commands, sentence=True),
        complete_while_typing=False,
        enable_suspend=True,  # Ctrl-Z
        style=None if color == "never" or os.environ.get("NO_COLOR") else Style([("", YOURS)]),
    )
    return session.prompt


def _history() -> "History":
    """Return the lines typed in earlier chats; only those of this chat if there is no file for
    them."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        path = history_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except (OSError, RuntimeError):  # RuntimeError: the user has no home folder
        return InMemoryHistory()
    return FileHistory(path)

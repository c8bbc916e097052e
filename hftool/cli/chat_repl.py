"""Where a person and the model take turns: line editing at a terminal, lines from a pipe."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hftool.config import history_path
from hftool.errors import HftoolError, UsageError
from hftool.inputs.texts import STDIN, lines
from hftool.options.inputs import ByteErrors, FileOptions
from hftool.terminal import is_terminal, show_error, show_on_stderr

if TYPE_CHECKING:
    from prompt_toolkit.history import History

    from hftool.chat.conversation import Conversation, Turn
    from hftool.chat.slash_commands import Event, Events

log = logging.getLogger("hftool")

FENCE = '"""'

ReadLine = Callable[[str], str]  # shows the prompt; raises EOFError at the end


def spoken_turns(
    conversation: "Conversation", saved_to: Path | None = None, errors: ByteErrors = "strict"
) -> Iterator["str | Turn"]:
    """All turns until stdin ends or a message says `exit`; what changes the chat is saved at once.

    At a terminal nothing but that ends the chat: Ctrl-C ends an answer, an error is shown. From a
    pipe an error ends it, except for a slash command that is mistyped.
    """
    from hftool.chat.storage import save

    terminal = is_terminal(sys.stdin)
    if terminal:  # between answers and prompts, too, Ctrl-C is no end
        signal.signal(signal.SIGINT, lambda number, frame: None)
    saved = conversation.messages
    for message in _messages(_line_editor(errors) if terminal else _lines(errors)):
        try:
            yield from _shown(conversation, message, terminal)
            if saved_to is not None and conversation.messages != saved:
                save(conversation, saved_to)
                saved = conversation.messages
        except EOFError:
            return
        except HftoolError as error:
            if not (terminal or isinstance(error, UsageError)):
                raise
            show_error(error)


def _shown(conversation: "Conversation", message: str, terminal: bool) -> Iterator["str | Turn"]:
    """The events of one message that belong on stdout; the others are shown on stderr."""
    from hftool.chat.slash_commands import Note, respond

    events = respond(conversation, message)
    inside_line = False
    try:
        for event in interruptible(events) if terminal else events:
            if isinstance(event, Note):
                show_on_stderr(event.text)
                continue
            inside_line = isinstance(event, str)
            yield event
    except HftoolError:
        if inside_line:
            yield "\n"
        raise


def interruptible(events: "Events") -> Iterator["Event"]:
    """Events until Ctrl-C, wherever the program is at that moment.

    While an event is computed KeyboardInterrupt is raised there, at once; else as soon as the next
    one is asked for. What the events' source still has to say then is passed on.
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
    '''Messages of one line, or of several between two `"""`; empty ones are left out.'''
    while True:
        try:
            message = read("> ")
            if message.lstrip().startswith(FENCE):
                message = _fenced(message.lstrip().removeprefix(FENCE), read)
        except KeyboardInterrupt:
            if not is_terminal(sys.stdin):
                raise
            continue  # Ctrl-C at the prompt takes the message back
        except EOFError:
            return
        if message.strip():
            yield message


def _fenced(first: str, read: ReadLine) -> str:
    parts = [first]
    while not parts[-1].rstrip().endswith(FENCE):
        try:
            parts.append(read(". "))
        except EOFError:
            break
    parts[-1] = parts[-1].rstrip().removesuffix(FENCE)
    return "\n".join(parts).strip("\n")


def _lines(errors: ByteErrors, *, prompting: bool = False) -> ReadLine:
    """Lines of stdin as they are."""
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


def _line_editor(errors: ByteErrors) -> ReadLine:
    """Lines typed at the terminal, with history and Tab for slash commands; prompts on stderr."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.output import create_output
    from prompt_toolkit.utils import is_dumb_terminal

    from hftool.chat.slash_commands import COMMANDS

    log.info("Ctrl-C stops an answer; /help lists the commands; exit or Ctrl-D leaves.")
    if is_dumb_terminal():
        return _lines(errors, prompting=True)
    commands = [f"/{name}" for name in COMMANDS]
    session: PromptSession[str] = PromptSession(
        output=create_output(stdout=sys.stderr),
        history=_history(),
        completer=WordCompleter(commands, sentence=True),
        complete_while_typing=False,
    )
    return session.prompt


def _history() -> "History":
    """What was typed in earlier chats, where there is a place to keep it."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        path = history_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return InMemoryHistory()
    return FileHistory(path)

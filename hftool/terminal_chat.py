"""Where a person and the model take turns: line editing at a terminal, lines from a pipe."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hftool.inputs import lines
from hftool.options import FileOptions
from hftool.output.terminal import show_on_stderr

if TYPE_CHECKING:
    from hftool.conversation import Conversation, Turn

LEAVE = ("exit", "/exit")
FENCE = '"""'


def spoken_turns(conversation: "Conversation") -> Iterator["str | Turn"]:
    """All turns until stdin ends or a message says `exit`; an interrupted answer ends its turn."""
    messages = _typed() if sys.stdin.isatty() else _joined(lines(FileOptions()))
    for message in messages:
        if message.strip() in LEAVE:
            return
        if not message.strip():
            continue
        answer = conversation.answer(message)
        try:
            yield from answer
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            yield "\n"


def _joined(source: Iterator[str]) -> Iterator[str]:
    '''Messages of one line, or of several between two `"""`.'''
    for line in source:
        if not line.lstrip().startswith(FENCE):
            yield line
            continue
        parts = [line.lstrip().removeprefix(FENCE)]
        while not parts[-1].rstrip().endswith(FENCE):
            following = next(source, None)
            if following is None:
                break
            parts.append(following)
        parts[-1] = parts[-1].rstrip().removesuffix(FENCE)
        yield "\n".join(parts).strip("\n")


def _typed() -> Iterator[str]:
    """Messages typed at the terminal; the prompt goes to stderr."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.output import create_output

    session: PromptSession[str] = PromptSession(output=create_output(stdout=sys.stderr))

    def read() -> Iterator[str]:
        prompt = "> "
        show_on_stderr("Ctrl-C stops an answer; exit or Ctrl-D leaves.")
        while True:
            try:
                line = session.prompt(prompt)
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            opens = line.lstrip().startswith(FENCE) and prompt == "> "
            closes = line.rstrip().endswith(FENCE) and len(line.strip()) > len(FENCE) * opens
            prompt = "> " if closes else ". " if opens or prompt == ". " else "> "
            yield line

    yield from _joined(read())

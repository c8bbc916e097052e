"""Where a person chooses each token of a generation."""

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hftool.errors import UsageError
from hftool.terminal import is_terminal, one_line, show_on_stderr

if TYPE_CHECKING:
    from hftool.generation.steps import Step, StepCandidates, StepSampler
    from hftool.options.output import Color
    from hftool.tokenization.tokenizer import Tokenizer

HELP = 'a rank or a text picks (a text "3" in quotes), Enter draws, u undoes, q ends'
DRAW, UNDO, QUIT = "", "u", "q"


def require_terminal() -> None:
    """Raise where nobody can be asked.

    Raises:
        UsageError: stdin is no terminal.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("--pick asks at a terminal, and stdin is none")


def picked_steps(walk: "StepSampler", prompt: str, color: "Color") -> Iterator["Step"]:
    """The steps of a walk once a person has chosen them; what is asked goes to stderr."""
    answers = _answers()
    show_on_stderr(HELP)
    asked_again = False
    while walk.is_open:
        choice = walk.choice()
        if not asked_again:
            _show(choice, prompt, color)
        answer = next(answers, QUIT)
        if answer == QUIT:
            break
        asked_again = False
        if answer == UNDO and walk.taken:
            walk.undo()
        elif answer == UNDO:
            show_on_stderr("there is no step to undo")
            asked_again = True
        else:
            try:
                walk.take(chosen_id(answer, choice, walk.tokenizer))
            except UsageError as error:
                show_on_stderr(one_line(error.message))
                asked_again = True
    yield from walk.taken


def chosen_id(answer: str, choice: "StepCandidates", tokenizer: "Tokenizer") -> int | None:
    """The token that an answer names by its rank or its text; None leaves it to the draw.

    Raises:
        UsageError: there is no such rank, or the text is no single token.
    """
    if answer == DRAW:
        return None
    if answer.isascii() and answer.isdigit():
        ids = {str(c.rank): c.id for c in choice.candidates}
        if answer not in ids:
            raise UsageError(
                f'the ranks go from 1 to {len(ids)}; a text goes in quotes: "{answer}"'
            )
        return ids[answer]
    text = _unquoted(answer)
    found = tokenizer.encode(text, special=False).ids
    if len(found) != 1:
        tokens = " ".join(f"“{tokenizer.token_text(token_id)}”" for token_id in found)
        raise UsageError(f"“{text}” is no single token: {tokens or 'it has none'}")
    return int(found[0])


def _unquoted(answer: str) -> str:
    r"""A text that was given in quotes, with JSON's escapes: '"\\n"' -> a line break."""
    if len(answer) < 2 or not (answer.startswith('"') and answer.endswith('"')):
        return answer
    try:
        return str(json.loads(answer))
    except ValueError:
        return answer[1:-1]


def _answers() -> Iterator[str]:
    """What is typed; ends with Ctrl-D."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.output import create_output

    session: PromptSession[str] = PromptSession(output=create_output(stdout=sys.stderr))
    while True:
        try:
            yield session.prompt("pick> ")
        except EOFError:
            return


def _show(choice: "StepCandidates", prompt: str, color: "Color") -> None:
    from hftool.output.tables.base import table_console
    from hftool.output.tables.steps import choice as screen

    sys.stderr.writelines(screen(prompt, [choice], table_console(color, is_terminal(sys.stderr))))
    sys.stderr.flush()

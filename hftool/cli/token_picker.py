"""Let the user pick each token of a generation (`sample --pick`)."""

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hftool.errors import UsageError
from hftool.terminal import is_terminal, one_line, show_on_stderr

if TYPE_CHECKING:
    from hftool.generation.candidates import Step, StepCandidates
    from hftool.generation.steps import StepSampler
    from hftool.options.output import Color
    from hftool.tokenization.tokenizer import Tokenizer

HELP = 'pick by rank or by text (the text "3" in quotes); Enter draws, u undoes, q ends'
DRAW, UNDO, QUIT = "", "u", "q"


def require_terminal() -> None:
    """Raise where nobody can be asked.

    Raises:
        UsageError: stdin is not a terminal.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("--pick needs a terminal, but stdin is not one")


def picked_steps(sampler: "StepSampler", color: "Color") -> Iterator["Step"]:
    """Let the user pick tokens until the end, and then yield the steps. Questions go to stderr."""
    prompt = sampler.prompt
    answers = _answers()
    show_on_stderr(HELP)
    ask_again = False
    while sampler.can_continue:
        candidates = sampler.next_candidates()
        if not ask_again:
            _show(candidates, prompt, color)
        answer = next(answers, QUIT)
        if answer == QUIT:
            break
        ask_again = False
        if answer == UNDO and sampler.steps:
            sampler.undo()
        elif answer == UNDO:
            show_on_stderr("there is no step to undo")
            ask_again = True
        else:
            try:
                sampler.step(picked_id(answer, candidates, sampler.tokenizer))
            except UsageError as error:
                show_on_stderr(one_line(error.message))
                ask_again = True
    yield from sampler.steps


def picked_id(answer: str, candidates: "StepCandidates", tokenizer: "Tokenizer") -> int | None:
    """Return the token that an answer names by its rank or its text, or None to draw one.

    Raises:
        UsageError: no candidate has this rank, or the text is not a single token.
    """
    if answer == DRAW:
        return None
    if answer.isascii() and answer.isdigit():
        ids = {str(c.rank): c.id for c in candidates.candidates}
        if answer not in ids:
            raise UsageError(f'the ranks are 1 to {len(ids)}; put a text in quotes: "{answer}"')
        return ids[answer]
    text = _unquoted(answer)
    token_ids = tokenizer.encode(text, special=False).ids
    if len(token_ids) != 1:
        tokens = " ".join(f"“{tokenizer.token_text(token_id)}”" for token_id in token_ids)
        count = f"{len(token_ids)} tokens here: {tokens}" if tokens else "not a token"
        raise UsageError(f"“{text}” is {count}")
    return int(token_ids[0])


def _unquoted(answer: str) -> str:
    r"""Return an answer without quotes, if it has them, and with JSON's escapes decoded:
    '"\\n"' -> a line break."""
    if len(answer) < 2 or not (answer.startswith('"') and answer.endswith('"')):
        return answer
    try:
        return str(json.loads(answer))
    except ValueError:
        return answer[1:-1]


def _answers() -> Iterator[str]:
    """Yield the lines that the user types, until Ctrl-D."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.output import create_output

    output = create_output(stdout=sys.stderr)
    session: PromptSession[str] = PromptSession(output=output, enable_suspend=True)  # Ctrl-Z
    while True:
        try:
            yield session.prompt("pick> ")
        except EOFError:
            return


def _show(candidates: "StepCandidates", prompt: str, color: "Color") -> None:
    from hftool.output.tables.base import table_console
    from hftool.output.tables.steps import step_candidates

    console = table_console(color, is_terminal(sys.stderr))
    sys.stderr.write(step_candidates(prompt, candidates, console))
    sys.stderr.flush()

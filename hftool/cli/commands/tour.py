"""`hftool tour`"""

import sys
import textwrap
from dataclasses import dataclass
from typing import Any

import typer

from hftool.cli.suggestions import quoted
from hftool.terminal import is_terminal

WIDTH = 80
NEXT = "Enter for the next step, or a text of your own: "


@dataclass(frozen=True)
class Stop:
    """A step of the tour: what to look at, and the command that shows it. `text` is put in place
    of TEXT, or what the user types instead."""

    title: str
    explanation: str
    command: str
    text: str | None = None


STOPS = (
    Stop(
        "A text is cut into tokens",
        "A language model does not read letters or words. It reads tokens: pieces of text that have"
        " a number each. Look at the spaces: they belong to the token after them.",
        "encode TEXT",
        "good morning, good people",
    ),
    Stop(
        "The tokens come from a vocabulary",
        "The model knows 49,152 tokens and nothing else. The first ones are special: they mark"
        " where a text or a message begins and ends, and stand for no letters.",
        "decode 0 1 2 3 4 5",
    ),
    Stop(
        "One prediction",
        "Given the tokens so far, the model gives every token of its vocabulary a probability of"
        " being the next. This is all that it ever does.",
        "topk TEXT -k 5",
        "The capital of France is",
    ),
    Stop(
        "A space at the end is another question",
        'The word " Paris" begins with a space, and you have just typed it. Now the model looks for'
        " a token that can follow a space, and expects a number.",
        "topk TEXT -k 5",
        "The capital of France is ",
    ),
    Stop(
        "Temperature changes the odds",
        "The column `sampled` has the probabilities that a token is drawn with. A temperature of 2"
        " makes them more equal, 0.5 would favour the first ones even more.",
        "topk TEXT -k 5 --temperature 2 --top-p 1",
        "The capital of France is",
    ),
    Stop(
        "Again and again",
        "To write, the model draws a token, puts it at the end of the text, and predicts the next."
        " The number that was drawn falls on one of the rows: `sum` adds them up.",
        "sample TEXT --steps 3 -k 4 --temperature 1 --top-p 1 --seed 7",
        "Once upon a time",
    ),
    Stop(
        "Several tokens ahead",
        "A draw takes one path among many. The tree shows more of them: `prob` is a token's"
        " probability after those before it, and `path` that of the whole path.",
        "tree TEXT --depth 3 --branch 2",
        "The capital of France is",
    ),
    Stop(
        "Only the text",
        "This is what most programs show you: the same, without the numbers.",
        "generate TEXT -n 40 --seed 7",
        "Once upon a time",
    ),
    Stop(
        "From continuing to answering",
        "A model that answers has learned from conversations, written down in a certain form. The"
        " chat template puts your message into this form, and the model continues it.",
        "encode --show-template TEXT",
        "What is the capital of France?",
    ),
    Stop(
        "An answer",
        "It ends when the model predicts the token <|im_end|>.",
        "generate --chat TEXT --seed 7",
        "What is the capital of France?",
    ),
    Stop(
        "How surprised was it?",
        "The probabilities can judge a text that exists. Surprisal is 0 bits for what the model was"
        " sure of, and 1 bit more for each time the probability is halved.",
        "score --by token TEXT",
        "The capital of France is Banana.",
    ),
    Stop(
        "Layer by layer",
        "The numbers of each token pass through 30 layers, and what comes out is the prediction."
        " These are the predictions as if the model ended after each layer.",
        "topk TEXT --layers -k 4",
        "The capital of France is",
    ),
    Stop(
        "Another kind of model",
        "A classifier reads a whole text, and gives probabilities to labels instead of tokens.",
        "sentiment TEXT",
        "What a waste of time!",
    ),
)
ENDING = """\
Now talk to it:       hftool chat
Choose each token:    hftool sample "Once upon a time" --pick
See what else it can: hftool --help
"""


def tour(context: typer.Context) -> None:
    """Walk through what a language model does, in thirteen steps.

    After each step, Enter goes on, a text of your own takes the place of the example, and Ctrl-D
    leaves. Without a terminal, all steps follow one another.

    Examples:
        hftool tour
    """
    from hftool.models import resident

    resident.enable_cache()
    asks = is_terminal(sys.stdin) and is_terminal(sys.stdout)
    application: Any = context.find_root().command
    for number, stop in enumerate(STOPS, 1):
        typer.secho(f"\n{number}/{len(STOPS)}  {stop.title}", bold=True, color=context.color)
        print(textwrap.fill(stop.explanation, WIDTH), end="\n\n")
        text = stop.text
        while True:
            _run(application, stop.command, text, asks=asks)
            answer = _answer(stop) if asks else ""
            if answer is None:
                return
            if not answer.strip() or stop.text is None:
                break
            text = answer
    print(f"\n{ENDING}", end="")


def _run(application: Any, command: str, text: str | None, *, asks: bool) -> None:
    """Show a command line, and run it. A text that it can't use is an error of this step alone."""
    shown = command if text is None else command.replace("TEXT", quoted([text]))
    if not asks:
        shown, command = f"{shown} --format table", f"{command} --format table"
    words = [word for word in command.split() if word != "TEXT"]
    words += [] if text is None else ["--", text]
    print(f"$ hftool {shown}", flush=True)
    application.main(words, prog_name="hftool", standalone_mode=False)
    sys.stdout.flush()


def _answer(stop: Stop) -> str | None:
    """Return what the user types after a step, None to leave."""
    import readline  # noqa: F401  # lets `input` edit the line

    try:
        return input(f"\n{NEXT if stop.text else NEXT.partition(',')[0] + ': '}")
    except EOFError:
        print()
        return None

"""Draw pictures of real runs: `make pictures` writes docs/pictures/*.svg."""

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pexpect
from rich.console import Console
from rich.text import Text

from hftool.output.export import svg

FOLDER = Path(__file__).parent.parent / "docs" / "pictures"
WIDTH = 80
HEAT = "The capital of France is Paris, and the capital of Germany is Banana."
# Thirty reviews, many of them lukewarm, so that the scores are distributed.
REVIEWS = """\
I love it
It does what it should, no more.
Too long.
It came on Tuesday.
A quiet joy.
You get what you pay for.
It broke after a week.
Works as described.
Nobody laughed but me.
My kids adore it.
Average in every way.
An odd little film.
A waste of money.
Better than I expected.
For children only.
The manual is in Dutch.
Dull, and far too loud.
Fast, quiet and well made.
I have seen this before.
The ending ruins it.
Pretty, but fragile.
Arrived damaged.
Charming from the first minute.
I would not buy it again.
The plot makes no sense, and yet I laughed.
Would buy again in red.
It grows on you.
Nothing special.
I expected more, but it works.
A small masterpiece.
"""
QUESTIONS = ("What is the capital of France?", "And of Italy?", "/tokens", "/template")
PROMPT = "you> "
PICTURES = {
    "tour": (
        'hftool encode "Good morning, tokenizers!" --format table',
        'hftool topk "The capital of France is" -k 5 --format table',
        'hftool score "Paris is the capital of Banana." --by token --format table',
        'hftool generate --chat "What is the capital of France?" --greedy',
        'hftool sentiment "I love programming!" "What a waste of time." --format table',
    ),
    "encode": ('hftool encode "Tokens are pieces: 大家好, naïve 🙂" --format table',),
    "topk": ('hftool topk "1+1=" --format table',),
    "sample": (
        'hftool sample "Once upon a time" --steps 3 --seed 4 --temp 1 --top-p 0.9 --format table',
    ),
    "sentiment": ("hftool sentiment -f reviews.txt --summary --format table",),
    "surprisal": (f'hftool score "{HEAT}" --by token --format table',),
}


def run(command: str, folder: str | None = None) -> str:
    """Run a command in a folder, and return what it shows on a terminal of `WIDTH` columns."""
    process = subprocess.run(
        f"COLUMNS={WIDTH} {command} --color always",
        shell=True,
        cwd=folder,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process.stdout


def talk(questions: tuple[str, ...]) -> str:
    """Hold a conversation and return what a terminal without cursor movements shows."""
    environment = {**os.environ, "TERM": "dumb", "COLUMNS": str(WIDTH)}
    chat = pexpect.spawn(
        "hftool", ["chat", "--greedy"], env=environment, dimensions=(24, WIDTH), encoding="utf-8"
    )
    screen = ""
    for line in (*questions, "exit"):
        chat.expect_exact(PROMPT, timeout=60)
        screen += chat.before + chat.after
        chat.sendline(line)
    chat.expect(pexpect.EOF)
    return str(screen + chat.before).replace("\r\n", "\n")


def draw(name: str, parts: list[tuple[str, str]]) -> None:
    """Write a picture of commands and their output."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), color_system="256")
    for command, output in parts:
        console.print(Text(f"$ {command}", "bold"))
        shown = Text.from_ansi(output.rstrip("\n"))
        shown.highlight_regex(f"(?m)^{PROMPT}.*$", "bold cyan")  # as in a terminal that is not dumb
        console.print(shown, end="\n\n")
    (FOLDER / f"{name}.svg").write_text(svg(console), encoding="utf-8")


def draw_heat_map() -> None:
    """Write the page that colours the tokens of a text by their surprisal."""
    run(f'hftool score "{HEAT}" --by token --save {FOLDER / "surprisal.html"}')


def main() -> None:
    """Draw the pictures named on the command line, or all."""
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or (*PICTURES, "chat"):
        if name == "chat":
            draw(name, [("hftool chat --greedy", talk(QUESTIONS))])
        else:
            if name == "surprisal":
                draw_heat_map()
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "reviews.txt").write_text(REVIEWS, encoding="utf-8")
                draw(name, [(command, run(command, folder)) for command in PICTURES[name]])


if __name__ == "__main__":
    main()

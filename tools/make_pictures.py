"""Draw pictures of real runs: `make pictures` writes docs/pictures/*.svg."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pexpect
from rich.console import Console
from rich.text import Text

from hftool.output.export import svg

FOLDER = Path(__file__).parent.parent / "docs" / "pictures"
WIDTH = 80
HEAT = "The capital of France is Paris, and the capital of Germany is Banana."
REVIEWS = "I love it\\nWhat a film!\\nToo long.\\nI hate it\\nA quiet joy.\\nBeautiful.\\n"
QUESTIONS = ("What is the capital of France?", "And of Italy?")
PICTURES = {
    "tour": (
        'hftool encode "good morning, 大家好" --format table',
        'hftool topk "The capital of France is" -k 5 --format table',
        'hftool generate --chat "What is the capital of France?" --greedy',
        'hftool sentiment "I love programming!" "What a waste of time." --format table',
    ),
    "encode": ('hftool encode "Tokens are pieces: 大家好, naïve 🙂" --format table',),
    "topk": ('hftool topk "1+1=" --format table',),
    "sample": ('hftool sample "Once upon a time" --steps 3 --seed 4 --top-p 0.9 --format table',),
    "sentiment": (f"printf '{REVIEWS}' | hftool sentiment --summary --format table",),
    "surprisal": (f'hftool topk "{HEAT}" --position all --format table',),
}


def run(command: str) -> str:
    """Run a command and return what it shows on a terminal of `WIDTH` columns."""
    process = subprocess.run(
        f"COLUMNS={WIDTH} {command} --color always",
        shell=True,
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
        chat.expect_exact("> ", timeout=60)
        screen += chat.before + chat.after
        chat.sendline(line)
    chat.expect(pexpect.EOF)
    return str(screen + chat.before).replace("\r\n", "\n")


def draw(name: str, parts: list[tuple[str, str]]) -> None:
    """Write a picture of commands and their output."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), color_system="standard")
    for command, output in parts:
        console.print(Text(f"$ {command}", "bold"))
        console.print(Text.from_ansi(output.rstrip("\n")), end="\n\n")
    (FOLDER / f"{name}.svg").write_text(svg(console), encoding="utf-8")


def draw_heat_map() -> None:
    """Write the page that colours the tokens of a text by their surprisal."""
    run(f'hftool topk "{HEAT}" --position all --save {FOLDER / "surprisal.html"}')


def main() -> None:
    """Draw the pictures named on the command line, or all."""
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or (*PICTURES, "chat"):
        if name == "chat":
            draw(name, [("hftool chat --greedy", talk(QUESTIONS))])
        else:
            if name == "surprisal":
                draw_heat_map()
            draw(name, [(command, run(command)) for command in PICTURES[name]])


if __name__ == "__main__":
    main()

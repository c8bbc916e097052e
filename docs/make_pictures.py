"""Pictures of real runs: `make pictures` writes docs/pictures/*.svg."""

import subprocess
from pathlib import Path

from rich.console import Console
from rich.text import Text

FOLDER = Path(__file__).parent / "pictures"
WIDTH = 80
PICTURES = {
    "tour": (
        'hftool encode "good morning, 大家好" --format table',
        'hftool topk "The capital of France is" -k 5 --format table',
        'hftool generate --chat "What is the capital of France?" --greedy',
        'hftool sentiment "I love programming!" "What a waste of time." --format table',
    ),
}


def main() -> None:
    """Run each picture's commands and export what a terminal shows."""
    FOLDER.mkdir(exist_ok=True)
    for name, commands in PICTURES.items():
        console = Console(record=True, width=WIDTH)
        for command in commands:
            console.print(Text(f"$ {command}", "bold"))
            shown = subprocess.run(
                f"COLUMNS={WIDTH} {command} --color always",
                shell=True,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            console.print(Text.from_ansi(shown.rstrip("\n")))
            console.print()
        console.save_svg(str(FOLDER / f"{name}.svg"), title="hftool")


if __name__ == "__main__":
    main()

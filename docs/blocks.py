"""The shell blocks of README and docs: found, run, and their output renewed (`make docs-output`).

A ```console block holds commands after "$ " and what each writes to stdout; those of a page run in
one folder, in order. A ```sh block is not run, and must say why: `<!-- not run here: REASON -->` in
the line above.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
GENERATED = ("reference", "formats.md")
# A translation has the blocks of its original, in order.
TRANSLATIONS = {ROOT / "docs" / "tutorial.zh.md": ROOT / "docs" / "tutorial.md"}
FENCE = re.compile(r"(?P<before>[^\n]*)\n```(?P<language>\w*)\n(?P<text>.*?)^```", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line above it, and where its text stands."""

    language: str
    text: str
    before: str
    start: int
    end: int

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Each command with what it writes."""
        parts = re.split(r"^\$ ", self.text, flags=re.M)[1:]
        return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]


def pages() -> list[Path]:
    """README, and the pages of docs that people write."""
    written = sorted((ROOT / "docs").rglob("*.md"))
    return [ROOT / "README.md", *(p for p in written if not set(p.parts) & set(GENERATED))]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    for found in FENCE.finditer(page.read_text("utf-8")):
        yield Block(found["language"], found["text"], found["before"], *found.span("text"))


def run_command(command: str, folder: Path) -> str:
    """What a command writes to stdout, in a folder with the page's files.

    Raises:
        subprocess.CalledProcessError: it fails.
    """
    done = subprocess.run(
        ["bash", "-c", command],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "COLUMNS": "80", "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        check=True,
    )
    return done.stdout if done.stdout.endswith("\n") or not done.stdout else done.stdout + "\n"


def consoles(page: Path) -> list[Block]:
    """The blocks of a page that are run."""
    return [block for block in blocks(page) if block.language == "console"]


def shown(page: Path) -> Iterator[str]:
    """The text of each console block as it should be: its commands, and what they write now."""
    with tempfile.TemporaryDirectory() as folder:
        for block in consoles(page):
            runs = ((command, run_command(command, Path(folder))) for command, _ in block.commands)
            yield "".join(f"$ {command}\n{output}" for command, output in runs)


def renew(page: Path) -> None:
    """Write a page again with the output of its commands as it is now."""
    if original := TRANSLATIONS.get(page):
        texts: Iterable[str] = [block.text for block in consoles(original)]
    else:
        texts = shown(page)
    text, pieces, end = page.read_text("utf-8"), [], 0
    for block, new in zip(consoles(page), texts, strict=True):
        pieces += [text[end : block.start], new]
        end = block.end
    page.write_text("".join([*pieces, text[end:]]), encoding="utf-8")


def main() -> None:
    """Renew the pages named, or all; translations after their originals."""
    named = [Path(name).resolve() for name in sys.argv[1:]] or pages()
    for page in sorted(named, key=lambda page: page in TRANSLATIONS):
        renew(page)


if __name__ == "__main__":
    main()

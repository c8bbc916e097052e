"""The shell blocks of README and docs: found, run, and their output renewed (`make docs-output`).

A ```console block holds commands after "$ " and what each writes to stdout; those of a page run in
one folder, in order. A ```sh block is not run, and must say why: `<!-- not run here: REASON -->` in
the line above.
"""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from hftool.cli.app import app

ROOT = Path(__file__).parent.parent
GENERATED = ("reference", "formats.md")
# A translation has the blocks of its original, in order.
TRANSLATIONS = {ROOT / "docs" / "tutorial.zh.md": ROOT / "docs" / "tutorial.md"}
SHELLS_OWN = set("|<>;&$")
DECIMAL = re.compile(r"\d+\.\d+")
BAR = re.compile(r" *[█▉▊▋▌▍▎▏]+$", re.M)
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

    A command of hftool alone runs in this process, which has imported torch once; any other, as a
    pipe, in a shell.

    Raises:
        RuntimeError: it fails.
    """
    if command.startswith("hftool ") and not set(command) & SHELLS_OWN:
        with contextlib.chdir(folder):
            result = CliRunner().invoke(app, shlex.split(command)[1:])
        status, stdout, stderr = result.exit_code, result.stdout, result.stderr
    else:
        done = subprocess.run(
            ["bash", "-c", command],
            capture_output=True,
            text=True,
            cwd=folder,
            stdin=subprocess.DEVNULL,
        )
        status, stdout, stderr = done.returncode, done.stdout, done.stderr
    if status:
        raise RuntimeError(f"{command}: status {status}\n{stderr}")
    return stdout if stdout.endswith("\n") or not stdout else stdout + "\n"


def same(shown: str, now: str) -> bool:
    """Whether two outputs say the same: decimals may differ by two units of their last place, and
    bars in length, since sums are rounded differently on other machines."""
    texts = [DECIMAL.split(BAR.sub("", output)) for output in (shown, now)]
    numbers = [DECIMAL.findall(output) for output in (shown, now)]
    return texts[0] == texts[1] and all(
        abs(float(a) - float(b)) <= 2.01 * 10.0 ** -len(a.partition(".")[2])
        for a, b in zip(*numbers, strict=True)
    )


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
        pieces += [text[end : block.start], block.text if same(block.text, new) else new]
        end = block.end
    page.write_text("".join([*pieces, text[end:]]), encoding="utf-8")


def main() -> None:
    """Renew the pages named, or all; translations after their originals."""
    os.environ |= {"COLUMNS": "80", "HF_HUB_OFFLINE": "1"}
    named = [Path(name).resolve() for name in sys.argv[1:]] or pages()
    for page in sorted(named, key=lambda page: page in TRANSLATIONS):
        renew(page)


if __name__ == "__main__":
    main()

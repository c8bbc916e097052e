"""Run the commands that README and docs show, and update the output below them: `make docs-output`.

A ```console block contains commands after "$ ", each followed by what it writes to stdout. The
commands of a page run in one folder, in order. A ```sh block is not run; the line above it gives
the reason: `<!-- not run here: REASON -->`.
"""

import contextlib
import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from unittest import mock

from typer.main import get_command
from typer.testing import CliRunner

from hftool.cli.app import app

ROOT = Path(__file__).parent.parent
GENERATED = ("reference", "formats.md")
# A translation has the same blocks as its original, in the same order. The Chinese tutorial is not
# one: its texts are Chinese.
TRANSLATIONS = {
    page: page.with_name(page.name.replace(".zh.", "."))
    for page in (ROOT / "docs").rglob("*.zh.md")
    if page.name != "tutorial.zh.md"
}
# Pages that show what a terminal shows, and not what goes into a pipe.
AT_TERMINAL = (ROOT / "docs" / "tutorial.md", ROOT / "docs" / "tutorial.zh.md")
SHELL_CHARACTERS = set("|<>;&$")
DECIMAL = re.compile(r"\d+\.\d+")
BAR = re.compile(r" *[█▉▊▋▌▍▎▏]+$", re.M)
FENCE = re.compile(r"(?P<before>[^\n]*)\n```(?P<language>\w*)\n(?P<text>.*?)^```", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line above it, and the span of its text."""

    language: str
    text: str
    before: str
    start: int
    end: int

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Each command and the output shown for it."""
        parts = re.split(r"^\$ ", self.text, flags=re.M)[1:]
        return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]


def pages() -> list[Path]:
    """Return README and the pages of docs that are not generated."""
    written = sorted((ROOT / "docs").rglob("*.md"))
    return [ROOT / "README.md", *(p for p in written if not set(p.parts) & set(GENERATED))]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    for match in FENCE.finditer(page.read_text("utf-8")):
        yield Block(match["language"], match["text"], match["before"], *match.span("text"))


class Terminal:
    """A pseudo-terminal of 80 columns without colours, whose text can be read in the end."""

    def __enter__(self) -> TextIO:
        self._reading, writing = pty.openpty()
        termios.tcsetwinsize(writing, (24, 80))
        self._stream = open(writing, "w", encoding="utf-8")
        self._text = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self._stream

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: nobody can write to it any more
            while data := os.read(self._reading, 4096):
                self._text += data

    def __exit__(self, *raised: object) -> None:
        self._stream.close()
        self._reader.join()
        os.close(self._reading)

    @property
    def text(self) -> str:
        """What was shown."""
        return self._text.decode().replace("\r\n", "\n").expandtabs()


def run_at_terminal(command: str, folder: Path) -> str:
    """Run a command as `run_command` does, and return what a terminal shows.

    Raises:
        RuntimeError: if the command fails.
    """
    terminal = Terminal()
    with mock.patch.dict(os.environ, {"NO_COLOR": "1"}), terminal as stdout:
        if _is_plain(command):
            with contextlib.chdir(folder), contextlib.redirect_stdout(stdout):
                status = get_command(app).main(
                    shlex.split(command)[1:], prog_name="hftool", standalone_mode=False
                )
        else:
            shell = ["bash", "-c", command]
            status = subprocess.run(
                shell, stdout=stdout, cwd=folder, stdin=subprocess.DEVNULL
            ).returncode
    if status:
        raise RuntimeError(f"{command}: status {status}")
    return terminal.text


def _is_plain(command: str) -> bool:
    return command.startswith("hftool ") and not set(command) & SHELL_CHARACTERS


def run_command(command: str, folder: Path) -> str:
    """Run a command in a folder with the page's files and return what it writes to stdout.

    A single hftool command runs in this process, where torch is imported only once; everything
    else, such as a pipe, runs in a shell.

    Raises:
        RuntimeError: if the command fails.
    """
    if _is_plain(command):
        with contextlib.chdir(folder):
            result = CliRunner().invoke(app, shlex.split(command)[1:])
        status, stdout, stderr = result.exit_code, result.stdout, result.stderr
    else:
        process = subprocess.run(
            ["bash", "-c", command],
            capture_output=True,
            text=True,
            cwd=folder,
            stdin=subprocess.DEVNULL,
        )
        status, stdout, stderr = process.returncode, process.stdout, process.stderr
    if status:
        raise RuntimeError(f"{command}: status {status}\n{stderr}")
    return stdout if stdout.endswith("\n") or not stdout else stdout + "\n"


def same(shown: str, now: str) -> bool:
    """Return whether two outputs agree. Sums are rounded differently on other machines, so decimals
    may differ by two units in their last digit, and bars may differ in length."""
    texts = [DECIMAL.split(BAR.sub("", output)) for output in (shown, now)]
    numbers = [DECIMAL.findall(output) for output in (shown, now)]
    return texts[0] == texts[1] and all(
        abs(float(a) - float(b)) <= 2.01 * 10.0 ** -len(a.partition(".")[2])
        for a, b in zip(*numbers, strict=True)
    )


def consoles(page: Path) -> list[Block]:
    """Return the blocks of a page whose commands are run."""
    return [block for block in blocks(page) if block.language == "console"]


def shown(page: Path) -> Iterator[str]:
    """Yield the text that each console block should have: its commands and their present output."""
    run = run_at_terminal if page in AT_TERMINAL else run_command
    with tempfile.TemporaryDirectory() as folder:
        for block in consoles(page):
            runs = ((command, run(command, Path(folder))) for command, _ in block.commands)
            yield "".join(f"$ {command}\n{output}" for command, output in runs)


def renew(page: Path) -> None:
    """Update the output in a page. A translation takes the blocks of its original."""
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
    """Update the pages named on the command line, or all; translations after their originals."""
    os.environ |= {"COLUMNS": "80", "HF_HUB_OFFLINE": "1"}
    named = [Path(name).resolve() for name in sys.argv[1:]] or pages()
    for page in sorted(named, key=lambda page: page in TRANSLATIONS):
        renew(page)


if __name__ == "__main__":
    main()

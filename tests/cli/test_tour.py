"""The tour: every step shows what its command shows, and at a terminal takes other texts."""

import os
import shlex
import sys

import pexpect
import pytest

from hftool.cli.commands.tour import STOPS
from hftool.models import resident
from tests.conftest import run

ASKED = "Enter for the next step.*: "


@pytest.mark.usefixtures("smollm2_folder", "minilm_folder")
def test_a_piped_tour_shows_what_the_commands_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "_cache", None)  # the tour turns it on
    done = run("tour")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = [line for line in done.stdout.splitlines() if line.startswith("$ hftool ")]
    assert len(lines) == len(STOPS) and "hftool chat" in done.stdout
    for line in lines:
        alone = run(*shlex.split(line)[2:])
        assert alone.exit_code == 0
        assert f"{line}\n{alone.stdout}" in done.stdout


@pytest.mark.usefixtures("smollm2_folder")
def test_a_tour_at_a_terminal_takes_the_readers_texts() -> None:
    environment = {**os.environ, "TERM": "dumb"}
    child: pexpect.spawn[str] = pexpect.spawn(
        sys.executable,
        ["-m", "hftool", "tour"],
        env=environment,
        encoding="utf-8",
        timeout=60,
        dimensions=(40, 80),
    )
    child.expect("1/.*good morning, good people.*" + ASKED)
    child.sendline("- my own text")  # what looks like an option is a text
    child.expect('encode "- my own text".*␣own.*' + ASKED)
    child.sendline()
    child.expect("2/.*endoftext.*" + ASKED)
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0

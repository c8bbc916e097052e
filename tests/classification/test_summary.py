"""What a run shows beside its records: a summary, its progress, and its last line."""

import csv
import re
import shlex
import sys
from collections import Counter
from pathlib import Path

import pexpect
import pytest
from rich.text import Text

from hftool.classification.summary import LabelSummary
from hftool.output.tables.base import table_console
from hftool.output.tables.classification import summary
from tests.conftest import run
from tests.tiny_models import save_classifier


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("bert"), ("BAD", "GOOD"))


def test_the_histogram_of_a_summary_is_as_wide_as_its_header() -> None:
    summaries = [
        LabelSummary("NEGATIVE", 10, 0.25, 0.8, (0, 0, 0, 0, 0, 1, 2, 0, 0, 7)),
        LabelSummary("POSITIVE", 30, 0.75, 0.9, (0, 0, 0, 0, 0, 0, 0, 1, 1, 28)),
        LabelSummary("", 0, 0.0, None, (0,) * 10),
    ]
    console = table_console("always", terminal=True)
    colored = "".join(summary(summaries, console))
    header, bad, good, empty = Text.from_ansi(colored).plain.splitlines()
    at = header.index("0      scores      1")
    assert bad[at : at + 20] == "··········▁▁▂▂····██"
    assert good[at : at + 20] == "··············▁▁▁▁██"
    assert empty[at : at + 20] == "·" * 20
    assert "\x1b[31m" in colored.splitlines()[1]
    assert "\x1b[32m" not in colored.splitlines()[1]


def test_a_run_ends_with_one_line(folder: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.txt", tmp_path / "out.csv"
    source.write_text("".join(f"text {i}\n" for i in range(1200)) + "\n")
    options = ["-m", str(folder), "-f", str(source)]
    done = run("sentiment", *options, "-o", str(target))
    labels = Counter(row["label"] for row in csv.DictReader(target.open()))
    assert labels.pop("") == 1
    counts = ", ".join(f"{count:,} {label}" for label, count in labels.most_common())
    assert re.fullmatch(rf"1,201 texts in \d+\.\d s: {counts}, 1 empty -> .+", done.stderr.strip())
    assert done.stderr.endswith(f" -> {target}\n")
    assert run("sentiment", *options, "-q").stderr == ""
    assert run("sentiment", "-m", str(folder), "one", "two").stderr == ""
    source.write_text(source.read_text() + "more\n")
    more = run("sentiment", *options, "-o", str(target), "--resume").stderr.splitlines()
    assert more[0] == "resuming after record 1201"
    assert re.fullmatch(rf"1 more text in .+ s: 1 .+ -> {re.escape(str(target))}", more[1])


def test_progress_on_a_terminal(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("".join(f"text {i} {'ab' * (i % 20)}\n" for i in range(4000)))
    arguments = ["-m", "hftool", "sentiment", "-m", str(folder), "-f", str(source)]
    shown = pexpect.run(
        shlex.join([sys.executable, *arguments, "-o", str(tmp_path / "out"), "--batch-size", "1"]),
        timeout=120,
        encoding="utf-8",
    )
    assert re.search(r"[\d,]+ texts, [\d,]+ texts/s", shown)
    assert re.search(r"4,000 texts in .+ s: ", shown)


def test_no_progress_among_records_that_come_through_a_pipe(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("one\n" * 3)
    arguments = ["-m", "hftool", "sentiment", "-m", str(folder), "-f", str(tmp_path / "in.txt")]
    command = shlex.join([sys.executable, *arguments, "--format", "csv"]) + " | cat"
    shown = pexpect.run(shlex.join(["sh", "-c", command]), timeout=120, encoding="utf-8")
    assert sum(line.startswith("one,") for line in shown.splitlines()) == 3
    assert "3 texts in" in shown
    assert "0:00:0" not in shown  # the time that progress shows

"""Runs of a night, with tiny models: memory and descriptors stay flat, the output is complete and
in order."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.tiny_models import save_classifier, save_model

pytestmark = pytest.mark.slow

SETTLED = 0.3  # the share of a run after which memory is held against what it is later
GROWTH = 1.15


def measured(command: list[str], lines: Iterable[str]) -> Iterator[str]:
    """The output lines of hftool while it is fed; then its memory and descriptors are checked."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hftool", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    stdin, watched = process.stdin, psutil.Process(process.pid)
    samples: list[tuple[int, int]] = []

    def feed() -> None:
        with stdin:
            for line in lines:
                stdin.write(f"{line}\n".encode())

    feeder = threading.Thread(target=feed)
    feeder.start()
    with process.stdout as stdout:
        for number, line in enumerate(stdout):
            if number % 1000 == 999:
                samples.append((watched.memory_info().rss, watched.num_fds()))
            yield line.decode()
    feeder.join()
    assert process.wait() == 0
    settled = samples[int(len(samples) * SETTLED) : -1]  # the last may be of a process that ended
    memory, descriptors = zip(*settled, strict=True)
    print(f"memory {min(memory) >> 20} to {max(memory) >> 20} MB, descriptors {set(descriptors)}")
    half = len(memory) // 2
    assert max(memory[half:]) < GROWTH * max(memory[:half])
    assert len(set(descriptors)) == 1


def test_a_batch_of_100_000_prompts(tmp_path: Path) -> None:
    count = 100_000
    model = save_model(tmp_path / "model", context=128)
    prompts = (json.dumps({"id": i, "prompt": f"{i} " + "ab" * (i % 9)}) for i in range(count))
    command = ["generate", "-m", str(model), "--batch", "-", "-n", "2", "--format", "jsonl"]
    ids = [json.loads(line)["id"] for line in measured(command, prompts)]
    assert ids == list(range(count))


@pytest.mark.parametrize("distinct", [True, False])
def test_a_million_texts(distinct: bool, tmp_path: Path) -> None:
    count = 1_000_000
    judge = save_classifier(tmp_path / "judge", max_length=16)
    texts = (f"{i} good" if distinct else f"{i % 100} bad" for i in range(count))
    command = ["sentiment", "-m", str(judge), "--format", "text"]
    number = -1
    for number, line in enumerate(measured(command, texts)):
        text = line.rstrip("\n").split("\t")[2]
        assert text == (f"{number} good" if distinct else f"{number % 100} bad")
    assert number + 1 == count

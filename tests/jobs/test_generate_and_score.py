"""`generate` and `score` on Ray, against the same commands without it."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow
import pyarrow.parquet
import pytest

from tests.conftest import run, run_process
from tests.tiny_models import save_model

RAY = {"RAY_AUTH_MODE": ""}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("tiny")))


def parts(folder: Path) -> list[Any]:
    """The records of all parts, in order."""
    found: list[Any] = []
    for part in sorted(folder.iterdir()):
        if part.suffix == ".parquet":
            found += pyarrow.parquet.read_table(part).to_pylist()
        else:
            found += [json.loads(line) for line in part.read_text("utf-8").splitlines()]
    return found


@pytest.mark.slow
def test_texts_are_those_of_a_local_run_for_the_same_seeds(model: str, tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    first = [{"id": i, "prompt": "ab" * (i % 5 + 1), "seed": i} for i in range(300)]
    second = [{"prompt": "a"}, {"prompt": 5}, {"messages": [{"role": "user", "content": "b"}]}]
    (folder / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in first))
    table = pyarrow.table({"prompt": ["x", "y"], "seed": [1, 2]})
    pyarrow.parquet.write_table(table, folder / "c.parquet")
    (folder / "b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in second))
    options = ("-m", model, "--dtype", "float32", "-n", "6", "--seed", "9")
    arguments = ("generate", *options, "--batch", str(folder), "-o", str(output))
    done = run_process(*arguments, "--engine", "ray", environment=RAY)
    assert done.status == 1 and done.stderr.startswith("Error: 1 record failed"), done.stderr
    rows = [{"prompt": "x", "seed": 1}, {"prompt": "y", "seed": 2}]
    local = []
    for lines in (first, second, rows):
        text = "\n".join(map(json.dumps, lines))
        local += run("generate", *options, "--batch", "-", stdin=text).stdout.splitlines()
    found = parts(output)
    varying = ("seconds", "tokens_per_second")
    expected = [json.loads(line) for line in local]
    for record in (*found, *expected):
        for name in varying:
            record.pop(name, None)
    assert found == expected
    names = [part.name for part in sorted(output.iterdir())]
    assert names[0] == "part-000000-000000.jsonl" and len(names) == 4


@pytest.mark.slow
def test_scores_are_those_of_a_local_run(model: str, tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name, count in (("a", 5), ("b", 2)):
        rows = [f"the dog, sat {name}{i},{i}" for i in range(count)]
        (folder / f"{name}.csv").write_text("\n".join(["story,ending,n", *rows]) + "\n")
    options = ("-m", model, "--column", "ending", "--given-column", "story")
    done = run_process(
        *("score", "--engine", "ray", *options, str(folder), "-o", str(output)), environment=RAY
    )
    assert done.status == 0, done.stderr
    local = run("score", *options, "-f", str(folder), "--format", "jsonl", "--dtype", "float32")
    expected = [json.loads(line) for line in local.stdout.splitlines()]
    found = parts(output)
    assert [record.pop("index") for record in found] == [0, 1, 2, 3, 4, 0, 1]
    for record, other in zip(found, expected, strict=True):
        del other["index"]
        assert record == pytest.approx(other, abs=1e-4)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that have a model."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):  # it ended just now
            found += [child.pid] * any("MapWorker" in word for word in child.cmdline())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("command", ["generate", "score"])
def test_a_killed_worker_loses_and_duplicates_nothing(
    command: str, model: str, tmp_path: Path
) -> None:
    folder, output, partial = tmp_path / "in", tmp_path / "out", tmp_path / "out.partial"
    folder.mkdir()
    name, count = ("prompt", 1500) if command == "generate" else ("text", 6000)
    local: list[Any] = []
    options = ["-m", model, "--dtype", "float32"]
    options += ["-n", "9", "--seed", "9"] if command == "generate" else []
    for file in ("a.jsonl", "b.jsonl"):
        rows = [{name: f"{file[0]}b" * (i % 9 + 1)} for i in range(count)]
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = ["--batch"] if command == "generate" else ["--format", "jsonl", "-f"]
        local += run(command, *options, *source, str(folder / file)).stdout.splitlines()
    source = ["--batch"] if command == "generate" else []
    arguments = [command, *options, "--engine", "ray", *source, str(folder), "-o", str(output)]
    environment = {**os.environ, **RAY}
    command_line = [sys.executable, "-m", "hftool", *arguments]
    process = subprocess.Popen(command_line, stderr=subprocess.PIPE, text=True, env=environment)
    killed = 0
    while process.poll() is None:
        begun = partial.exists() and any(partial.glob("part-*"))
        if begun and not killed and (workers := workers_of(process)):
            killed = workers[0]
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.02)
    _, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, "") and killed
    for record, other in zip(parts(output), map(json.loads, local), strict=True):
        for varying in ("seconds", "tokens_per_second"):
            record.pop(varying, None)
            other.pop(varying, None)
        assert record == (other if command == "generate" else pytest.approx(other, abs=1e-4))


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["generate", "--engine", "ray", "x"], "--engine ray needs --batch FOLDER"),
        (["generate", "--engine", "ray", "--batch", "-", "-o", "x"], "reads files and folders"),
        (["generate", "--engine", "ray", "--batch", "."], "name it with -o"),
        (["score", "--engine", "ray", ".", "-o", "x", "--by", "token"], "excludes --by token"),
        (["score", "--engine", "ray", ".", "-o", "x", "--json"], "writes only Parquet"),
        (["generate", "--ray-address", "a:1", "x"], "goes with --engine ray"),
    ],
)
def test_wrong_usage(arguments: list[str], cause: str, model: str) -> None:
    result = run(*arguments, "-m", model)
    assert result.exit_code == 2 and cause in result.stderr, result.output

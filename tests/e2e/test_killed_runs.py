"""Runs of `sentiment` and `generate --batch` that are killed and resumed, in every format that can
be resumed, with every strategy and kind of model: nothing is lost, done twice or mixed."""

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from hftool.output.resume import RESUMABLE
from hftool.output.run_log import ENTRY, complete_log
from tests.conftest import run
from tests.tiny_models import END, PAD, VOCABULARY, save_classifier, save_model, save_tokenizer

STRATEGIES = {
    "plain": ["--batch-size", "3"],
    "lookup": ["--prompt-lookup", "3"],
    "draft": ["--assistant-model", "DRAFT"],
    "beams": ["--num-beams", "2"],
    "stateful": [],
}
TIMES = ("seconds", "tokens_per_second")  # the columns that differ from run to run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Llama, a Mamba, a model to draft, and a classifier."""
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "llama")
    save_model(folder / "draft", seed=1)
    save_classifier(folder / "bert")
    torch.manual_seed(3)
    sizes: Any = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "state_size": 8,
        "initializer_range": 0.3,
    }
    ids: Any = {"eos_token_id": END, "pad_token_id": PAD, "bos_token_id": None}
    make: Any = MambaForCausalLM
    make(MambaConfig(vocab_size=VOCABULARY, **sizes, **ids)).save_pretrained(folder / "mamba")
    save_tokenizer(folder / "mamba")
    return folder


def batch(path: Path, count: int) -> Path:
    """A batch whose answers have line breaks, braces and quotes: the models repeat what they are
    given, or invent other bytes."""
    starts = ["{", '{"a": 1}\n', "\n\n", 'a "b", c', "\t", "1", ""]
    records: list[dict[str, Any]] = [
        {"id": i, "prompt": f"{starts[i % 7]} {'x' * (i % 11)}\n", "seed": i} for i in range(count)
    ]
    records[count // 2] = {"id": "7", "nothing": True}  # fails
    path.write_text("\n\n".join(map(json.dumps, records)) + "\n")
    return path


def generating(folder: Path, strategy: str, source: Path, tokens: int = 5) -> list[str]:
    model = folder / ("mamba" if strategy == "stateful" else "llama")
    options = [str(folder / "draft") if o == "DRAFT" else o for o in STRATEGIES[strategy]]
    options += ["--dtype", "float32", "--echo", "-n", str(tokens)]
    return ["generate", "-m", str(model), "--batch", str(source), *options]


def without_times(content: bytes, name: str) -> Any:
    """The records with all that does not depend on the clock: in text every byte."""
    text = content.decode()
    if name == "text":
        return text
    if name == "jsonl":
        lines = [json.loads(line) for line in text.splitlines()]
        return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]
    delimiter = "," if name == "csv" else "\t"
    rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_cut_anywhere_gives_the_same_records(
    strategy: str, folder: Path, tmp_path: Path
) -> None:
    """The files are cut as a process that was killed while it wrote leaves them."""
    source = batch(tmp_path / "in.jsonl", 14)
    draw = random.Random(strategy)
    for name in RESUMABLE:
        whole, target = tmp_path / f"whole.{name}", tmp_path / f"out.{name}"
        arguments = [*generating(folder, strategy, source), "--format", name, "-o"]
        assert run(*arguments, str(whole)).exit_code == 1  # one record fails
        expected = whole.read_bytes()
        log = complete_log(whole.resolve(), whole).read_bytes()
        header = log.index(b"\n") + 1
        ends = [end for end, _, _ in ENTRY.iter_unpack(log[header:])]
        assert len(ends) == 14
        assert ends[-1] == len(expected)
        if name == "text":
            assert expected.count(b"\n") > 20
        for cut in [draw.randrange(len(expected)), ends[7], ends[9] + 1]:
            done = sum(end <= cut for end in ends)
            target.with_name(f"{target.name}.partial").write_bytes(expected[:cut])
            kept = log[: header + done * ENTRY.size + draw.randrange(ENTRY.size)]
            target.with_name(f"{target.name}.partial.run").write_bytes(kept)
            resumed = run(*arguments, str(target), "--resume")
            note = f"resuming after record {done}\n" if done else ""
            failed = 'Error: 1 record failed\nHint: see the "error" field in the output\n'
            assert (resumed.exit_code, resumed.stderr) == (1, note + failed)
            assert without_times(target.read_bytes(), name) == without_times(expected, name)


def started(arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "hftool", *arguments],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def kill(arguments: Sequence[str], target: Path, how: int, growth: int) -> None:
    """Start a run, and kill it once it has written so many bytes more."""
    partial = target.with_name(f"{target.name}.partial")
    before = partial.stat().st_size if partial.exists() else 0
    process = started(arguments)
    while process.poll() is None:
        if partial.exists() and partial.stat().st_size >= before + growth:
            process.send_signal(how)
            break
        time.sleep(0.0005)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode in ((130, -how) if how == signal.SIGINT else (-how,)), stderr


LONG = [(strategy, name, 5) for strategy in STRATEGIES for name in RESUMABLE]


@pytest.mark.parametrize(
    ("strategy", "name", "times"),
    [
        ("lookup", "text", 1),
        ("beams", "csv", 1),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in LONG),
    ],
)
def test_killed_batches(strategy: str, name: str, times: int, folder: Path, tmp_path: Path) -> None:
    source = batch(tmp_path / "in.jsonl", 150 if times > 1 else 60)
    whole, target = tmp_path / "whole", tmp_path / "out"
    arguments = [*generating(folder, strategy, source, 12), "--format", name, "-o"]
    assert run(*arguments, str(whole)).exit_code == 1
    size = len(whole.read_bytes())
    draw = random.Random(f"{strategy} {name}")
    for turn in range(times):
        growth = draw.randrange(1, size // (times + 1))
        kill([*arguments, str(target), *["--resume"] * (turn > 0)], target, signal.SIGKILL, growth)
        assert not target.exists()
    assert run(*arguments, str(target), "--resume").exit_code == 1
    assert without_times(target.read_bytes(), name) == without_times(whole.read_bytes(), name)
    assert not [*tmp_path.glob("*.partial*")]


@pytest.mark.parametrize(
    ("name", "times", "how"),
    [
        ("tsv", 1, signal.SIGKILL),
        pytest.param("jsonl", 2, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("text", 2, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("csv", 20, signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_killed_classifications(
    name: str, times: int, how: int, folder: Path, tmp_path: Path
) -> None:
    rows = [[str(i), 'text, "number"' * (i % 7) + f"\n{i}"] for i in range(3000)]
    source, whole, target = tmp_path / "in.csv", tmp_path / "whole", tmp_path / "out"
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *rows])
    # One text at a time: what is in a batch together changes the last digits of its scores.
    arguments = ["sentiment", "-m", str(folder / "bert"), "-f", str(source), "--batch-size", "1"]
    arguments += ["--format", name, "-o"]
    draw = random.Random(4)
    for turn in range(times):
        growth = draw.randrange(1, 15_000)
        kill([*arguments, str(target), *["--resume"] * (turn > 0)], target, how, growth)
        assert not target.exists()
    assert run(*arguments, str(target), "--resume").exit_code == 0
    assert run(*arguments, str(whole)).exit_code == 0
    assert target.read_bytes() == whole.read_bytes()
    assert not [*tmp_path.glob("*.partial*")]


def test_a_run_with_other_options_is_refused(folder: Path, tmp_path: Path) -> None:
    """G27 and S23: another model, another threshold, another template, an earlier input."""
    target, template = tmp_path / "out", tmp_path / "t.jinja"
    llama, draft, bert = (str(folder / name) for name in ("llama", "draft", "bert"))

    def error(arguments: list[str], source: str) -> str:
        done = run(*arguments, "-o", str(target), "--resume", stdin=source)
        assert done.exit_code == 1
        return done.stderr

    def generate(model: str, tokens: int, *options: str) -> list[str]:
        return ["generate", "-m", model, "--batch", "-", "-n", str(tokens), *options]

    template.write_text("{{ messages[0].content }}")
    chat = ["--chat-template", str(template)]
    lines = [json.dumps({"messages": [{"role": "user", "content": c}]}) + "\n" for c in "abc"]
    first, more, changed = "".join(lines[:2]), "".join(lines), "".join([lines[2], *lines[1:]])
    assert run(*generate(llama, 2, *chat), "-o", str(target), stdin=first).exit_code == 0
    assert "--max-new-tokens was 2 and is 3\n" in error(generate(llama, 3, *chat), more)
    assert "--greedy was off and is on\n" in error(generate(llama, 2, *chat, "--greedy"), more)
    assert f"the model was {llama} and is {draft}\n" in error(generate(draft, 2, *chat), more)
    assert "its record 1 is not this input's" in error(generate(llama, 2, *chat), changed)
    template.write_text("{{ messages[0].content }}!")
    other = error(generate(llama, 2, *chat), more)
    assert f"--chat-template {template} has changed\n" in other
    template.write_text("{{ messages[0].content }}")
    same = generate(llama, 2, *chat, "--batch-size", "1", "--prompt-lookup", "2")
    assert run(*same, "-o", str(target), "--resume", stdin=more).exit_code == 0
    assert len(target.read_text().splitlines()) == 3

    target.unlink()
    label = ["sentiment", "--input-format", "csv", "--format", "csv", "-m"]
    table = "id,text\n1,a\n2,b\n"
    made = run(*label, bert, "--threshold", "0.5", "-o", str(target), stdin=table)
    assert made.exit_code == 0
    before = target.read_bytes()
    assert "--threshold was 0.5 and is 0.99\n" in error(
        [*label, bert, "--threshold", "0.99"], table
    )
    retrained = str(save_classifier(tmp_path / "bert", ("X", "Y")))
    assert "the model was " in error([*label, retrained, "--threshold", "0.5"], table)
    beside = table.replace("1,a", "8,a")  # not the text, but a column beside it
    assert "its record 1 is not" in error([*label, bert, "--threshold", "0.5"], beside)
    assert target.read_bytes() == before

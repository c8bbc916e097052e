"""Events are pieces and records, and every way to write them gives the same text."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hftool.generation.records import Generation, Piece
from hftool.output.formats import text_lines
from hftool.output.views.generation import GENERATION, GENERATION_BATCH
from hftool.terminal import visible
from tests.conftest import run
from tests.tiny_models import VOCABULARY, save_model

PROMPTS = ["abcabc", "你好", "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    endless = {"eos_token_id": VOCABULARY}  # an id that never comes
    return save_model(tmp_path_factory.mktemp("llama"), generation_config=endless)


def written(folder: Path, *arguments: str, stdin: str = "\n".join(PROMPTS)) -> str:
    """Return what `generate` writes to stdout."""
    done = run(
        *("generate", "-m", str(folder), "--dtype", "float32", "-n", "9", *arguments), stdin=stdin
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    "options",
    [
        ("--seed", "4"),
        ("--greedy", "--echo"),
        ("--seed", "4", "--prompt-lookup", "3"),
        ("--num-beams", "3"),
        ("--num-beams", "3", "--num-return-sequences", "2"),
        ("--seed", "4", "--num-return-sequences", "3"),
    ],
    ids=" ".join,
)
def test_text_is_the_same_streamed_or_not(options: tuple[str, ...], folder: Path) -> None:
    records = json.loads(written(folder, "--lines", *options, "--json"))
    assert len({record["text"] for record in records}) == len(records) >= len(PROMPTS)
    expected = "".join(record["text"] + "\n" for record in records)
    for stream in ((), ("--no-stream",)):
        assert written(folder, "--lines", *options, *stream) == expected
        shown = written(folder, "--lines", *options, *stream, "--format", "table")
        assert shown == visible(expected)


@pytest.mark.parametrize("options", [{"seed": 4}, {"greedy": True}, {"num_beams": 3}], ids=str)
def test_text_of_a_batch_is_that_of_its_prompts(options: dict[str, Any], folder: Path) -> None:
    [(name, value)] = options.items()
    option = f"--{name.replace('_', '-')}"
    arguments = [option] if value is True else [option, str(value)]
    expected = written(folder, "--lines", *arguments)
    batch = "".join(json.dumps({"prompt": prompt, **options}) + "\n" for prompt in PROMPTS)
    for name in ("text", "table"):
        shown = written(folder, "--batch", "-", "--format", name, stdin=batch)
        assert shown == (expected if name == "text" else visible(expected))


def test_failed_record_of_a_batch_is_an_empty_line(folder: Path) -> None:
    lines = [{"prompt": "a", "greedy": True}, {"nothing": 1}, {"prompt": "b", "greedy": True}]
    batch = "".join(json.dumps(line) + "\n" for line in lines)
    arguments = ("generate", "-m", str(folder), "--dtype", "float32", "-n", "5", "--batch", "-")
    texts = [
        json.loads(line).get("text", "")
        for line in run(*arguments, stdin=batch).stdout.splitlines()
    ]
    done = run(*arguments, "--format", "text", stdin=batch)
    assert done.stdout == "".join(f"{text}\n" for text in texts)
    assert texts[1] == "" != texts[0] != texts[2]


def record(text: str) -> Any:
    values = dict.fromkeys(Generation.__dataclass_fields__)
    return Generation(**{**values, "text": text})  # type: ignore[arg-type]


def test_a_record_is_one_write_and_its_end_follows_its_pieces() -> None:
    records = [record("one\ntwo"), record("")]
    assert list(text_lines(records, GENERATION_BATCH)) == ["one\ntwo\n", "\n"]
    events = [Piece("on"), Piece("e"), record("one"), record("two"), Piece("3"), record("3")]
    assert list(text_lines(events, GENERATION)) == ["on", "e", "\n", "two\n", "3", "\n"]


def test_records_import_nothing_heavy() -> None:
    code = "import sys, hftool.generation.records; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "hftool.generation.records" in modules
    assert not modules & {"torch", "transformers", "numpy", "huggingface_hub"}

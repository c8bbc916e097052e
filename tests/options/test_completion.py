"""Completion, requested as the shells request it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import run_process


def complete(words: str, environment: dict[str, str]) -> list[str]:
    """Return the completions of these words, from a process of its own."""
    count = len(words.split(" ")) - 1
    variables = {"_HFTOOL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    done = run_process(environment={**variables, **environment})
    assert (done.status, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.fixture
def cached_model(tmp_path: Path) -> dict[str, str]:
    """The environment of a user with a model in the Hugging Face cache, and an alias."""
    (tmp_path / "hf" / "hub" / "models--owner--some-name").mkdir(parents=True)
    (tmp_path / "config.toml").write_text('[aliases]\nmine = "owner/other"\n')
    return {"HF_HOME": str(tmp_path / "hf")}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("hftool voc", ["vocab-dump"]),
        ("hftool models un", ["unalias"]),
        ("hftool topk --tempe", ["--temperature"]),
        ("hftool encode -m ow", ["owner/some-name"]),
        ("hftool generate --model q", ["qwen"]),
        ("hftool generate --draft-model smol", ["smollm2"]),
        ("hftool models show m", ["mine", "minilm-sst2"]),
        ("hftool vocab-dump ll", ["llama", "llama-1b"]),
        ("hftool encode --format js", ["json", "jsonl"]),
        ("hftool encode -m nothing", []),
    ],
)
def test_completion(words: str, offered: list[str], cached_model: dict[str, str]) -> None:
    assert complete(words, cached_model) == offered


def test_completion_does_without_a_broken_config_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[aliases\n")
    assert complete("hftool encode -m qw", {}) == ["qwen"]


@pytest.mark.parametrize(
    ("shell", "script"),
    [
        (
            "bash",
            "COMP_WORDS=(hftool encode -m ow); COMP_CWORD=3; _hftool_completion hftool;"
            'echo "${COMPREPLY[@]}"',
        ),
        ("fish", "complete --do-complete 'hftool encode -m ow'"),
    ],
)
def test_completion_in_the_shell(
    shell: str, script: str, cached_model: dict[str, str], hftool_on_path: Path
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    environment = {
        **os.environ,
        **cached_model,
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    shown = subprocess.run(
        [hftool_on_path, "--show-completion", shell],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    done = subprocess.run(
        [shell, "-c", f"{shown.stdout}\n{script}"], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["owner/some-name"], done.stderr

"""The application as a whole."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from hftool.cli import usage_errors
from hftool.cli.app import app
from tests.conftest import run, run_process

HEAVY = {"torch", "transformers", "huggingface_hub", "numpy"}
LIGHT_COMMANDS = [
    ["encode", "good morning"],
    ["decode", "260 1015"],
    ["vocab-dump", "smollm2"],
]


def imported_by(*arguments: str) -> set[str]:
    """Return the modules that a process of hftool has imported when it ends."""
    code = (
        "import sys, atexit\n"
        f"sys.argv = ['hftool', *{list(arguments)!r}]\n"
        "atexit.register(lambda: print('\\nMODULES', *sys.modules, file=sys.stderr))\n"
        "from hftool.cli.app import main\n"
        "main()\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, input=""
    )
    assert process.returncode == 0, process.stderr
    return set(process.stderr.rpartition("MODULES")[2].split())


def test_help_imports_nothing_heavy() -> None:
    assert not imported_by("--help") & (HEAVY | {"tokenizers", "jinja2"})


@pytest.mark.parametrize("arguments", LIGHT_COMMANDS, ids=lambda a: a[0])
def test_tokenizer_commands_import_no_torch(arguments: list[str], smollm2_folder: object) -> None:
    assert not imported_by(*arguments) & {"torch", "transformers"}


def test_a_table_needs_no_transformers(smollm2_folder: object) -> None:
    assert not imported_by("topk", "good morning") & {"transformers", "torch._dynamo"}


def test_a_text_needs_neither_compiler_nor_distribution(smollm2_folder: object) -> None:
    loaded = imported_by("generate", "good morning", "-n", "2")
    assert "transformers" in loaded  # its filters
    assert not loaded & {"torch._dynamo", "torch.distributed.tensor", "transformers.modeling_utils"}


def test_version_names_the_libraries() -> None:
    import torch
    import transformers

    lines = run("--version").stdout.splitlines()
    assert lines[0].startswith("hftool ")
    assert f"torch {torch.__version__}" in lines
    assert f"transformers {transformers.__version__}" in lines


def test_module_runs_as_a_program() -> None:
    assert "vocab-dump" in run_process("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "notes"),
    [
        (["encode"], [r"loaded the tokenizer of .+ in \d+\.\d\d s"]),
        (["topk", "-k", "1"], [r"loaded .+: torch\.\w+ on cpu in ", r"prefill: 2 tokens in "]),
        (["topk", "--position", "all"], [r"prefill: 2 tokens in .+, \d+ tokens/s"]),
        (["generate", "-n", "3", "--greedy"], [r"prefill: 2 tokens", r"decode: 2 tokens in "]),
        (["sentiment"], [r"loaded .+: torch.float32 on cpu", r"1 texts in .+, \d+\.\d texts/s"]),
    ],
    ids=lambda values: " ".join(values[:2]),
)
def test_verbose_shows_where_the_time_went(
    arguments: list[str], notes: list[str], smollm2_folder: object, minilm_folder: object
) -> None:
    done = run(*arguments, "-v", "good morning")
    quiet = run(*arguments, "good morning")
    assert (done.exit_code, done.stdout, quiet.stderr) == (0, quiet.stdout, "")
    matches = [re.search(f"^{note}", done.stderr, re.MULTILINE) for note in notes]
    starts = [match.start() for match in matches if match]
    assert starts == sorted(starts) and len(starts) == len(notes), done.stderr


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (
            ["topk", "x", "-k", "zero"],
            "--k must be a whole number of at least 1, not 'zero'",
            "see",
        ),
        (["topk", "x", "-k", "0"], "--k must be a whole number of at least 1, not '0'", "see"),
        (["generate", "x", "--top-p", "2"], "--top-p must be a number from 0 to 1, not '2'", "see"),
        (
            ["sentiment", "x", "--long", "chnk"],
            "--long must be one of truncate, chunk, not 'chnk'",
            "see",
        ),
        (["models", "show"], "missing argument 'REF'", "see: hftool models show --help"),
    ],
)
def test_wrong_usage_in_our_own_words(arguments: list[str], error: str, hint: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert first == f"Error: {error}"
    assert second.startswith(f"Hint: {hint}")


def _parameters(group: Any) -> Iterator[tuple[Any, Any]]:
    for command in group.commands.values():
        if hasattr(command, "commands"):
            yield from _parameters(command)
        else:
            yield from ((command, parameter) for parameter in command.params)


def test_the_values_of_every_option_have_words() -> None:
    for command, parameter in _parameters(typer.main.get_command(app)):
        words = usage_errors._allowed(command, parameter.name)
        choices = parameter.type_descriptor.choices
        if choices:
            assert words == f"one of {', '.join(choices)}"
        else:
            kinds = ("true or false", "a string", "a path", "a list of ", "a number", "a whole ")
            assert words.startswith(kinds)

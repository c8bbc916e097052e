"""Help, reference and man pages: from one tree, complete, legible, with examples that run."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hftool.cli.app import app
from hftool.cli.help import Page, help_lines, page_of_application
from tests.conftest import run, run_process
from tools import doc_blocks, make_reference

DOCS = Path(__file__).parents[2] / "docs"
NEEDS_HUB_OR_TERMINAL = (
    *("qwen", "gemma", "hftool chat", "models alias", "models unalias", "hftool daemon"),
    "hftool tour",  # tests/cli/test_tour.py
    "hftool models prune",  # of the cache that all tests share
)


def all_pages(page: Page) -> Iterator[Page]:
    yield page
    for command in page.commands:
        yield from all_pages(command)


PAGES = list(all_pages(page_of_application(app)))
COMMANDS = [page for page in PAGES if not page.commands]
PATHS = [page.path for page in PAGES]


def help_of(page: Page, option: str = "--help") -> str:
    return run(*page.path.split()[1:], option).stdout


def test_the_tree_is_the_designs() -> None:
    assert {page.path.split()[1] for page in COMMANDS} == {
        *("vocab-dump", "encode", "decode", "topk", "sample", "generate", "chat", "sentiment"),
        *("models", "daemon", "score", "tree", "bench", "tour"),
    }


def test_reference_and_man_pages_are_of_this_tree() -> None:
    files = make_reference.generated()
    there = {*(DOCS / "reference").iterdir(), *(DOCS / "man").iterdir()}
    assert there == set(files)
    for path, text in files.items():
        assert path.read_text("utf-8") == text, f"{path.name} is not up to date: make reference"


@pytest.mark.parametrize("page", PAGES, ids=PATHS)
def test_everything_has_a_help_text(page: Page) -> None:
    assert page.text
    for parameter in page.parameters:
        assert parameter.help, parameter.title


@pytest.mark.parametrize("page", PAGES, ids=PATHS)
def test_every_name_is_complete_and_the_page_fits(page: Page) -> None:
    shown = help_of(page, "--help-all")
    assert max(map(len, shown.splitlines())) <= 80
    for parameter in page.parameters:
        assert parameter.title in shown
        assert parameter.default is None or f"default: {parameter.default}" in " ".join(
            shown.split()
        )
    for folder, suffix in (("reference", "md"), ("man", "1")):
        written = (DOCS / folder / f"{page.path.replace(' ', '-')}.{suffix}").read_text("utf-8")
        for parameter in page.parameters:
            assert parameter.title in written.replace("\\-", "-")


@pytest.mark.parametrize("page", COMMANDS, ids=lambda page: page.path)
def test_help_ends_with_examples(page: Page) -> None:
    commands = [line for line in page.examples if not line.startswith("#")]
    assert 1 <= len(commands) <= 4
    assert all(page.path in command for command in commands)
    for shown in (help_of(page, "--help-all"), help_of(page).partition("\n\nMore options:")[0]):
        assert shown.split("Examples:\n")[1].split() == " ".join(page.examples).split()


@pytest.mark.parametrize("page", PAGES, ids=PATHS)
def test_help_is_short_and_leads_to_the_rest(page: Page) -> None:
    lines = help_of(page).splitlines()
    assert len(lines) <= 48
    assert max(map(len, lines)) <= 80
    assert run(*page.path.split()[1:], "-h").stdout.splitlines() == lines
    hidden = [p for p in page.parameters if not any(p.title in line for line in lines)]
    assert all(f"--{name}" not in p.names for p in hidden for name in ("model", "json", "help"))
    more = [p for p in hidden if "--help-all" not in p.names]
    assert (lines[-1] == f"More options: {page.path} --help-all") == bool(more)


def test_help_of_generate_has_what_people_use() -> None:
    (page,) = (page for page in COMMANDS if page.path == "hftool generate")
    shown = help_of(page)
    used = "-m -n --chat --system -f --lines --greedy --temperature --top-k --top-p --seed --stop"
    for name in f"{used} --batch --format --json -o --help".split():
        assert f" {name}" in shown.partition("Examples:")[0], name
    assert "--no-repeat-ngram-size" not in shown


def test_the_model_is_first_in_its_panel() -> None:
    panels = [dict(page.panels)["Model"] for page in COMMANDS if "Model" in dict(page.panels)]
    first = [panel[0].names for panel in panels]
    assert first.count(("-m", "--model")) == 10
    assert all("--model" not in p.names for panel in panels for p in panel[1:])


@pytest.mark.parametrize("option", ["--help", "--help-all"])
def test_help_is_as_wide_as_the_terminal_up_to_100_columns(option: str) -> None:
    def shown(columns: str) -> list[str]:
        done = run_process("generate", option, environment={"COLUMNS": columns})
        return done.stdout.splitlines()

    assert shown("120") == shown("100")
    assert 80 < max(map(len, shown("120"))) <= 100
    assert max(map(len, shown("80"))) <= 80


def test_notes_stay_on_one_line_where_they_fit() -> None:
    lines = [line for page in PAGES for line in help_lines(page, 80, everything=True)]
    notes = [p.notes for page in PAGES for p in page.parameters if 0 < len(p.notes) <= 80 - 28]
    assert notes
    for note in notes:
        assert any(line.endswith(note) for line in lines), note


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with the files that the examples name."""
    (tmp_path / "prompts.txt").write_text("The sky is\nOne, two,\n")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "One, two,", "max_new_tokens": 3}\n')
    (tmp_path / "sentences.txt").write_text("It rains.\nIt sings.\n")
    (tmp_path / "stories.csv").write_text('story,ending\nIt was wet as," it rained."\n')
    (tmp_path / "reviews.txt").write_text("I love it\nI hate it\nWhat a film!\n")
    return tmp_path


def _page_that_runs(page: Page) -> Any:
    slow = (pytest.mark.slow,) if page.path == "hftool bench" else ()  # it measures four precisions
    return pytest.param(page, id=page.path, marks=slow)


@pytest.mark.parametrize("page", [_page_that_runs(page) for page in COMMANDS])
@pytest.mark.usefixtures("smollm2_folder", "minilm_folder")
def test_the_examples_run(page: Page, workplace: Path, hftool_on_path: Path) -> None:
    script = [e for e in page.examples if not any(n in e for n in NEEDS_HUB_OR_TERMINAL)]
    for command in script:
        if not command.startswith("#"):
            doc_blocks.run_command(command, workplace)


@pytest.mark.parametrize("arguments", [[], ["models"], ["daemon"]])
def test_without_a_command_it_shows_what_to_type(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_start_names_commands_that_exist() -> None:
    shown = run().stdout.splitlines()
    named = [line.split()[1] for line in shown if line.startswith("  hftool")]
    assert {name for name in named if not name.startswith("-")} <= {
        "COMMAND",
        *(path.split()[1] for path in PATHS[1:]),
    }


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (["gneerate"], 2, "'generate'"),
        (["models", "lits"], 2, "'list'"),
        (["generate", "x", "--temprature", "1"], 2, "'--temperature'"),
        (["encode", "x", "--specal"], 2, "'--special'"),
        (["encode", "x", "-m", "gemm"], 1, "'gemma'"),
        (["encode", "x", "-m", "smollm"], 1, "'smollm2'"),
    ],
)
def test_did_you_mean(arguments: list[str], status: int, named: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (status, "")
    lines = done.stderr.splitlines()
    assert lines[0].startswith("Error: ") and len(lines) == 2
    assert f"did you mean {named}" in done.stderr.lower()


def test_usage_errors_are_two_lines() -> None:
    for arguments in (["topk", "x", "-k", "zero"], ["models", "show"], ["encode", "--format", "x"]):
        done = run(*arguments)
        assert (done.exit_code, done.stdout) == (2, "")
        error, hint = done.stderr.splitlines()
        assert error.startswith("Error: ")
        assert hint.startswith(f"Hint: see: hftool {arguments[0]}")


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="no mandoc here")
def test_man_pages_are_well_formed() -> None:
    for page in (DOCS / "man").iterdir():
        done = subprocess.run(
            ["mandoc", "-T", "lint", "-W", "error", page], capture_output=True, text=True
        )
        assert done.stdout == ""

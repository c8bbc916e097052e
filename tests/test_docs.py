"""README and docs: commands give the output shown, links work, and every page is listed."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hftool.cli.app import app
from hftool.cli.help import page_of_application
from tools import doc_blocks

ROOT = Path(__file__).parent.parent
PAGES: list[Path] = doc_blocks.pages()
ORIGINALS = [p for p in PAGES if p not in doc_blocks.TRANSLATIONS and doc_blocks.consoles(p)]
NOT_RUN = ("text", "toml", "json")
# Of the shell, and of Typer.
OTHERS_MESSAGES = ("command not found: hftool", "No such option: …")


def name_of(value: Any) -> str:
    return value.stem if isinstance(value, Path) else str(value)


@pytest.mark.parametrize("page", ORIGINALS, ids=name_of)
@pytest.mark.usefixtures("smollm2_folder", "minilm_folder", "hftool_on_path")
def test_what_the_docs_show_is_what_happens(page: Path) -> None:
    for block, now in zip(doc_blocks.consoles(page), doc_blocks.shown(page), strict=True):
        assert doc_blocks.same(block.text, now), now


@pytest.mark.parametrize(
    ("shown", "now", "same"),
    [
        ("a 0.1234 ██▏", "a 0.1236 ██", True),
        ("a 0.1234", "a 0.1237", False),
        ("a 0.1234", "b 0.1234", False),
        ("12 tokens", "13 tokens", False),
        ("-0.1", "0.1", False),
    ],
)
def test_what_counts_as_the_same_output(shown: str, now: str, same: bool) -> None:
    assert doc_blocks.same(shown, now) is same


@pytest.mark.parametrize("page", doc_blocks.TRANSLATIONS, ids=name_of)
def test_a_translation_shows_what_its_original_shows(page: Path) -> None:
    original = doc_blocks.TRANSLATIONS[page]
    ours, theirs = doc_blocks.consoles(page), doc_blocks.consoles(original)
    assert [block.text for block in ours] == [block.text for block in theirs]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_shell_block_is_left_out_without_a_reason(page: Path) -> None:
    for block in doc_blocks.blocks(page):
        if block.language == "console":
            assert block.commands and block.text.startswith("$ ")
        elif block.language == "sh":
            assert re.fullmatch("<!-- not run here: .+ -->", block.before), block.text
        else:
            assert block.language in NOT_RUN, block.text
    fences = re.findall("^```", page.read_text("utf-8"), re.M)
    assert len(fences) == 2 * len(list(doc_blocks.blocks(page)))


def test_commands_in_the_text_have_the_options_that_they_name() -> None:
    root = page_of_application(app)
    for page in PAGES:
        for command in re.findall(r"`(hftool [^`\n]+)`", page.read_text("utf-8")):
            line = re.sub('".*?"', "", command).partition("|")[0]
            here = root
            for word in line.split()[1:]:
                here = next((c for c in here.commands if c.path.split()[-1] == word), here)
            known = {name for _, group in here.panels for p in group for name in p.names}
            for option in re.findall("(?<= )--?[a-z][a-z-]*", line):
                assert option in known or here is root, f"{page.name}: {command}"


def test_troubleshooting_explains_messages_that_exist() -> None:
    sources = [ast.parse(p.read_text("utf-8")) for p in (ROOT / "hftool").rglob("*.py")]
    nodes = [node for source in sources for node in ast.walk(source)]
    texts = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    for message in re.findall("^### `(.+)`", page, re.M):
        if message not in OTHERS_MESSAGES:
            for part in filter(str.strip, message.removeprefix("Warning: ").split("…")):
                assert any(part.strip() in text for text in texts), message


def test_links_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r": ([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M))
    there = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert named == there


def test_the_site_builds_and_says_which_pages_are_chinese(tmp_path: Path) -> None:
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (tmp_path / "build" / "site").rglob("index.html"):
        language = "zh" if ".zh" in str(page) else "en"
        assert f'<html lang="{language}"' in page.read_text("utf-8"), page

"""docs/rooms.md, the layers in pyproject.toml and the folders of hftool/ agree with each other."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from hftool import __version__
from tests.conftest import run

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hftool"
PAGE = (ROOT / "docs" / "rooms.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
MOST_MODULES = 12


def text_block(heading: str) -> list[str]:
    """Return the lines of the first text block below a heading of the page."""
    match = re.search(rf"^## {heading}$.*?^```text\n(.*?)^```$", PAGE, re.M | re.S)
    assert match
    return match[1].splitlines()


def tree() -> set[str]:
    """Return the paths in the page's tree, relative to hftool/; folders end with a slash."""
    paths: set[str] = set()
    folder = ""
    for line in text_block("The folders")[1:]:
        name = line.split()[0]
        nested = line.startswith(" " * 8)
        folder = folder if nested else name
        paths.add(folder + name if nested else name)
    return paths


def test_the_page_names_every_folder_and_every_module_beside_them() -> None:
    modules = {path.name for path in PACKAGE.glob("*.py")}
    folders = {f"{path.parent.relative_to(PACKAGE)}/" for path in PACKAGE.rglob("*/__init__.py")}
    assert tree() == modules | folders


def test_the_page_names_nothing_that_is_not_there() -> None:
    named = set(re.findall(r"`([\w./-]+(?:/|\.py))`", PAGE))
    assert len(named) > 30
    missing = {
        name for name in named if not any((base / name).exists() for base in (PACKAGE, ROOT))
    }
    assert not missing


def test_the_page_has_the_layers_that_make_lint_checks() -> None:
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    assert text_block("The layers") == [layer.replace("(", "").replace(")", "") for layer in layers]


def test_few_modules_stand_outside_the_folders() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_MODULES


def test_the_tests_have_the_folders_of_the_code() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    tested = {path.name for path in (ROOT / "tests").iterdir() if (path / "__init__.py").exists()}
    assert tested == folders | {"e2e", "benchmarks"}


def test_models_load_without_the_command_line() -> None:
    code = "import hftool.models.load, sys; print({'typer', 'rich'} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert process.stdout == "set()\n", process.stderr


def test_versions_agree() -> None:
    tested = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    )
    pre_commit = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    assert f"rev: v{tested['ruff']}\n" in pre_commit
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "hftool/__init__.py"
    assert run("--version").stdout.startswith(f"hftool {__version__}\n")
    for group in [
        PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"].values(),
    ]:
        for requirement in group:
            assert re.split(r"[\[<>=]", requirement)[0] in tested, requirement

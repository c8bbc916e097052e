"""Tables fit the terminal, narrow or wide, with and without colours."""

import json
import re
from itertools import accumulate
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.conftest import run
from tests.tiny_models import save_model

TEXT = "good morning, 大家好 👨\u200d👩\u200d👧 " + "x" * 120
TABLES = {
    "encode": ("encode", TEXT),
    "encode --compare": ("encode", TEXT, "--compare", "minilm-sst2,smollm2"),
    "vocab-dump": ("vocab-dump", "smollm2", "--ids", "0-600"),
    "vocab-dump --stats": ("vocab-dump", "smollm2", "--stats"),
    "topk": ("topk", "ab", "-k", "4", "--temperature", "0.5", "--top-p", "0.9"),
    "topk --layers": ("topk", "ab", "--layers"),
    "topk --attention": ("topk", "abcde", "--attention"),
    "topk --compare": ("topk", "ab", "-k", "4", "--compare", "MODEL,MODEL/,MODEL/."),
    "topk --position all": ("topk", "abcab", "--position", "all", "-k", "9"),
    "score --by token": ("score", "abcab", "--by", "token"),
    "tree": ("tree", "ab", "--depth", "4", "--branch", "2", "--until", "a"),
    "sample": (
        *("sample", "ab", "--steps", "2", "--seed", "1", "-k", "4", "--temperature", "0.7"),
        *("--top-k", "9", "--top-p", "0.8", "--min-p", "0.1", "--repetition-penalty", "1.2"),
    ),
    "models list": ("models", "list"),
}
SENTENCES = ("The float32", "this machine has")  # below the list


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("name", TABLES)
def test_tables_fit(name: str, columns: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    model = ("-m", str(folder)) if name.startswith(("topk", "sample", "tree", "score")) else ()
    for color in ("never", "always"):
        command = [word.replace("MODEL", str(folder)) for word in TABLES[name]]
        shown = run(*command, *model, "--format", "table", "--color", color)
        assert shown.exit_code == 0
        lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.stdout).splitlines()
        assert max(cell_len(line) for line in lines if not line.startswith(SENTENCES)) <= columns
        assert not any("…" in line for line in lines)  # nothing is cut off


@pytest.mark.parametrize(("color", "edge"), [("always", ""), ("never", "|")])
def test_lines_end_at_the_edges_of_tokens(
    color: str, edge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    text = "Internationalization, counterproductive misunderstandings " + "x" * 90
    pieces = json.loads(run("encode", text, "--json").stdout)[0]["pieces"]
    shown = run("encode", text, "--format", "table", "--color", color).stdout
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).split("\n\n")[0].splitlines()
    assert "".join(lines) == "".join(piece.replace(" ", "␣") + edge for piece in pieces)
    ends = set(accumulate(len(piece + edge) for piece in pieces))
    assert set(accumulate(map(len, lines))) <= ends
    assert len(lines) > 5


def test_a_narrow_list_of_models_keeps_whether_each_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = {}
    for columns in (40, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        heads[columns] = run("models", "list", "--format", "table").stdout.splitlines()[0].split()
    assert heads[40] == ["alias", "here", "bfloat16", "fits"]
    every = ["alias", "here", "float32", "bfloat16", "fits", "context", "licence"]
    assert heads[80] == every

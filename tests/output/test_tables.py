"""Tables of records: their numbers are whole at every width, and their colours agree."""

import json
import math
import re
import shlex
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pexpect
import pytest

from hftool.output.tables import encode, models
from hftool.output.tables.base import plain_table, table_console
from hftool.output.view import View
from hftool.output.views.encode import COUNTS, ROUND_TRIPS
from hftool.output.views.vocabulary import vocabulary_view
from hftool.tokenization.records import Counted, Encoded, RoundTrip
from hftool.tokenization.vocabulary import VocabularyEntry
from tests.conftest import run
from tests.tiny_models import save_model

WIDTHS = (20, 40, 80, 200)
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def listed(view: View, records: Iterable[Any], **settings: Any) -> str:
    """A plain table without colours."""
    return "".join(plain_table(view, **settings)(records, table_console("never", terminal=False)))


def first_numbers(text: str) -> list[int]:
    """The numbers that lines begin with, in the first column."""
    return [int(number) for number in re.findall(r"^ {0,7}(\d+)(?= |$)", text, re.MULTILINE)]


@pytest.mark.parametrize("columns", WIDTHS)
def test_a_long_table_cuts_no_number(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    ids = [*range(250), *range(990, 1010), *range(99_900, 100_300)]
    entries = [
        VocabularyEntry(i, "x" * (i % 30), "大家" * (i % 9), "ff" * (i % 40), "normal") for i in ids
    ]
    assert first_numbers(listed(vocabulary_view(raw=False), entries)) == ids
    counts = [10 ** (i // 40) for i in range(450)]
    assert first_numbers(listed(COUNTS, (Counted("a text " * 9, c) for c in counts))) == counts
    places = [None if i < 205 else i * 1000 for i in range(450)]
    trips = [RoundTrip("a text " * 9, "b", place is None, place) for place in places]
    words = set(listed(ROUND_TRIPS, trips).split())
    assert words >= {str(place) for place in places if place is not None}


@pytest.mark.parametrize("columns", WIDTHS)
def test_other_tables_cut_no_number(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    console = table_console("never", terminal=False)
    n = 1_234_567
    long = Encoded("xyz", (n, n + 1), ("t" * 30, "b"), ("家" * 20, "b"), ((n + 2, n + 3),) * 2, 2)
    shown = "".join(encode.encoded([long], console))
    assert set(shown.split()) >= {str(n + i) for i in range(4)}
    loaded = {"model": "m" * 50, "kind": "language-model", "state": "ready"}
    used = SimpleNamespace(**loaded, memory=123_456_789_012, requests=n, idle=99_999.0)
    shown = "".join(models.loaded_models([used], console))
    assert "123.5 GB" in shown
    assert str(n) in shown.split()
    copy = SimpleNamespace(name="m" * 50, size_bytes=123_456_789_012, source="x", removed=False)
    assert "123.5 GB" in "".join(models.pruned_copies([copy], console))


def test_a_listing_ends_with_how_many_rows_there_are() -> None:
    texts = [Counted(str(i), i) for i in range(1, 1300)]
    shown = listed(COUNTS, texts, most=40).splitlines()
    assert first_numbers("\n".join(shown[:-1])) == [*range(1, 41)]
    assert shown[-1].startswith("40 of 1,299 rows.")
    assert "of" not in listed(COUNTS, texts[:40], most=40)


def test_a_vocabulary_is_whole_everywhere_but_at_a_terminal(
    tmp_path: Path, smollm2_folder: Path
) -> None:
    command = f"{shlex.quote(sys.executable)} -m hftool vocab-dump smollm2"
    at_terminal = pexpect.run(command, timeout=60, encoding="utf-8").replace("\r", "")
    assert first_numbers(ANSI.sub("", at_terminal).split("40 of")[0]) == [*range(40)]
    assert "40 of 49,152 rows. To see them all, add: | less, or: -o FILE" in at_terminal
    ids = ("--ids", "900-1300")
    piped = run("vocab-dump", "smollm2", *ids, "--format", "table").stdout
    file = tmp_path / "table.txt"
    run("vocab-dump", "smollm2", *ids, "--format", "table", "-o", str(file))
    assert first_numbers(piped) == first_numbers(file.read_text()) == [*range(900, 1301)]


def test_equal_colours_mean_the_same_token(smollm2_folder: Path) -> None:
    text = "good morning, 大家好 👨\u200d👩\u200d👧 硬!"
    shown = run("encode", text, "--format", "table", "--color", "always").stdout
    line, table = shown.split("\n\n", 1)
    underline = "4;"
    in_line = re.findall(r"\x1b\[([0-9;]+)m([^\x1b]*)", line)
    in_line = [(style, piece) for style, piece in in_line if piece]
    styles = re.findall(r"\x1b\[(30;4\d)m[^\x1b]+", table)
    record = json.loads(run("encode", text, "--json").stdout)[0]
    assert len(styles) == record["count"]
    assert all(above != below for above, below in pairwise(styles))
    ends = [end for _, end in record["offsets"]]  # tokens of one character have one end
    first = [i for i, end in enumerate(ends) if end not in ends[:i]]
    assert [style.removeprefix(underline) for style, _ in in_line] == [styles[i] for i in first]
    shared = [ends.count(ends[i]) > 1 for i in first]
    assert [style.startswith(underline) for style, _ in in_line] == shared
    assert any(shared)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_token_has_one_probability(dtype: str, smollm2_folder: Path) -> None:
    targets = (" Paris, France", " London", " London Bridge")
    options = [word for target in targets for word in ("--target", target)]
    command = ("topk", "The capital of France is", "-k", "2", "--dtype", dtype, *options)
    records = json.loads(run(*command, "--json").stdout)
    probs: dict[int, set[float]] = {}
    for record in records:
        if record["position"] == 4 and record["id"] is not None:
            probs.setdefault(record["id"], set()).add(record["prob"])
    assert len(probs) == 3  # Paris, the, London
    assert all(len(of_token) == 1 for of_token in probs.values())
    assert [record.get("target") for record in records] == [
        *(None, None, None),
        *(targets[0],) * 4,
        *(targets[2],) * 3,
    ]
    tables = run(*command, "--format", "table").stdout.split("after  rank")
    assert [table.count("␣Paris ") for table in tables] == [1, 1, 0]
    assert [len(table.splitlines()) for table in tables] == [5, 5, 4]


def test_targets_below_the_best_are_in_a_table_of_each_model(tmp_path: Path) -> None:
    folders = [str(save_model(tmp_path / name, seed=seed)) for seed, name in enumerate("ab")]
    options = ("--target", "xyz", "--target", "z", "--target", "y", "--target", "x")
    command = ("topk", "ab", "-k", "3", "-m", folders[0], "--compare", folders[1], *options)
    records = json.loads(run(*command, "--json").stdout)
    shown = run(*command, "--format", "table").stdout
    for record in records:
        line = rf" {record['rank']} +{record['id']} .*{record['prob']:.4f} "
        if record["id"] is not None and (record["rank"] > 3 or "target" in record):
            assert re.search(line, shown), record


def test_sample_shows_the_row_that_it_picked(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    options = ("--steps", "12", "--seed", "1", "-k", "2", "--temperature", "3", "--top-k", "0")
    command = ("sample", "ab", "-m", str(folder), *options)
    steps = json.loads(run(*command, "--json").stdout)
    below = 0
    for step in steps:
        ranks = [candidate["rank"] for candidate in step["candidates"]]
        low = step["rank"] > 2
        assert ranks == ([1, 2, step["rank"]] if low else [1, 2])
        if low:
            below += 1
            last = step["candidates"][-1]
            assert all(last[name] == step[name] for name in ("id", "prob", "sampled_prob"))
            assert last["sampled_cumulative"] == step["sampled_cumulative"]
    assert below > 3
    shown = run(*command, "--format", "table").stdout
    for step, part in zip(steps, shown.split("\n\n"), strict=False):
        rows = re.findall(r"^ *(\d+|⋮)(?= +\d|$)", part, re.MULTILINE)
        gap = ["⋮"] if step["rank"] > 3 else []
        rank = [str(step["rank"])] if step["rank"] > 2 else []
        assert rows == ["1", "2", *gap, *rank]


SHADES = {"": 0.8, "223": 0.5, "222": 0.2, "209": 0.05, "166": 0.0}  # the least probability of each


def shades(shown: str) -> str:
    """Return the shade of each character of a coloured text but its line breaks: a to e."""
    parts = re.split(r"\x1b\[([\d;]*)m", shown.replace("\n", ""))
    return "".join(
        "abcde"[list(SHADES).index(style.rpartition("48;5;")[2] if "48;5;" in style else "")]
        * len(text)
        for style, text in zip(["", *parts[1::2]], parts[::2], strict=True)
    )


@pytest.mark.usefixtures("smollm2_folder")
def test_show_probs_shades_text_by_the_probability_of_its_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # no line is wrapped
    prompt, colored = "Once upon a", ("--format", "table", "--color", "always", "--show-probs")
    command = (prompt, "--seed=4", "--temperature=1", "--top-p=1", "--dtype=float32")
    [record] = json.loads(run("generate", *command, "-n", "24", "--logprobs", "--json").stdout)
    expected = ""
    for token in record["logprobs"]:
        place = [math.exp(token["logprob"]) >= least for least in SHADES.values()].index(True)
        expected += "abcde"[place] * len(token["token"].replace("\n", ""))
    assert len(set(expected)) >= 4
    text, legend = (
        run("generate", *command, "-n", "24", *colored).stdout.rstrip("\n").rsplit("\n", 1)
    )
    assert shades(text) == expected
    assert set(shades(legend)) == set("abcde")
    sampled = run("sample", *command, "--steps", "24", *colored).stdout
    last = sampled.rpartition(prompt)[2].rstrip("\n").rpartition("\n")[0]
    assert shades(last)[: len(expected)] == expected


@pytest.mark.parametrize(
    ("command", "cause"),
    [
        (("generate", "a"), "--show-probs needs a terminal with colours"),
        (("sample", "a", "--json"), "--show-probs needs a terminal with colours"),
        (("chat",), "--show-probs needs a terminal with colours"),
        (("generate", "a", "--no-stream"), "--show-probs excludes --no-stream"),
        (("generate", "a", "--num-beams", "2"), "--show-probs shows one text"),
    ],
)
def test_show_probs_where_nothing_can_be_shaded(command: tuple[str, ...], cause: str) -> None:
    colored = ("--format", "table", "--color", "always") if "num-beams" in str(command) else ()
    done = run(*command, "--show-probs", *colored)
    assert (done.exit_code, done.stdout) == (2, "") and cause in done.stderr

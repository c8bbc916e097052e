"""Explanations of tokens, against the tokens that tokenizers gives, and worked out by hand."""

import csv
import html
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from hftool.errors import HftoolError
from hftool.tokenization.explain import ExplainedStep, Explainer
from hftool.tokenization.tokenizer import Tokenizer
from tests.conftest import run
from tests.tokenization.test_random_tokenizers import a_text, a_tokenizer
from tests.tokenization.test_tokenizer import gemma_like, saved, unigram

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture
def low(tmp_path: Path) -> Path:
    """The example of Sennrich et al. 2016."""
    tokens = ["l", "o", "w", "e", "r", "lo", "low", "er", "we"]
    merges = [("e", "r"), ("l", "o"), ("w", "e"), ("lo", "w")]
    model = models.BPE({t: i for i, t in enumerate(tokens)}, merges)
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<s>"])
    return saved(backend, tmp_path)


def test_merges_by_hand(low: Path) -> None:
    """The pair that was merged first in training goes first."""
    explainer = Explainer(Tokenizer(low, "low"))
    explanation = explainer.explain("lower <s> we")
    assert [(part.text, part.added) for part in explanation.parts] == [
        ("lower", False),
        ("<s>", True),
        ("we", False),
    ]
    first = explanation.parts[0]
    assert first.start == ("l", "o", "w", "e", "r")
    assert first.steps == (
        ExplainedStep("er", "e", "r", 0, ("l", "o", "w", "er")),
        ExplainedStep("lo", "l", "o", 1, ("lo", "w", "er")),
        ExplainedStep("low", "lo", "w", 3, ("low", "er")),
    )
    assert explanation.parts[2].steps[0].rank == 2


def test_the_table_has_each_step(low: Path) -> None:
    done = run("encode", "--explain", "lower <s>", "-m", str(low), "--format", "table")
    assert done.stdout.splitlines() == [
        "part   merge           tokens",
        "lower  symbols         l o w e r",
        "       0: e + r        l o w er",
        "       1: l + o        lo w er",
        "       3: lo + w       low er",
        "       ids             low 6  er 7",
        "<s>    an added token  <s> 9",
    ]


def test_each_step_in_csv_has_its_text_and_its_part(low: Path) -> None:
    options = ("--lines", "-m", str(low), "--format", "csv")
    done = run("encode", "--explain", *options, stdin="we low\nlo\n")
    rows = csv.DictReader(done.stdout.splitlines())
    assert [(r["text"], r["part"], r["part_text"], r["token"]) for r in rows] == [
        ("we low", "0", "we", "we"),
        ("we low", "1", "low", "lo"),
        ("we low", "1", "low", "low"),
        ("lo", "0", "lo", "lo"),
    ]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="it needs Chromium")
@pytest.mark.parametrize(
    ("clicks", "frame"),
    [
        ((), "1 of 8|The text|lower <s>"),
        (("next",) * 5 + ("back",), "5 of 8|BPE: merge 0: e + r|l|o|w|er*|<s>"),
        (("play",), "8 of 8|The tokens|low6|er7|<s>9"),
        (("back", "back"), "1 of 8|The text|lower <s>"),
    ],
)  # fmt: skip
def test_the_page_plays(clicks: tuple[str, ...], frame: str, low: Path, tmp_path: Path) -> None:
    page = tmp_path / "steps.html"
    run("encode", "--explain", "lower <s>", "-m", str(low), "--save", str(page))
    script = "".join(f"find('{name}').click();" for name in clicks)
    page.write_text(page.read_text("utf-8").replace("</body>", f"<script>{script}</script></body>"))
    browser = subprocess.run(
        [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--virtual-time-budget=20000", f"--user-data-dir={tmp_path / 'profile'}"),
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    shown = browser.stdout.partition("<body>")[2].partition("<script>")[0]
    assert ">Play<" in shown
    new = re.findall(r'<span class="new">(.*?)</span>', shown)
    texts = [html.unescape(re.sub("<.*?>", "", part)) for part in re.split("<(?:span|p id)", shown)]
    cells = [text.partition(">")[2].strip() for text in texts[1:]]
    assert "|".join(c + "*" * (c in new) for c in cells) == frame


def test_bytes_of_an_unknown_character(tmp_path: Path) -> None:
    explanation = Explainer(Tokenizer(gemma_like(tmp_path), "gemma")).explain("é Ω the")
    assert explanation.normalized == "é▁Ω▁the"
    assert explanation.parts[0].start[:4] == ("é", "▁", "<0xCE>", "<0xA9>")


def test_scores_of_the_best_path(tmp_path: Path) -> None:
    tokenizer = Tokenizer(unigram(tmp_path), "t5")
    explanation = Explainer(tokenizer).explain("the hat ☃ cat")
    steps = [step for part in explanation.parts for step in part.steps]
    assert [step.token for step in steps] == tokenizer.backend.encode(
        "the hat ☃ cat", add_special_tokens=False
    ).tokens
    assert all((step.score is None) == ("☃" in step.token) for step in steps)
    assert all(step.score is None or step.score < 0 for step in steps)


@pytest.mark.parametrize("seed", range(60))
def test_the_steps_lead_to_the_tokens(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    tokenizer = Tokenizer(saved(a_tokenizer(draw), tmp_path), "random")
    explainer = Explainer(tokenizer)
    explained = 0
    for text in (a_text(draw) for _ in range(6)):
        try:
            encoding = tokenizer.encode(text, special=False)
            explanation = explainer.explain(text)
        except HftoolError:
            continue
        explained += 1
        assert [i for part in explanation.parts for i in part.ids] == encoding.ids
        for part in explanation.parts:
            if explanation.model == "BPE" and not part.added:
                steps = part.steps
                assert (steps[-1].tokens if steps else part.start) == part.tokens
            elif not part.added:
                assert tuple(step.token for step in part.steps) == part.tokens

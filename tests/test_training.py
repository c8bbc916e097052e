"""The programs in training/."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import run

ROOT = Path(__file__).parent.parent
# The label of the last text is wrong, so that a program that counts every text as correct fails.
DEV = [("a fine film", "1"), ("it is dull", "0"), ("I love\tit", "1"), ("never works", "1")]


@pytest.mark.usefixtures("minilm_folder")
def test_the_accuracy_is_that_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    lines = [f"{text}\t{label}\n" for text, label in DEV]
    (tmp_path / "dev.tsv").write_text("".join(lines), encoding="utf-8")
    process = subprocess.run(
        [sys.executable, ROOT / "training" / "evaluate_sentiment.py", "--data", tmp_path],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    result = run("sentiment", *(text for text, _ in DEV))
    predicted = [line.partition("\t")[0] for line in result.stdout.splitlines()]
    correct = sum(
        p == {"0": "NEGATIVE", "1": "POSITIVE"}[label]
        for p, (_, label) in zip(predicted, DEV, strict=True)
    )
    assert 0 < correct < len(DEV)
    expected = f"minilm-sst2: {correct} of 4 correct, accuracy {correct / 4:.4f}\n"
    assert process.stdout == expected


def test_the_temperature_undoes_scores_that_are_too_high() -> None:
    program = runpy.run_path(str(ROOT / "training" / "calibrate_sentiment.py"))
    logits = torch.tensor([-2.5, -1.2, 0.3, 2.2], dtype=torch.float64)
    positive = (10_000 * torch.sigmoid(logits)).round().long().tolist()
    right = torch.cat([torch.arange(10_000) < n for n in positive]).double()
    margins = 3 * logits.repeat_interleave(10_000)
    assert program["temperature_of"](margins, right) == pytest.approx(3, abs=1e-3)
    error, loss = program["calibration"](margins, right)
    assert error > 0.05
    scaled = program["cross_validated"](margins, right)
    new_error, new_loss = program["calibration"](scaled, right)
    assert new_error < 1e-3 and new_loss < loss


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Return the names of a program in training/, which imports others from there."""
    monkeypatch.syspath_prepend(ROOT / "training")
    return lambda name: runpy.run_path(str(ROOT / "training" / f"{name}.py"))


def test_no_text_to_train_on_is_part_of_a_sentence_that_is_held_out(
    tmp_path: Path, programs: Callable[[str], dict[str, Any]]
) -> None:
    sentences = [(f"film number {i} is a joy to watch", 1) for i in range(20)]
    held = programs("train_sentiment")["held_out"](sentences)
    assert len(held) == 2
    (out,) = (text for text, _ in held[:1])
    lines = [*sentences, ("is a joy", 1), (out.removesuffix(" to watch"), 1), ("a joyless film", 0)]
    for name, pairs in (("train", sentences), ("phrases", lines), ("dev", [("a joyless film", 0)])):
        rows = "".join(f"{text}\t{label}\n" for text, label in pairs)
        (tmp_path / f"{name}.tsv").write_text(rows, encoding="utf-8")
    texts = programs("judge_texts")["texts_to_judge"](tmp_path, ["not of the treebank"] * 8)
    labelled = {text for text, label in texts if label >= 0}
    assert labelled == {text for text, _ in sentences} - {text for text, _ in held}
    unlabelled = [text for text, label in texts if label < 0]
    assert unlabelled
    assert not any(text.rstrip(".") in joined for joined in unlabelled for text, _ in held)


def test_ratings_of_people_become_margins(
    tmp_path: Path, programs: Callable[[str], dict[str, Any]]
) -> None:
    program = programs("judge_texts")
    for name in program["RATED"]:
        line = f"1_1\t-0.5\tsalt &amp; pepper from {name}\n"
        (tmp_path / f"{name}_GroundTruth.txt").write_text(line, encoding="utf-8")
    found = list(program["rated"](tmp_path))
    assert found[0] == ("salt & pepper from amazonReviewSnippets", -1.5)
    assert len(found) == 3 and not any("movie" in text for text, _ in found)


def test_the_target_is_the_teachers_probability_and_a_fifth_of_the_label(
    tmp_path: Path, programs: Callable[[str], dict[str, Any]]
) -> None:
    (tmp_path / "judged.tsv").write_text("a\t-1\t2\nb\t0\t2\nc\t1\t0\n")
    examples = programs("train_sentiment")["read_judged"](tmp_path / "judged.tsv")
    # sigmoid(2 / 2) = 0.731059
    assert examples == [
        ("a", pytest.approx(0.731059, abs=1e-6)),
        ("b", pytest.approx(0.8 * 0.731059, abs=1e-6)),
        ("c", pytest.approx(0.8 * 0.5 + 0.2)),
    ]

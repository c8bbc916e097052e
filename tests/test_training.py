"""The programs in training/."""

import runpy
import subprocess
import sys
from pathlib import Path

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

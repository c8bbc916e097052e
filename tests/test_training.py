"""The programs in training/."""

import subprocess
import sys
from pathlib import Path

import pytest

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

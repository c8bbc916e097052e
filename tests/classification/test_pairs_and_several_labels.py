"""Models that give several labels, and models of pairs of texts, from the command line."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.conftest import run
from tests.tiny_models import save_classifier, transformers_tokenizer

LABELS = ("joy", "anger", "fear")
PAIRS = [("a man eats", "someone eats"), ("it rains", "it is dry"), ("x", "y"), ("a", "  b ")]


def test_all_labels_above_the_threshold(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, LABELS, problem_type="multi_label_classification")
    texts = [f"text number {i}" for i in range(12)]
    command = ("sentiment", "-m", str(folder), *texts)
    found = json.loads(run(*command, "--all-scores", "--json").stdout)
    cases: list[tuple[float, list[str]]] = [(0.5, []), (0.8, ["--threshold", "0.8"])]
    for threshold, options in cases:
        records = json.loads(run(*command, *options, "--json").stdout)
        for record, known in zip(records, found, strict=True):
            expected = {label for label, score in known["scores"].items() if score >= threshold}
            assert set(record["labels"]) == expected
            assert record["label"] == (", ".join(record["labels"]) or "UNCERTAIN")
    rows = list(csv.DictReader(io.StringIO(run(*command, "--format", "csv").stdout)))
    assert [row["label"] for row in rows] == [record["label"] for record in found]
    counts = json.loads(run(*command, "--summary", "--json").stdout)
    for label in LABELS:
        (one,) = [c for c in counts if c["label"] == label]
        having = [f["scores"][label] for f in found if label in f["labels"]]
        assert one["count"] == len(having)
        assert one["share"] == pytest.approx(len(having) / len(texts))
        if having:
            assert one["mean_score"] == pytest.approx(sum(having) / len(having))
    text, labels = next((f["text"], f["labels"]) for f in found if f["labels"])
    assert run("sentiment", "-m", str(folder), text, "--check", labels[-1]).exit_code == 0
    (tmp_path / "t.csv").write_text("text,label\nx,joy\n")
    done = run("sentiment", "-m", str(folder), "-f", str(tmp_path / "t.csv"), "--gold", "label")
    assert done.exit_code == 2 and "--gold" in done.stderr


def test_pairs(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, ("entailment", "neutral", "contradiction"))
    table = tmp_path / "pairs.jsonl"
    rows = [{"text": a, "hypothesis": b, "id": i} for i, (a, b) in enumerate(PAIRS)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("sentiment", "-m", str(folder), "-f", str(table), "--pair-column", "hypothesis")
    found = json.loads(run(*command, "--all-scores", "--json").stdout)
    auto: Any = AutoModelForSequenceClassification
    model = auto.from_pretrained(folder, dtype=torch.float32).eval()
    for record, (first, second) in zip(found, PAIRS, strict=True):
        inputs = transformers_tokenizer(folder)(first, second, return_tensors="pt")
        with torch.inference_mode():
            expected = model(**inputs).logits[0].softmax(-1).tolist()
        assert [*record["scores"].values()] == pytest.approx(expected, abs=1e-5)

    output = tmp_path / "o.csv"
    assert run(*command, "-o", str(output)).exit_code == 0
    without = run(*command[:5], "-o", str(output), "--resume")
    assert without.exit_code == 1 and "--pair-column" in without.stderr
    done = run(*command[:5], "--pair-column", "nix")
    assert done.exit_code == 2 and "the columns are 'text', 'hypothesis', 'id'" in done.stderr
    for options in (["--labels", "a,b"], ["--long", "chunk"]):
        assert run(*command, *options).exit_code == 2
    table.write_text(json.dumps(rows[0]) + '\n{"text": "x", "hypothesis": null}\n')
    done = run(*command)
    assert done.exit_code == 1 and "line 2: 'hypothesis' is missing" in done.stderr

"""Models that give several labels, and models of pairs of texts, from the command line."""

import csv
import io
import json
import re
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


GOLD = ["joy, anger", "joy", "", "fear|anger", "JOY;fear", None, "anger"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_right_labels_of_several(suffix: str, tmp_path: Path) -> None:
    """Against the definitions of Tsoumakas, Katakis and Vlahavas (2010), worked out by counting."""
    folder = save_classifier(tmp_path, LABELS, problem_type="multi_label_classification")
    table = tmp_path / f"t.{suffix}"
    lists = [None if g is None else re.findall("joy|anger|fear", g.lower()) for g in GOLD]
    texts = [f"text number {i}" for i in range(len(GOLD))]
    if suffix == "csv":
        lines = [
            f'{text},"{"NA" if g is None else g}"' for text, g in zip(texts, GOLD, strict=True)
        ]
        table.write_text("\n".join(["text,truth", *lines]) + "\n")
    else:
        rows = [{"text": t, "truth": g} for t, g in zip(texts, lists, strict=True)]
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = (
        "sentiment",
        "-m",
        str(folder),
        "-f",
        str(table),
        "--null",
        "NA",
        "--threshold",
        "0.6",
    )
    given = [r["labels"] for r in json.loads(run(*command, "--format", "json").stdout)]
    gold = ("--gold", "truth", "--mistakes", "9")
    (found,) = json.loads(run(*command, *gold, "--json").stdout)
    pairs = [(set(g), set(x)) for g, x in zip(lists, given, strict=True) if g is not None]
    assert any(x for _, x in pairs) and any(x != g for g, x in pairs)
    exact = sum(g == x for g, x in pairs)
    assert (found["texts"], found["correct"], found["no_gold"]) == (6, exact, 1)
    assert found["accuracy"] == exact / 6
    hits = sum(len(g & x) for g, x in pairs)
    assert found["micro_f1"] == 2 * hits / sum(len(g) + len(x) for g, x in pairs)
    for label in found["labels"]:
        name = label["label"]
        assert label["support"] == sum(name in g for g, _ in pairs)
        assert label["predicted"] == sum(name in x for _, x in pairs)
        both = sum(name in g and name in x for g, x in pairs)
        assert label["precision"] == (both / label["predicted"] if label["predicted"] else None)
        assert label["recall"] == both / label["support"]
    assert found["macro_f1"] == sum(x["f1"] for x in found["labels"]) / 3
    assert sum(b["count"] for b in found["calibration"]) == 3 * len(pairs)
    assert len(found["mistakes"]) == 6 - exact
    shown = run(*command, *gold, "--format", "table").stdout
    assert "of 6 texts exactly right" in shown and "micro-F1" in shown
    refused = run(*command, *gold, "--min-accuracy", "0.99")
    assert refused.exit_code == 3


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

"""Measure the accuracy of `hftool sentiment` on the Stanford Sentiment Treebank.

    python training/evaluate_sentiment.py --data SST2_FOLDER

SST2_FOLDER contains dev.tsv. Each line is text TAB label, and a label is 0 (negative) or 1
(positive).
"""

import argparse
from pathlib import Path

from hftool.classification.classify import classify
from hftool.classification.scorers import load_scorer
from hftool.inputs.tables import TextRow
from hftool.options.labels import LabelOptions
from hftool.options.model import DEFAULT_CLASSIFIER, ClassifierOptions

LABELS = ("NEGATIVE", "POSITIVE")


def main() -> None:
    """Classify the texts of dev.tsv and print how many labels are correct."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with dev.tsv")
    parser.add_argument("--model", default=DEFAULT_CLASSIFIER, help="as in `hftool sentiment -m`")
    parser.add_argument("--dtype", default="auto", help="as in `hftool sentiment --dtype`")
    args = parser.parse_args()

    lines = (args.data / "dev.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.rsplit("\t", 1) for line in lines]
    scorer = load_scorer(ClassifierOptions(model=args.model, dtype=args.dtype), LabelOptions())
    classifications = classify(scorer, (TextRow(text, {}) for text, _ in rows))
    correct = sum(
        classification.label == LABELS[int(label)]
        for classification, (_, label) in zip(classifications, rows, strict=True)
    )
    print(f"{args.model}: {correct} of {len(rows)} correct, accuracy {correct / len(rows):.4f}")


if __name__ == "__main__":
    main()

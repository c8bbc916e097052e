"""Measure a classifier on the Stanford Sentiment Treebank, as `hftool sentiment` judges it.

    python training/evaluate_sentiment.py --data SST2_FOLDER

SST2_FOLDER holds dev.tsv: text TAB label (0 negative, 1 positive).
"""

import argparse
from pathlib import Path

from hftool.classification.classify import classify
from hftool.classification.scorers import load_scorer
from hftool.inputs.tables import TextRow
from hftool.options.labels import LabelOptions
from hftool.options.model import DEFAULT_CLASSIFIER, ClassifierOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of dev.tsv")
    parser.add_argument("--model", default=DEFAULT_CLASSIFIER, help="as in `hftool sentiment -m`")
    parser.add_argument("--dtype", default="auto", help="as in `hftool sentiment --dtype`")
    args = parser.parse_args()

    lines = (args.data / "dev.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.rsplit("\t", 1) for line in lines]
    scorer = load_scorer(ClassifierOptions(model=args.model, dtype=args.dtype), LabelOptions())
    found = classify(scorer, (TextRow(text, {}) for text, _ in rows))
    pairs = zip(found, rows, strict=True)
    right = sum(c.label == ("NEGATIVE", "POSITIVE")[int(label)] for c, (_, label) in pairs)
    print(f"{args.model}: {right} of {len(rows)} right, accuracy {right / len(rows):.4f}")


if __name__ == "__main__":
    main()

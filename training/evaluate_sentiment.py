"""Measure a classifier on the Stanford Sentiment Treebank, as `hftool sentiment` judges it.

    python training/evaluate_sentiment.py --data SST2_FOLDER

SST2_FOLDER holds dev.tsv: text TAB label (0 negative, 1 positive).
"""

import argparse
from pathlib import Path

from hftool.classification import judge
from hftool.models.load import load_classifier
from hftool.options import DEFAULT_CLASSIFIER, ClassifierOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of dev.tsv")
    parser.add_argument("--model", default=DEFAULT_CLASSIFIER, help="as in `hftool sentiment -m`")
    parser.add_argument("--dtype", default="auto", help="as in `hftool sentiment --dtype`")
    args = parser.parse_args()

    lines = (args.data / "dev.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.rsplit("\t", 1) for line in lines]
    classifier = load_classifier(ClassifierOptions(model=args.model, dtype=args.dtype))
    judgements = list(judge(classifier, (text for text, _ in rows)))
    pairs = zip(judgements, rows, strict=True)
    right = sum(j.label == ("NEGATIVE", "POSITIVE")[int(label)] for j, (_, label) in pairs)
    print(f"{args.model}: {right} of {len(rows)} right, accuracy {right / len(rows):.4f}")


if __name__ == "__main__":
    main()

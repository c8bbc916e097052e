"""Calibrate the sentiment adapter: divide its classifier by a temperature, so that of texts with a
score of 0.9 nine in ten are right (Guo et al. 2017, https://arxiv.org/abs/1706.04599).

    python training/calibrate_sentiment.py --data SST2_FOLDER --adapter hftool/models/minilm-sst2

SST2_FOLDER contains dev.tsv. Each line is text TAB label, and a label is 0 (negative) or 1
(positive). Without --write it only measures, by cross-validation. Labels do not change.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hftool.classification.classify import classify
from hftool.classification.scorers import load_scorer
from hftool.inputs.tables import TextRow
from hftool.options.labels import LabelOptions
from hftool.options.model import DEFAULT_CLASSIFIER, ClassifierOptions

FOLDS = 10


def temperature_of(margins: torch.Tensor, right: torch.Tensor) -> float:
    """Return the temperature with the lowest loss: where its slope changes sign.

    Args:
        margins: by how much the logit of POSITIVE exceeds that of NEGATIVE [texts].
        right: 1 for a positive text, 0 for a negative one [texts].
    """
    low, high = 0.01, 100.0
    while high / low > 1 + 1e-9:
        middle = (low * high) ** 0.5
        slope = ((torch.sigmoid(margins / middle) - right) * margins).mean()
        low, high = (middle, high) if slope > 0 else (low, middle)
    return high


def calibration(margins: torch.Tensor, right: torch.Tensor) -> tuple[float, float]:
    """Return the expected calibration error in ten bins, and the loss."""
    probs = torch.sigmoid(margins)
    given = probs.ge(0.5)
    scores = torch.where(given, probs, 1 - probs)
    is_right = given.eq(right.bool()).double()
    bins = (scores * 10).long().clamp(max=9)
    error = sum(
        (scores[bins == i].sum() - is_right[bins == i].sum()).abs().item() for i in range(10)
    )
    loss = torch.nn.functional.binary_cross_entropy(probs, right)
    return error / len(margins), float(loss)


def margins_of(texts: Sequence[str], model: str) -> torch.Tensor:
    """Return the margin of each text: float64 [texts]."""
    options = ClassifierOptions(model=model, dtype="float32", device="cpu")
    scorer = load_scorer(options, LabelOptions())
    found = classify(scorer, (TextRow(text, {}) for text in texts))
    probs = torch.tensor([c.scores["POSITIVE"] for c in found], dtype=torch.float64)
    return torch.logit(probs, eps=1e-12)


def cross_validated(margins: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the margins of each fold at the temperature of the others."""
    order = random.Random(0).sample(range(len(margins)), len(margins))
    scaled = margins.clone()
    for fold in range(FOLDS):
        held_out = torch.tensor(order[fold::FOLDS])
        others = torch.ones(len(margins), dtype=torch.bool)
        others[held_out] = False
        scaled[held_out] = margins[held_out] / temperature_of(margins[others], right[others])
    return scaled


def main() -> None:
    """Measure the calibration, and with --write change the adapter."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with dev.tsv")
    parser.add_argument("--adapter", type=Path, required=True, help="folder of the adapter")
    parser.add_argument("--write", action="store_true", help="divide the adapter's classifier")
    args = parser.parse_args()

    lines = (args.data / "dev.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.rsplit("\t", 1) for line in lines]
    right = torch.tensor([float(label) for _, label in rows], dtype=torch.float64)
    margins = margins_of([text for text, _ in rows], DEFAULT_CLASSIFIER)
    temperature = temperature_of(margins, right)
    for name, scaled in (
        ("as it is", margins),
        (
            f"in {FOLDS} folds, each at the temperature of the others",
            cross_validated(margins, right),
        ),
    ):
        error, loss = calibration(scaled, right)
        print(f"{name}: calibration error {error:.4f}, loss {loss:.4f}")
    print(f"temperature of all: {temperature:.4f}")
    if args.write:
        path = args.adapter / "adapter_model.safetensors"
        state = load_file(path)
        for name, tensor in state.items():
            if ".classifier." in name:
                state[name] = tensor.float() / temperature  # not in half precision
        save_file(state, path, metadata={"format": "pt"})
        print(f"divided the classifier in {path}")


if __name__ == "__main__":
    main()

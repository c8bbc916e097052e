"""Benchmarks of `sentiment`: hftool and transformers' pipeline on reviews of mixed length."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers import pipeline
from transformers.utils import logging

from hftool.classification.classify import classify
from hftool.classification.sequence_classifier import ClassifierScorer
from hftool.inputs.tables import TextRow
from hftool.models.load import load_classifier
from hftool.models.local_files import load_tokenizer
from hftool.options.model import ClassifierOptions, SourceOptions
from tests.benchmarks.engines import engines
from tests.benchmarks.pairs import Pair

BATCH_SIZES = (1, 8, 32)  # the pipeline runs with the fastest of these
PROBED = 200  # number of texts to find it with

SENTENCES = """
The film begins slowly and never finds its feet.
I laughed out loud more than once, and so did everybody around me.
The acting is superb throughout.
It arrived broken, and nobody answered my letters.
Good value for the price, though the colour is not what the picture shows.
I would not recommend it to anyone with a bad back.
We stayed for three nights and wished it had been a week.
Dull.
The battery lasts a whole day, the screen is bright, and it fits into a pocket.
The second half repeats the first, only louder.
""".strip().splitlines()


def reviews(count: int) -> list[str]:
    """Return texts of one to forty sentences; short ones are more frequent."""
    draw = random.Random(1)
    lengths = [min(40, 1 + int(draw.expovariate(0.15))) for _ in range(count)]
    # Each has a number, so that no text is there twice: hftool would classify it only once.
    return [f"{i}. {' '.join(draw.choices(SENTENCES, k=k))}" for i, k in enumerate(lengths)]


def pairs(texts: int) -> Iterator[Pair]:
    """Yield the pipeline in float32, at its best batch size, with hftool in each precision."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    data = reviews(texts)
    folder = load_tokenizer("minilm-sst2", SourceOptions(offline=True)).folder
    make: Any = pipeline
    theirs = make(
        "text-classification", str(folder), device="cpu", dtype=torch.float32, truncation=True
    )
    best = max(BATCH_SIZES, key=lambda size: _rate(data[:PROBED], theirs, size))
    for options in (
        ClassifierOptions(device="cpu", dtype="float32"),
        ClassifierOptions(device="cpu", dtype="bfloat16"),
        ClassifierOptions(device="cpu", quantize="int8"),
    ):
        yield _pair(data, theirs, best, options)
        for name, labels in engines(folder, _precision(options), reviews(300)):
            yield _beside(data, name, labels, options)


def _rate(data: list[str], theirs: Any, batch_size: int) -> float:
    """Return the texts per second of the pipeline."""
    start = time.perf_counter()
    theirs(data, batch_size=batch_size)
    return len(data) / (time.perf_counter() - start)


def _precision(options: ClassifierOptions) -> str:
    return options.dtype if options.quantize == "none" else options.quantize


def _pair(data: list[str], make_labels: Any, batch_size: int, options: ClassifierOptions) -> Pair:
    def theirs(texts: Sequence[str]) -> list[str]:
        return [r["label"] for r in make_labels(texts, batch_size=batch_size)]

    return _labels_pair(data, f"pipeline, float32, batch {batch_size}", theirs, options)


def _beside(
    data: list[str],
    name: str,
    labels: Callable[[Sequence[str]], list[int]],
    options: ClassifierOptions,
) -> Pair:
    names = load_classifier(options).labels

    def theirs(texts: Sequence[str]) -> list[str]:
        return [names[i] for i in labels(texts)]

    return _labels_pair(data, f"{name}, {_precision(options)}", theirs, options)


def _labels_pair(
    data: list[str],
    other: str,
    labels_of: Callable[[list[str]], list[str]],
    options: ClassifierOptions,
) -> Pair:
    scorer = ClassifierScorer(load_classifier(options))
    labels: dict[str, list[str]] = {}

    def ours() -> int:
        rows = [TextRow(text, {}) for text in data]
        labels["ours"] = [one.label for one in classify(scorer, rows)]
        return len(data)

    def theirs() -> int:
        labels["theirs"] = labels_of(data)
        return len(data)

    def remark() -> str:
        same = sum(a == b for a, b in zip(labels["ours"], labels["theirs"], strict=True))
        return f"{same / len(data):.2%} of the labels agree"

    what = f"sentiment, {_precision(options)}"
    return Pair(what, other, "texts", ours, theirs, remark)

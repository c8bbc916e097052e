"""Benchmarks while another program uses one of the cores."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from hftool.classification.classify import classify
from hftool.classification.sequence_classifier import ClassifierScorer
from hftool.inputs.tables import TextRow
from hftool.models.load import load_classifier, load_language_model
from hftool.models.references import GgufFile, resolve_reference
from hftool.options.model import ClassifierOptions, LoadOptions
from tests.benchmarks.generating import LONG, alone, prefilled, requests
from tests.benchmarks.judging import reviews
from tests.benchmarks.pairs import Pair
from tests.benchmarks.peers import has_llama_cpp, llama_cpp_runs, requantized

OTHER = (sys.executable, "-c", "while True: pass")


def thrice(run: Callable[[], int]) -> int:
    """Run three times, so that the number of threads has time to follow the load."""
    return sum(run() for _ in range(3))


def busy(run: Callable[[], int]) -> int:
    """Run while another process computes on one core."""
    other = subprocess.Popen(OTHER)
    try:
        return thrice(run)
    finally:
        other.kill()
        other.wait()


def pairs(tokens: int, texts: int) -> Iterator[Pair]:
    """Yield hftool with a busy core beside itself on a quiet machine, and beside llama.cpp."""
    data = reviews(texts)
    long = f"a prompt of {LONG:,} tokens"
    for bits in ("none", "int4"):
        options = LoadOptions(device="cpu", offline=True, quantize=bits)
        model = load_language_model(options)
        [one] = requests(model, 1, tokens)
        prompt = replace(one, ids=one.ids * (LONG // len(one.ids)), max_new_tokens=1)
        name = "bfloat16" if bits == "none" else bits
        decode = partial(alone, model, [one])
        prefill = partial(prefilled, prompt, partial(alone, model, [prompt]))
        yield _pair(f"generate, {name}", "tokens", decode)
        yield _pair(f"{long}, {name}", "tokens", prefill)
    if has_llama_cpp():
        source = resolve_reference("smollm2")
        assert isinstance(source, GgufFile)
        with tempfile.TemporaryDirectory() as folder:
            run = llama_cpp_runs(requantized(source.path, "Q4_0", Path(folder)))
            other = "llama.cpp, Q4_0, one core busy"
            for what, ours, theirs in (
                ("generate", decode, partial(run, one.ids, tokens)),
                (long, prefill, partial(prefilled, prompt, partial(run, prompt.ids, 1))),
            ):
                what = f"{what}, int4, one core busy"
                yield Pair(what, other, "tokens", partial(busy, ours), partial(busy, theirs))
    scorer = ClassifierScorer(load_classifier(ClassifierOptions(device="cpu", dtype="bfloat16")))

    def judge() -> int:
        return len(list(classify(scorer, [TextRow(text, {}) for text in data])))

    yield _pair("sentiment, bfloat16", "texts", judge)


def _pair(what: str, unit: str, run: Callable[[], int]) -> Pair:
    return Pair(
        f"{what}, one core busy", "the same, quiet", unit, partial(busy, run), partial(thrice, run)
    )

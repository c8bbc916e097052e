"""Benchmarks of `score`: hftool, transformers one text after the other, and minicons."""

import importlib
import importlib.util
import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from hftool.generation.scored_sequences import text_encoder
from hftool.generation.scoring import score_texts
from hftool.inputs.tables import TextRow
from hftool.models.language_model import LanguageModel
from hftool.models.load import load_language_model
from hftool.options.inputs import FileOptions, PromptOptions
from hftool.options.model import Dtype, ExactLoadOptions
from hftool.options.score import ScoreOptions
from tests.benchmarks.judging import SENTENCES
from tests.benchmarks.pairs import Pair

BATCH_SIZES = (1, 8, 32)  # minicons runs with the fastest of these
PROBED = 64  # number of texts to find it with
QUESTION = "What is said here, and who would say it? Choose the answer that fits. "
CHOICES = 4
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")

Text = tuple[str, str]  # what is given, and what is scored after it
Totals = list[float]
Score = Callable[[Sequence[Text]], Totals]


def pairs(texts: int) -> Iterator[Pair]:
    """Yield SmolLM2 in float32 and bfloat16 on single sentences, and on answers to questions."""
    draw = random.Random(1)
    sentences = [("", f"{i}. {draw.choice(SENTENCES)}") for i in range(texts)]
    questions = [f"{QUESTION}{' '.join(draw.choices(SENTENCES, k=10))}" for _ in range(texts // 8)]
    answers = [(given, " " + draw.choice(SENTENCES)) for given in questions for _ in range(CHOICES)]
    for dtype in DTYPES:
        options = ExactLoadOptions(device="cpu", offline=True, dtype=dtype)
        model, theirs = load_language_model(options), load_language_model(options, fast=False)
        ours, alone = partial(_hftool, model), partial(_transformers, theirs)
        yield _pair(f"score, {dtype}", "transformers, one by one", sentences, ours, alone)
        if importlib.util.find_spec("minicons"):  # never a dependency
            minicons, size = _minicons(theirs, sentences[:PROBED])
            other = f"minicons, batches of {size}"
            yield _pair(f"score, {dtype}", other, sentences, ours, minicons)
        what = f"score --given-column, {CHOICES} answers each, {dtype}"
        yield _pair(what, "transformers, one by one", answers, ours, alone)


def _pair(what: str, other: str, texts: list[Text], ours: Score, theirs: Score) -> Pair:
    found: dict[str, Totals] = {}

    def run(name: str, score: Score) -> int:
        found[name] = score(texts)
        return len(texts)

    def remark() -> str:
        most = max(abs(a - b) for a, b in zip(found["ours"], found["theirs"], strict=True))
        return f"log-probabilities differ by {most:.1g}"

    return Pair(
        *(what, other, "texts"),
        run_hftool=partial(run, "ours", ours),
        run_other=partial(run, "theirs", theirs),
        remark=remark,
    )


def _hftool(model: LanguageModel, texts: Sequence[Text]) -> Totals:
    options = ScoreOptions(given_column="given" if texts[0][0] else None)
    rows = [TextRow(text, {"given": given}) for given, text in texts]
    encode = text_encoder(model, FileOptions(), PromptOptions(), options)
    return [record.logprob or 0.0 for record in score_texts(model, rows, encode, options)]


@torch.inference_mode()
def _transformers(model: LanguageModel, texts: Sequence[Text]) -> Totals:
    totals = []
    for given, text in texts:
        before = max(1, len(model.tokenizer.encode(given, True).ids))
        ids = torch.tensor([model.tokenizer.encode(given + text, True).ids])
        logprobs = model.model(ids).logits[0, :-1].float().log_softmax(-1)
        chosen = logprobs.gather(1, ids[0, 1:, None])[:, 0]
        totals.append(float(chosen[before - 1 :].sum()))
    return totals


def _minicons(model: LanguageModel, probed: Sequence[Text]) -> tuple[Score, int]:
    """Return minicons with its fastest batch size."""
    from transformers import PreTrainedTokenizerFast

    make: Any = PreTrainedTokenizerFast
    tokenizer = make(tokenizer_object=model.tokenizer.backend, eos_token="<|im_end|>")
    tokenizer.pad_token = tokenizer.eos_token
    scorer: Any = importlib.import_module("minicons.scorer")
    made = scorer.IncrementalLMScorer(model.model, "cpu", tokenizer=tokenizer)

    def score(texts: Sequence[Text], size: int) -> Totals:
        plain = [text for _, text in texts]
        batches = [plain[i : i + size] for i in range(0, len(plain), size)]
        sums = (made.sequence_score(b, reduction=lambda x: x.sum().item()) for b in batches)
        return [total for batch in sums for total in batch]

    def seconds(size: int) -> float:
        began = time.perf_counter()
        score(probed, size)
        return time.perf_counter() - began

    best = min(BATCH_SIZES, key=seconds)
    return partial(score, size=best), best

"""Benchmarks of generation: batches, single prompts and transformers' own `generate`."""

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from hftool.generation.batch import generate_batch, generate_side_by_side
from hftool.generation.generate import generate
from hftool.generation.records import Generation, Request
from hftool.generation.sampling import SamplingSettings
from hftool.models.language_model import LanguageModel
from hftool.models.load import load_language_model
from hftool.models.references import GgufFile, resolve_reference
from hftool.options.model import LoadOptions, Quantization
from tests.benchmarks import starting
from tests.benchmarks.pairs import Pair
from tests.benchmarks.peers import (
    FORMATS,
    has_llama_cpp,
    llama_cpp_runs,
    quantized_bytes,
    reads,
    requantized,
)
from tests.benchmarks.random_model import save_random_model

LONG, LONGEST = 1000, 5500  # tokens
BITS: tuple[Quantization, ...] = ("int8", "int4")
PROMPTS = ("Once upon a time", "The capital of France is", "A good way to cook rice is", "In 1969")


def pairs(tokens: int) -> Iterator[Pair]:
    """Yield SmolLM2 with the dtype of `auto` and quantized, on one prompt, long ones, 16 and 64."""
    model = load_language_model(LoadOptions(device="cpu", offline=True))
    one = requests(model, 1, tokens)
    long, longest = (
        replace(one[0], ids=one[0].ids * (count // len(one[0].ids)), max_new_tokens=1)
        for count in (LONG, LONGEST)
    )
    other = "transformers' generate"
    beside = partial(_transformers, model, one, tokens)
    yield Pair("generate, one prompt", other, "tokens", partial(alone, model, one), beside)
    for prompt in (long, longest):
        prefill = partial(prefilled, prompt)
        yield Pair(
            f"a prompt of {len(prompt.ids):,} tokens",
            other,
            "tokens",
            partial(prefill, partial(alone, model, [prompt])),
            partial(prefill, partial(_transformers, model, [prompt], 1)),
        )
    source = resolve_reference("smollm2")
    assert isinstance(source, GgufFile)
    for bits in BITS:
        quantized = load_language_model(LoadOptions(device="cpu", offline=True, quantize=bits))
        ours = partial(alone, quantized, one)
        yield Pair(f"generate --quantize {bits}", other, "tokens", ours, beside)
        yield from _quantized(quantized, bits, source.path, tokens, "SmolLM2")
    yield from _unequal(model, tokens)
    few = partial(alone, model, requests(model, 4, tokens))
    for rows in (16, 64):
        many = requests(model, rows, tokens)
        ours, what = partial(_batch, model, many), f"generate --batch, {rows} prompts"
        yield Pair(what, "hftool, one by one", "tokens", ours, few)
        beside = partial(_transformers, model, many, tokens)
        yield Pair(what, f"transformers' generate, {rows} rows", "tokens", ours, beside)


def _unequal(model: LanguageModel, tokens: int) -> Iterator[Pair]:
    """Yield 64 prompts of 8 to 256 tokens, and 128 texts of 1 to twice as many tokens, beside equal
    ones with as many tokens in all."""
    ids = model.tokenizer.encode(" ".join(PROMPTS) * 20, special=True).ids
    draw = random.Random(1)
    lengths = [8 + 248 * i // 63 for i in range(64)]
    texts = [1 + (2 * tokens - 2) * i // 127 for i in range(128)]
    for what, prompts, counts in (
        ("64 prompts of unequal lengths", lengths, [tokens] * 64),
        ("128 texts of unequal lengths", [24] * 128, texts),
    ):
        unequal = list(zip(prompts, counts, strict=True))
        draw.shuffle(unequal)
        same = (sum(prompts) // len(prompts), sum(counts) // len(counts))
        yield Pair(
            what,
            "equal ones",
            "tokens",
            partial(_records, model, _endless(ids, unequal)),
            partial(_records, model, _endless(ids, [same] * len(unequal))),
        )


def _endless(ids: Sequence[int], lengths: Sequence[tuple[int, int]]) -> list[Request]:
    """Return requests with prompts and texts of so many tokens."""
    return [
        Request(
            "",
            tuple(ids[i % 50 : i % 50 + prompt]),
            SamplingSettings(greedy=False, seed=i, top_k=50, ignore_eos=True),
            count,
            index=i,
        )
        for i, (prompt, count) in enumerate(lengths)
    ]


def _records(model: LanguageModel, asked: list[Request]) -> int:
    records = generate_batch(model, asked)
    return sum(r.completion_tokens for r in records if isinstance(r, Generation))


def large(tokens: int) -> Iterator[Pair]:
    """Yield a model of a billion random weights, quantized; at last its start."""
    with tempfile.TemporaryDirectory() as folder:
        gguf = save_random_model(Path(folder))
        for bits in BITS:
            options = LoadOptions(model=folder, device="cpu", offline=True, quantize=bits)
            model = load_language_model(options)
            yield from _quantized(model, bits, gguf, tokens, "a billion")
        yield starting.large(folder, quantized_bytes(model))


def _quantized(
    model: LanguageModel, bits: Quantization, gguf: Path, tokens: int, name: str
) -> Iterator[Pair]:
    """Yield a quantized model beside a plain read of its weights, and beside llama.cpp's formats of
    the same GGUF file: a greedy continuation, and a long prompt."""
    [one] = requests(model, 1, tokens)
    greedy = replace(one, settings=SamplingSettings(greedy=True, seed=None))
    prompt = replace(greedy, ids=one.ids * (LONG // len(one.ids)), max_new_tokens=1)
    decode = partial(alone, model, [greedy])
    prefill = partial(prefilled, prompt, partial(alone, model, [prompt]))
    count = decode()  # the others generate as many
    what = f"generate --quantize {bits}, {name}"
    yield Pair(what, "a plain read of its weights", "tokens", decode, reads(model, count))
    if not has_llama_cpp():
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind in FORMATS[bits]:
            run = llama_cpp_runs(requantized(gguf, kind, Path(folder)))
            other = f"llama.cpp, {kind}"
            yield Pair(what, other, "tokens", decode, partial(run, greedy.ids, count))
            theirs = partial(prefilled, prompt, partial(run, prompt.ids, 1))
            long = f"a prompt of {LONG:,} tokens, {bits}, {name}"
            yield Pair(long, other, "tokens", prefill, theirs)


def prefilled(request: Request, run: Callable[[], int]) -> int:
    """Compute a prompt, and return the number of its tokens."""
    run()
    return len(request.ids)


def requests(model: LanguageModel, count: int, tokens: int) -> list[Request]:
    """Return `count` requests of a few different prompts, to be sampled."""
    found = []
    for i in range(count):
        prompt = PROMPTS[i % len(PROMPTS)]
        ids = tuple(model.tokenizer.encode(prompt, special=True).ids)
        settings = SamplingSettings(greedy=False, seed=i, top_k=50)
        found.append(Request(prompt, ids, settings, tokens))
    return found


def alone(model: LanguageModel, asked: list[Request]) -> int:
    """Answer one request after the other, and return the number of tokens."""
    count = 0
    for request in asked:
        *_, record = generate(model, request)
        assert isinstance(record, Generation)
        count += record.completion_tokens
    return count


def _batch(model: LanguageModel, asked: list[Request]) -> int:
    records = generate_side_by_side(model, asked)
    return sum(r.completion_tokens for _, r in records if isinstance(r, Generation))


@cache
def _own_class(name: str) -> LanguageModel:
    options = LoadOptions(model=name, device="cpu", offline=True)
    return load_language_model(options, fast=False)


def _transformers(model: LanguageModel, asked: list[Request], tokens: int) -> int:
    """Sample with the same filters, padded on the left; return the number of tokens."""
    width = max(len(request.ids) for request in asked)
    end = min(model.end_ids)
    padded = [[end] * (width - len(r.ids)) + list(r.ids) for r in asked]
    mask = [[0] * (width - len(r.ids)) + [1] * len(r.ids) for r in asked]
    found: Any = _own_class(model.name).model.generate(
        torch.tensor(padded), attention_mask=torch.tensor(mask), max_new_tokens=tokens,
        do_sample=True, top_k=50, pad_token_id=end,
    )  # fmt: skip
    new = found[:, width:]
    # Up to the first end-of-sequence token of each row, which counts.
    lengths = [(row == end).nonzero()[:1, 0].tolist() or [len(row) - 1] for row in new]
    return sum(last + 1 for [last] in lengths)

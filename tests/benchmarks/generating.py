"""Benchmarks of generation: batches, single prompts and transformers' own `generate`."""

import importlib
import importlib.util
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
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
from tests.benchmarks.pairs import Pair

LONG, LONGEST = 1000, 5500  # tokens
PROMPTS = ("Once upon a time", "The capital of France is", "A good way to cook rice is", "In 1969")


def pairs(tokens: int) -> Iterator[Pair]:
    """Yield SmolLM2 with the dtype of `auto` and quantized, on one prompt, long ones, 16 and 64."""
    model = load_language_model(LoadOptions(device="cpu", offline=True))
    one = _requests(model, 1, tokens)
    long, longest = (
        replace(one[0], ids=one[0].ids * (count // len(one[0].ids)), max_new_tokens=1)
        for count in (LONG, LONGEST)
    )
    other = "transformers' generate"
    beside = partial(_transformers, model, one, tokens)
    yield Pair("generate, one prompt", other, "tokens", partial(_alone, model, one), beside)
    for prompt in (long, longest):
        prefill = partial(_prefilled, prompt)
        yield Pair(
            f"a prompt of {len(prompt.ids):,} tokens",
            other,
            "tokens",
            partial(prefill, partial(_alone, model, [prompt])),
            partial(prefill, partial(_transformers, model, [prompt], 1)),
        )
    quantizations: tuple[Quantization, ...] = ("int8", "int4")
    for bits in quantizations:
        quantized = load_language_model(LoadOptions(device="cpu", offline=True, quantize=bits))
        ours = partial(_alone, quantized, one)
        yield Pair(f"generate --quantize {bits}", other, "tokens", ours, beside)
        if importlib.util.find_spec("llama_cpp"):  # never a dependency: it compiles for minutes
            yield from _beside_llama_cpp(quantized, bits, one[0], long)
    yield from _unequal(model, tokens)
    few = partial(_alone, model, _requests(model, 4, tokens))
    for rows in (16, 64):
        many = _requests(model, rows, tokens)
        ours, what = partial(_batch, model, many), f"generate --batch, {rows} prompts"
        yield Pair(what, "hftool, one by one", "tokens", ours, few)
        beside = partial(_transformers, model, many, tokens)
        yield Pair(what, f"transformers' generate, {rows} rows", "tokens", ours, beside)


def _unequal(model: LanguageModel, tokens: int) -> Iterator[Pair]:
    """Yield 64 prompts of 8 to 256 tokens, and 256 texts of 1 to twice as many tokens, beside equal
    ones with as many tokens in all."""
    ids = model.tokenizer.encode(" ".join(PROMPTS) * 20, special=True).ids
    draw = random.Random(1)
    lengths = [8 + 248 * i // 63 for i in range(64)]
    texts = [1 + (2 * tokens - 2) * i // 255 for i in range(256)]
    for what, prompts, counts in (
        ("64 prompts of unequal lengths", lengths, [tokens] * 64),
        ("256 texts of unequal lengths", [24] * 256, texts),
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


def _records(model: LanguageModel, requests: list[Request]) -> int:
    records = generate_batch(model, requests)
    return sum(r.completion_tokens for r in records if isinstance(r, Generation))


def _beside_llama_cpp(
    model: LanguageModel, bits: Quantization, request: Request, long: Request
) -> Iterator[Pair]:
    """Yield a quantized model and llama.cpp on the same GGUF file of Q4_1 weights: a greedy
    continuation, and a long prompt."""
    source = resolve_reference("smollm2")
    assert isinstance(source, GgufFile)
    llama: Any = importlib.import_module("llama_cpp").Llama(
        str(source.path), n_ctx=2048, n_threads=torch.get_num_threads(), verbose=False
    )

    def evaluated(ids: Sequence[int], count: int) -> int:
        llama.reset()
        tokens = llama.generate(list(ids), temp=0.0)
        return len(list(islice(tokens, count)))

    greedy = replace(request, settings=SamplingSettings(greedy=True, seed=None))
    ours = partial(_alone, model, [greedy])
    count = ours()  # llama.cpp generates as many
    other, prefill = "llama.cpp, Q4_1", partial(_prefilled, long)
    theirs = partial(evaluated, greedy.ids, count)
    yield Pair(f"generate --quantize {bits}, greedy", other, "tokens", ours, theirs)
    yield Pair(
        f"a prompt of {len(long.ids):,} tokens, {bits}",
        other,
        "tokens",
        partial(prefill, partial(_alone, model, [long])),
        partial(prefill, partial(evaluated, long.ids, 1)),
    )


def _prefilled(request: Request, run: Callable[[], int]) -> int:
    run()
    return len(request.ids)


def _requests(model: LanguageModel, count: int, tokens: int) -> list[Request]:
    found = []
    for i in range(count):
        prompt = PROMPTS[i % len(PROMPTS)]
        ids = tuple(model.tokenizer.encode(prompt, special=True).ids)
        settings = SamplingSettings(greedy=False, seed=i, top_k=50)
        found.append(Request(prompt, ids, settings, tokens))
    return found


def _alone(model: LanguageModel, requests: list[Request]) -> int:
    count = 0
    for request in requests:
        *_, record = generate(model, request)
        assert isinstance(record, Generation)
        count += record.completion_tokens
    return count


def _batch(model: LanguageModel, requests: list[Request]) -> int:
    records = generate_side_by_side(model, requests)
    return sum(r.completion_tokens for _, r in records if isinstance(r, Generation))


def _transformers(model: LanguageModel, requests: list[Request], tokens: int) -> int:
    """Sample with the same filters, padded on the left; return the number of tokens."""
    width = max(len(request.ids) for request in requests)
    end = min(model.end_ids)
    padded = [[end] * (width - len(r.ids)) + list(r.ids) for r in requests]
    mask = [[0] * (width - len(r.ids)) + [1] * len(r.ids) for r in requests]
    found: Any = model.transformers_model.generate(
        torch.tensor(padded), attention_mask=torch.tensor(mask), max_new_tokens=tokens,
        do_sample=True, top_k=50, pad_token_id=end,
    )  # fmt: skip
    new = found[:, width:]
    # Up to the first end-of-sequence token of each row, which counts.
    lengths = [(row == end).nonzero()[:1, 0].tolist() or [len(row) - 1] for row in new]
    return sum(last + 1 for [last] in lengths)

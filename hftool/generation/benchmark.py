"""Measure how fast a model is on this machine, in each precision that it can compute in."""

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace

import torch

from hftool.errors import HftoolError
from hftool.generation.batch import generate_side_by_side
from hftool.generation.generate import generate
from hftool.generation.prefix_cache import CachedModel
from hftool.generation.records import Generation, Request
from hftool.generation.sampling import SamplingSettings
from hftool.models.device import choose_device
from hftool.models.language_model import LanguageModel
from hftool.models.load import auto_class, load_language_model
from hftool.models.local_files import ensure_local
from hftool.models.references import resolve_reference
from hftool.options.bench import BenchOptions
from hftool.options.model import Dtype, LoadOptions, Quantization

CPU_PRECISIONS = ("float32", "bfloat16", "int8", "int4")
GPU_PRECISIONS = ("bfloat16", "float16")


@dataclass(frozen=True)
class Speed:
    """Tokens per second: the mean of several runs, and their standard deviation (0 for one run)."""

    mean: float
    deviation: float


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The speed of a model in one precision.

    Attributes:
        precision: a dtype, or int8 or int4.
        load_seconds: the time that loading takes in a new process, imports included.
        memory_bytes: the most memory the process held; on a CUDA device, what it held there.
        prefill: reading a prompt of `prompt_tokens`.
        decode: generating `new_tokens` one by one.
        batch: the same for `batch_size` texts side by side, all texts together.
        error: why there are no numbers; None if there are.
    """

    precision: str
    device: str
    threads: int
    prompt_tokens: int
    new_tokens: int
    batch_size: int
    load_seconds: float | None = None
    memory_bytes: int | None = None
    prefill: Speed | None = None
    decode: Speed | None = None
    batch: Speed | None = None
    error: str | None = None


def benchmarks(load: LoadOptions, options: BenchOptions) -> Iterator[Benchmark]:
    """Yield the speed of a model in each precision: the one that `load` names, or all.

    Each is measured in a process of its own, so that its memory is its own.

    Raises:
        HftoolError: it is not a language model, or can't be loaded in any precision.
    """
    folder = ensure_local(resolve_reference(load.model), "model", load, load.model)
    auto_class(folder, load.model, load.trust_remote_code)
    errors = []
    precisions = _precisions(load)
    for precision in precisions:
        try:
            yield _in_new_process(_in_precision(load, precision), options, precision)
        except HftoolError as error:
            errors.append(error)
            yield _record(load, options, precision, error=error.message)
    if len(errors) == len(precisions):
        raise errors[0]


def _precisions(load: LoadOptions) -> Sequence[str]:
    if load.quantize != "none":
        return (load.quantize,)
    if load.dtype != "auto":
        return (load.dtype,)
    return CPU_PRECISIONS if choose_device(load.device).type == "cpu" else GPU_PRECISIONS


def _in_precision(load: LoadOptions, precision: str) -> LoadOptions:
    quantizations: tuple[Quantization, ...] = ("int8", "int4")
    for quantization in quantizations:
        if precision == quantization:
            return replace(load, quantize=quantization)
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16", "float16")
    return replace(load, dtype=next(dtype for dtype in dtypes if dtype == precision))


def _in_new_process(load: LoadOptions, options: BenchOptions, precision: str) -> Benchmark:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        try:
            return pool.submit(_measured, load, options, precision).result()
        except BrokenProcessPool:
            raise HftoolError("the process was ended, perhaps for want of memory") from None


def _measured(load: LoadOptions, options: BenchOptions, precision: str) -> Benchmark:
    began = time.perf_counter()
    language_model = load_language_model(load)
    load_seconds = time.perf_counter() - began
    if language_model.is_encoder_decoder:
        raise HftoolError(f"{load.model} is an encoder-decoder, which bench does not measure")
    [request] = _requests(language_model, options, 1)
    prompt = _requests(language_model, options, 1, options.prompt_tokens)[0].ids
    rows = _requests(language_model, options, options.batch_size)
    prefill = _speed(lambda: _read(language_model, prompt), options.repeats)
    decode = _speed(lambda: _alone(language_model, request), options.repeats)
    batch = _speed(lambda: _side_by_side(language_model, rows), options.repeats)
    return _record(
        load,
        options,
        precision,
        load_seconds=load_seconds,
        memory_bytes=_peak_memory(language_model.model.device),
        prefill=prefill,
        decode=decode,
        batch=batch,
    )


def _record(
    load: LoadOptions,
    options: BenchOptions,
    precision: str,
    *,
    load_seconds: float | None = None,
    memory_bytes: int | None = None,
    prefill: Speed | None = None,
    decode: Speed | None = None,
    batch: Speed | None = None,
    error: str | None = None,
) -> Benchmark:
    return Benchmark(
        precision=precision,
        device=str(choose_device(load.device)),
        threads=torch.get_num_threads(),
        prompt_tokens=options.prompt_tokens,
        new_tokens=options.new_tokens,
        batch_size=options.batch_size,
        load_seconds=load_seconds,
        memory_bytes=memory_bytes,
        prefill=prefill,
        decode=decode,
        batch=batch,
        error=error,
    )


def _requests(
    language_model: LanguageModel, options: BenchOptions, count: int, tokens: int = 1
) -> list[Request]:
    """Return requests with prompts of random tokens, each answered with `new_tokens` tokens."""
    generator = torch.Generator().manual_seed(0)
    size = min(len(language_model.tokenizer.backend.get_vocab()), language_model.embedding_rows)
    drawn = torch.randint(size, (count, tokens), generator=generator).tolist()
    settings = SamplingSettings(greedy=True, seed=None, ignore_eos=True)
    return [Request("", tuple(ids), settings, options.new_tokens) for ids in drawn]


def _speed(run: Callable[[], int], repeats: int) -> Speed:
    """Return the speed of `run`, which returns a number of tokens; the first run warms up."""
    run()
    speeds = []
    for _ in range(repeats):
        began = time.perf_counter()
        tokens = run()
        speeds.append(tokens / (time.perf_counter() - began))
    return Speed(statistics.mean(speeds), statistics.pstdev(speeds))


def _read(language_model: LanguageModel, prompt: Sequence[int]) -> int:
    CachedModel(language_model).next_logits(prompt)
    return len(prompt)


def _alone(language_model: LanguageModel, request: Request) -> int:
    return _count(generate(language_model, request))


def _side_by_side(language_model: LanguageModel, requests: list[Request]) -> int:
    outcomes = [outcome for _, outcome in generate_side_by_side(language_model, requests)]
    if errors := [outcome for outcome in outcomes if isinstance(outcome, HftoolError)]:
        raise errors[0]
    return _count(outcomes)


def _count(records: Iterable[object]) -> int:
    """Return the number of tokens of generated texts."""
    usages = [record.usage for record in records if isinstance(record, Generation)]
    return sum(usage.completion_tokens for usage in usages if usage is not None)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB

"""What quantized models are compared with: llama.cpp, and a plain read of as many bytes."""

import ctypes
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from hftool.models.language_model import LanguageModel
from hftool.nn.quantized_linear import QuantizedLinear

# llama.cpp's formats of about the same size; of 4 bits the fastest and the most usual one.
FORMATS = {"int8": ("Q8_0",), "int4": ("Q4_0", "Q4_K_M")}


def has_llama_cpp() -> bool:
    """Return whether llama-cpp-python is installed; it is never a dependency, because it compiles
    for minutes."""
    return importlib.util.find_spec("llama_cpp") is not None


def requantized(source: Path, kind: str, folder: Path) -> Path:
    """Return a copy of a GGUF file in another format of llama.cpp's, in a folder."""
    llama_cpp: Any = importlib.import_module("llama_cpp")
    path = folder / f"{source.stem}-{kind}.gguf"
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    settings.allow_requantize = True
    call = llama_cpp.llama_model_quantize
    assert call(str(source).encode(), str(path).encode(), ctypes.byref(settings)) == 0
    return path


def llama_cpp_runs(path: Path, threads: int | None = None) -> Callable[[Sequence[int], int], int]:
    """Return a function that continues token ids greedily with a GGUF file, by as many threads as
    torch has unless told otherwise, and returns the number of new tokens."""
    threads = threads or torch.get_num_threads()
    llama: Any = importlib.import_module("llama_cpp").Llama(
        str(path), n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False
    )

    def run(ids: Sequence[int], count: int) -> int:
        llama.reset()
        return len(list(islice(llama.generate(list(ids), temp=0.0), count)))

    return run


def quantized_bytes(model: LanguageModel) -> int:
    """Return the size of a model's quantized weights."""
    decoder = model.model
    linear = [decoder._head]
    for layer in decoder.layers:
        linear += [layer.qkv, layer.out, layer.gate_up, layer.down]
    quantized = [layer for layer in linear if isinstance(layer, QuantizedLinear)]
    return sum(tensor.nbytes for layer in quantized for tensor in layer.parts().values())


def reads(model: LanguageModel, times: int) -> Callable[[], int]:
    """Return a function that reads as many bytes as a model's quantized weights have, `times`
    times."""
    numbers = torch.ones(quantized_bytes(model) // 4)

    def run() -> int:
        for _ in range(times):
            numbers.sum()
        return times

    return run

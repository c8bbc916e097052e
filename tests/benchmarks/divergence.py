"""How far precisions of SmolLM2 are from float32, hftool's beside llama.cpp's: KL divergence and
perplexity on the sentences of a file, a sentence a line.

    python -m tests.benchmarks.divergence sentences.txt

hftool's precisions are compared by `hftool score --against smollm2`. llama.cpp (llama-cpp-python)
quantizes the same weights, and its logits are compared with hftool's in float32 in the same way.
With `--rotated` they are those of `rotated_model.py`.
"""

import argparse
import ctypes
import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from hftool.generation.comparison import TextComparison, summarized
from hftool.generation.token_measures import compared
from hftool.models.language_model import LanguageModel
from hftool.models.load import load_language_model
from hftool.models.references import GgufFile, resolve_reference
from hftool.options.model import ExactLoadOptions
from tests.benchmarks.rotated_model import save_rotated_model

OURS = (("--dtype", "bfloat16"), ("--quantize", "int8"), ("--quantize", "int4"))
# llama.cpp's numbers of file types.
FORMATS = {"F32": 0, "Q8_0": 7, "Q4_1": 3, "Q4_0": 2, "Q4_K_M": 15}


def main() -> None:
    """Print a row for each precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sentences", type=Path)
    parser.add_argument("--rotated", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.rotated:
            _compare(options.sentences, folder, save_rotated_model(Path(folder)))
        else:
            source = resolve_reference("smollm2")
            assert isinstance(source, GgufFile)
            _compare(options.sentences, "smollm2", source.path)


def _compare(path: Path, reference: str, weights: Path) -> None:
    """Compare the precisions of a model that is also in a GGUF file."""
    for options in OURS:
        command = (sys.executable, "-m", "hftool", "score", "-f", str(path), *options)
        both = ("-m", reference, "--against", reference, "--json")
        answer = subprocess.check_output((*command, *both), text=True)
        _show(f"hftool {options[-1]}", json.loads(answer)[0])
    load = ExactLoadOptions(model=reference, device="cpu", dtype="float32", offline=True)
    model = load_language_model(load)
    encodings = (model.tokenizer.encode(line, True) for line in path.read_text().splitlines())
    texts = [encoding.ids for encoding in encodings]
    with tempfile.TemporaryDirectory() as folder:
        exact = Path(folder, "F32.gguf")
        for name, number in FORMATS.items():
            quantized = Path(folder, f"{name}.gguf")
            _quantize(exact if exact.exists() else weights, quantized, number)
            theirs: Any = SimpleNamespace(name=name, model=model.model)
            record = next(summarized(_comparisons(model, quantized, texts), load, theirs, model))
            _show(f"llama.cpp {name}", asdict(record))


def _quantize(source: Path, target: Path, file_type: int) -> None:
    llama_cpp: Any = importlib.import_module("llama_cpp")
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.allow_requantize = file_type, True
    names = (str(source).encode(), str(target).encode())
    assert llama_cpp.llama_model_quantize(*names, ctypes.byref(settings)) == 0


def _comparisons(
    model: LanguageModel, path: Path, texts: Sequence[Sequence[int]]
) -> Iterator[TextComparison]:
    """Yield the comparison of each text's tokens by llama.cpp with those of the model."""
    llama_cpp: Any = importlib.import_module("llama_cpp")
    threads = torch.get_num_threads()
    llama = llama_cpp.Llama(
        str(path), n_ctx=512, n_threads=threads, n_threads_batch=threads,
        logits_all=True, verbose=False,
    )  # fmt: skip
    for ids in texts:
        llama.reset()
        llama.eval(list(ids))
        logits = torch.from_numpy(llama.scores[: len(ids) - 1].copy())
        with torch.inference_mode():
            exact = model.forward(torch.tensor([list(ids[:-1])]))[0]
        yield TextComparison(compared(ids[1:], logits, exact), {})


def _show(name: str, record: dict[str, Any]) -> None:
    print(
        f"{name:16} tokens {record['tokens']}"
        f"  KL {record['divergence']:.5f} ± {record['divergence_error']:.5f}"
        f"  99 % {record['divergence_quantile_99']:.4f}  same {record['same_best']:.4f}"
        f"  perplexity {record['against_perplexity']:.2f}"
        f" {record['perplexity_difference']:+.2f} ± {record['perplexity_difference_error']:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()

"""Other engines for a classifier, with their usual settings: OpenVINO and ONNX Runtime.

Neither is a dependency. Both get batches of about 1,024 tokens, sorted by length, and compute one
on each core.
"""

import importlib
import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification

BATCH_TOKENS = 1024
CALIBRATION_TEXTS = 300  # of the same kind as those to classify, for OpenVINO's int8

Precision = str  # float32, bfloat16 or int8
Inputs = list[np.ndarray[Any, Any]]  # token ids and mask [sequences, tokens]
Run = Callable[[Inputs], np.ndarray[Any, Any]]  # gives logits [sequences, labels]


def engines(
    folder: Path, precision: Precision, texts: Sequence[str]
) -> Iterator[tuple[str, Callable[[Sequence[str]], list[int]]]]:
    """Yield each engine that is installed and computes in this precision, and a function that
    returns the index of each text's label.

    Args:
        texts: to calibrate with.
    """
    installed = {name for name in ("openvino", "onnxruntime", "nncf") if _has(name)}
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(512)
    tokenizer.no_padding()
    if "openvino" in installed and (precision != "int8" or "nncf" in installed):
        calibration = [_arrays([tokenizer.encode(text).ids]) for text in texts[:CALIBRATION_TEXTS]]
        run = _openvino(folder, precision, calibration)
        yield "OpenVINO", _labels_by(tokenizer, run)
    if "onnxruntime" in installed and precision != "bfloat16":
        yield "ONNX Runtime", _labels_by(tokenizer, _onnx_runtime(folder, precision))


def _has(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _labels_by(tokenizer: Tokenizer, run: Run) -> Callable[[Sequence[str]], list[int]]:
    def labels(texts: Sequence[str]) -> list[int]:
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
        found = [0] * len(ids)

        def compute(batch: list[int]) -> None:
            for index, logits in zip(batch, run(_arrays([ids[i] for i in batch])), strict=True):
                found[index] = int(logits.argmax())

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(compute, list(_batches(ids))[::-1]))
        return found

    return labels


def _batches(ids: Sequence[list[int]]) -> Iterator[list[int]]:
    batch: list[int] = []
    for index in sorted(range(len(ids)), key=lambda i: len(ids[i])):
        if batch and (len(batch) + 1) * len(ids[index]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    yield batch


def _arrays(rows: Sequence[list[int]]) -> Inputs:
    width = max(map(len, rows))
    ids = np.array([row + [0] * (width - len(row)) for row in rows], np.int64)
    return [ids, np.array([[i < len(row) for i in range(width)] for row in rows], np.int64)]


class _Logits(torch.nn.Module):
    def __init__(self, folder: Path, attention: str) -> None:
        super().__init__()
        self.model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, attn_implementation=attention
        ).eval()

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        return self.model(input_ids=ids, attention_mask=mask).logits


EXAMPLE = (torch.ones(2, 9, dtype=torch.long), torch.ones(2, 9, dtype=torch.long))


def _openvino(folder: Path, precision: Precision, calibration: list[Inputs]) -> Run:
    openvino: Any = importlib.import_module("openvino")
    with torch.no_grad():
        model = openvino.convert_model(_Logits(folder, "sdpa"), example_input=EXAMPLE)
    if precision == "int8":
        nncf: Any = importlib.import_module("nncf")
        model = nncf.quantize(
            model, nncf.Dataset(calibration), model_type=nncf.ModelType.TRANSFORMER
        )
    threads = torch.get_num_threads()
    settings = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        "INFERENCE_PRECISION_HINT": "f32" if precision == "float32" else "bf16",
    }
    compiled = openvino.Core().compile_model(model, "CPU", settings)

    def run(inputs: Inputs) -> np.ndarray[Any, Any]:
        request = compiled.create_infer_request()
        return np.array(request.infer(inputs)[0])

    return run


def _onnx_runtime(folder: Path, precision: Precision) -> Run:
    onnxruntime: Any = importlib.import_module("onnxruntime")
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "model.onnx"
        torch.onnx.export(
            _Logits(folder, "eager"), EXAMPLE, path, input_names=["ids", "mask"], dynamo=False,
            dynamic_axes={name: {0: "sequences", 1: "tokens"} for name in ("ids", "mask")},
        )  # fmt: skip
        if precision == "int8":
            quantization: Any = importlib.import_module("onnxruntime.quantization")
            source, path = path, Path(place) / "int8.onnx"
            quantization.quantize_dynamic(source, path, per_channel=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # as many runs at a time as there are cores
        session = onnxruntime.InferenceSession(str(path), options)

    def run(inputs: Inputs) -> np.ndarray[Any, Any]:
        return np.array(session.run(None, dict(zip(("ids", "mask"), inputs, strict=True)))[0])

    return run

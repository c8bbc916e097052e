"""Every command that runs a model, on a GPU: `make test-gpu`.

What a GPU rounds in float16 and bfloat16 differs from a CPU, so probabilities are compared with a
tolerance, and texts with transformers' own on the same device.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.conftest import run
from tests.tiny_models import (
    save_classifier,
    save_model,
    transformers_model,
    transformers_tokenizer,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DEVICE = ("--device", "cuda:0", "--offline")
PROMPT = "To be"
OFF = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.15}


@pytest.fixture(scope="module", params=["llama", "gemma3", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), request.param)


def records(*arguments: str, folder: Path) -> list[dict[str, Any]]:
    done = run(*arguments, "-m", str(folder), *DEVICE, "--format", "jsonl")
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def greedy(folder: Path, dtype: str, prompt: str, tokens: int) -> list[int]:
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(folder, dtype=getattr(torch, dtype)).eval().to("cuda:0")
    ids = torch.tensor([ids_of(folder, prompt)], device="cuda:0")
    found = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False
    )
    return [int(i) for i in found[0, ids.shape[1] :]]


def ids_of(folder: Path, text: str) -> list[int]:
    ids: list[int] = transformers_tokenizer(folder)(text)["input_ids"]
    return ids


@pytest.mark.parametrize("dtype", OFF)
@torch.inference_mode()
def test_topk_and_score(folder: Path, dtype: str) -> None:
    ids = ids_of(folder, PROMPT)
    logits = transformers_model(folder)(torch.tensor([ids])).logits[0].float()
    expected = torch.softmax(logits[-1], -1)
    for token in records("topk", PROMPT, "-k", "5", "--dtype", dtype, folder=folder):
        assert token["prob"] == pytest.approx(float(expected[token["id"]]), abs=OFF[dtype])
    [score] = records("score", PROMPT, "--by", "text", "--dtype", dtype, folder=folder)
    rows = torch.log_softmax(logits[:-1].double(), -1)
    wanted = sum(float(row[i]) for row, i in zip(rows, ids[1:], strict=True))
    assert score["logprob"] == pytest.approx(wanted, rel=OFF[dtype], abs=OFF[dtype])


@pytest.mark.parametrize("dtype", OFF)
def test_generate(folder: Path, dtype: str) -> None:
    asked = ("--greedy", "-n", "12", "--logprobs", "--dtype", dtype)
    [record] = records("generate", PROMPT, *asked, folder=folder)
    found = [token["id"] for token in record["logprobs"]]
    assert found == greedy(folder, dtype, PROMPT, 12)[: len(found)]
    beams = ("-n", "8", "--num-beams", "3", "--dtype", dtype)
    assert records("generate", PROMPT, *beams, folder=folder)[0]["text"] is not None


def test_a_batch(folder: Path, tmp_path: Path) -> None:
    prompts = ["a", "To be or not to be", "What"]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": p, "greedy": True}) + "\n" for p in prompts))
    asked = ("--batch", str(file), "-n", "6", "--dtype", "float32")
    together = records("generate", *asked, folder=folder)
    for prompt, record in zip(prompts, together, strict=True):
        alone = ("--greedy", "-n", "6", "--dtype", "float32")
        [expected] = records("generate", prompt, *alone, folder=folder)
        assert record["text"] == expected["text"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sample_and_chat(folder: Path, dtype: str) -> None:
    steps = records(
        "sample", PROMPT, "--steps", "4", "--seed", "1", "--dtype", dtype, folder=folder
    )
    assert steps and all(0 < step["prob"] <= 1 for step in steps)
    done = run("chat", "-m", str(folder), *DEVICE, "--dtype", dtype, "-n", "4", stdin=b"hello\n")
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize("dtype", OFF)
def test_sentiment(tmp_path: Path, dtype: str) -> None:
    folder = save_classifier(tmp_path / "classifier")
    texts = ("good", "a bad film, really", "so so")
    expected = [
        json.loads(line)["score"]
        for line in run(
            "sentiment", *texts, "-m", str(folder), "--format", "jsonl"
        ).stdout.splitlines()
    ]
    found = records("sentiment", *texts, "--dtype", dtype, folder=folder)
    for record, score in zip(found, expected, strict=True):
        assert record["score"] == pytest.approx(score, abs=OFF[dtype])


def test_quantized_weights_need_a_cpu(folder: Path) -> None:
    done = run("topk", PROMPT, "-m", str(folder), *DEVICE, "--quantize", "int8")
    assert done.exit_code == 1
    assert "needs a CPU" in done.stderr


def test_too_little_memory(folder: Path) -> None:
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        torch.cuda.empty_cache()
        done = run("topk", PROMPT, "-m", str(folder), *DEVICE)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert done.exit_code == 1
    assert "memory" in done.stderr and "Traceback" not in done.stderr
    assert math.isfinite(torch.ones(1, device="cuda:0").item())

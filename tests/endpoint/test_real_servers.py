"""Servers that others have made, where they are installed: `transformers serve` and
llama-cpp-python's."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from hftool.catalogue import BUILT_IN
from hftool.models.references import embedded_file
from tests import tiny_models
from tests.conftest import run

pytestmark = pytest.mark.slow


@contextmanager
def started(*modules: str, arguments: list[str], cache: Path) -> Iterator[str]:
    """Start a server with a port, and yield its address."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, *arguments, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
    )
    try:
        for _ in range(600):
            assert process.poll() is None
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models").close()
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def record(address: str, command: str, *arguments: str) -> Any:
    result = run(command, "-m", address, *arguments, "--format", "jsonl")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[0])


def test_transformers_serve(tiny: Path, tmp_path: Path) -> None:
    program = "import sys; sys.argv[0] = 'transformers'; from transformers.cli.transformers import"
    arguments = ["-c", f"{program} main; main()", "serve", "--dtype", "float32", "--device", "cpu"]
    with started("fastapi", "uvicorn", "openai", arguments=arguments, cache=tmp_path) as url:
        address = f"{url}#{tiny}"
        greedy = ("-n", "6", "--greedy")
        text = record(address, "generate", "a cat", *greedy)["text"]
        model, tokenizer = (
            tiny_models.transformers_model(tiny),
            tiny_models.transformers_tokenizer(tiny),
        )
        new = tiny_models.greedy_ids(model, tokenizer("a cat")["input_ids"], 6)
        assert text == tokenizer.decode(new, skip_special_tokens=True)
        # Only the most probable token is left, so that sampling has no choice.
        assert record(address, "generate", "a cat", "-n", "6", "--top-k", "1")["text"] == text
        chat = [record(address, "generate", "--chat", "Hi", "-n", "6", "--seed", "3") for _ in "ab"]
        assert chat[0]["text"] == chat[1]["text"] and chat[0]["usage"]["completion_tokens"] <= 6
        for option in (["--frequency-penalty", "1"], ["--regex", "a"]):
            refused = run("generate", "-m", address, "a cat", *option)
            assert refused.exit_code == 1 and f"does not know {option[0]}" in refused.stderr
        for command in (["generate", "--logprobs"], ["topk"], ["sample"], ["score"]):
            refused = run(*command, "-m", address, "a cat")
            assert refused.exit_code == 1 and "gives no log-probabilities" in refused.stderr


def test_llama_cpp_python(tmp_path: Path) -> None:
    embedded = BUILT_IN["smollm2"].embedded
    file = embedded and embedded_file(embedded)
    if file is None:
        pytest.skip("SmolLM2's file is not installed")
    arguments = ["-m", "llama_cpp.server", "--model", str(file), "--logits_all", "True"]
    arguments += ["--n_ctx", "512"]
    with started("llama_cpp", "fastapi", arguments=arguments, cache=tmp_path) as url:
        prompt = "The capital of France is"
        best, ours = record(url, "topk", prompt), record("smollm2", "topk", prompt)
        assert best["token"] == ours["token"] == " Paris"
        assert best["prob"] == pytest.approx(ours["prob"], abs=0.05)
        step, own = record(url, "sample", prompt), record("smollm2", "sample", prompt)
        assert step["candidates"][0]["token"] == own["candidates"][0]["token"] == " Paris"
        assert step["candidates"][0]["prob"] == pytest.approx(
            own["candidates"][0]["prob"], abs=0.05
        )
        assert 0 < step["unseen"] < 0.3
        made = record(url, "generate", prompt, "-n", "4", "--seed", "5", "--min-p", "0.1")
        assert made["usage"] == {"prompt_tokens": 5, "completion_tokens": 4}
        chosen = record(url, "generate", "Is the sky blue?", "--choice", " Yes", "--choice", " No")
        assert chosen["text"] in (" Yes", " No") and chosen["valid"]
        invent = ("--chat", "Invent a person.", "--schema", "name, age int", "--greedy")
        person = json.loads(record(url, "generate", *invent)["text"])
        assert isinstance(person["name"], str) and isinstance(person["age"], int)
        for option in (["--regex", "a"], ["--top-n-sigma", "1"], ["--schema", "name"]):
            refused = run("generate", "-m", url, "a cat", *option)
            assert refused.exit_code == 1 and f"does not know {option[0]}" in refused.stderr
        labels = run("sentiment", "-m", url, "--labels", "joy,anger", "How dare you!")
        assert labels.exit_code == 1 and "generate --choice LABEL" in labels.stderr
        result = run("score", "-m", url, "--given", prompt, " Paris.")
        if result.exit_code == 0:
            surprisal = float(result.stdout.split("\t")[0])
            own = record("smollm2", "score", "--given", prompt, " Paris.")
            assert surprisal == pytest.approx(own["surprisal"], abs=0.5)
        else:  # 0.3.36
            assert "wrong log-probabilities" in result.stderr

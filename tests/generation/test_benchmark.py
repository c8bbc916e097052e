"""`hftool bench`."""

import json
import time
from pathlib import Path

from tests.conftest import run
from tests.tiny_models import save_model

SMALL = ("--max-new-tokens", "3", "--prompt-tokens", "5", "--batch-size", "2", "--repeats", "2")


def test_each_precision_is_measured(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "llama")
    began = time.perf_counter()
    done = run("bench", "-m", str(folder), *SMALL, "--json")
    seconds = time.perf_counter() - began
    records = json.loads(done.stdout)
    assert [r["precision"] for r in records] == ["float32", "bfloat16", "int8", "int4"]
    measured = [r for r in records if r["error"] is None]
    assert len(measured) >= 3  # the kernels for int4 don't take every shape
    assert sum(r["load_seconds"] for r in measured) < seconds
    for record in measured:
        assert record["memory_bytes"] > 100_000_000  # torch alone takes more
        # Three tokens, three times, in less than all seconds.
        assert record["decode"]["mean"] > 9 / seconds
        assert record["batch"]["deviation"] >= 0


def test_one_precision_as_a_table(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "llama")
    done = run("bench", "-m", str(folder), *SMALL, "--quantize", "int8", "--format", "table")
    _, _, header, row = done.stdout.splitlines()
    assert header.split("  ")[0] == "precision"
    assert "prompt of 5" in header
    assert "3 new" in header
    assert row.startswith("int8")


def test_a_model_that_no_precision_can_load(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "llama")
    (folder / "model.safetensors").write_bytes(b"broken")
    done = run("bench", "-m", str(folder), *SMALL)
    assert done.exit_code == 1
    assert done.stderr.count("Error:") == 1
    assert "Traceback" not in done.stderr


def test_a_classifier_is_refused_before_it_is_measured() -> None:
    done = run("bench", "-m", "minilm-sst2", *SMALL)
    assert done.exit_code == 1
    assert not done.stdout
    assert "is not a language model that generates text" in done.stderr

"""Memory, measured in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiny_models import save_tokenizer

ROWS, CONTEXT = 256_000, 8192
MEASURED = """
import resource, sys
from hftool.cli.app import main
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is tiny but for its vocabulary."""
    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=ROWS,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def peak(folder: Path, text: str, *arguments: str) -> tuple[int, str]:
    """Peak memory of `topk` in megabytes, and what it printed."""
    command = [*("topk", "-m", str(folder), "--dtype", "float32", "--json"), *arguments]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    unit = 1 if sys.platform == "darwin" else 1024
    return int(done.stderr.splitlines()[-1]) * unit // 2**20, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("-k", "3"), ("-k", "1", "--position", "all")])
def test_a_long_prompt_does_not_need_prompt_times_vocabulary(
    arguments: tuple[str, ...], folder: Path
) -> None:
    tokens = 8000 if len(arguments) == 2 else 1000
    few, _ = peak(folder, "a" * 40, *arguments)
    many, out = peak(folder, "ab" * (tokens // 2), *arguments)
    records = json.loads(out)
    assert len(records) == (3 if len(arguments) == 2 else tokens)
    # All logits at once would be 4 bytes each: 8000 tokens 7.6 GB, 1000 tokens 0.95 GB.
    assert many - few < 600


PREFILL = """
import re, sys
from hftool.generation.prefix_cache import CachedModel
from hftool.models.load import load_language_model
from hftool.options.model import LoadOptions

def memory(name):
    with open("/proc/self/status") as file:
        return int(re.search(rf"{name}:\\s+(\\d+)", file.read())[1]) * 1024

model = load_language_model(LoadOptions(device="cpu", offline=True, dtype="bfloat16"))
CachedModel(model).next_logits(list(range(32)))
before = memory("VmRSS")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak starts anew
cached_model = CachedModel(model)
cached_model.next_logits([token % 40_000 for token in range(int(sys.argv[1]))])
print(memory("VmHWM") - before, cached_model._cache.nbytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_long_prompt_needs_little_beside_weights_and_cache() -> None:
    command = [sys.executable, "-c", PREFILL, "8000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rise, cache = map(int, done.stdout.split())
    assert cache == 8000 * 30 * 2 * 3 * 64 * 2  # tokens, layers, both, heads, head_dim, bytes
    weights = 134_515_008 * 2
    # Measured: 8 to 10 MB, 4 of them kernels that oneDNN compiles. One pass takes 113 MB.
    assert rise - cache < 0.025 * (weights + cache)


@pytest.mark.slow
def test_topk_compare_holds_one_model_at_a_time(tmp_path: Path) -> None:
    folders = [str(tmp_path / name) for name in "abc"]
    for seed, name in enumerate(folders):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=ROWS,
            hidden_size=128,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
        LlamaForCausalLM(config).save_pretrained(name)
        save_tokenizer(Path(name))
    # In bfloat16, the weights are in memory (131 MB), and are not pages of the file.
    settings = ("-k", "1", "--dtype", "bfloat16")
    one, _ = peak(Path(folders[0]), "ab", *settings)
    three, out = peak(Path(folders[0]), "ab", *settings, "--compare", ",".join(folders[1:]))
    assert [record["model"] for record in json.loads(out)] == folders
    # Measured: 18 MB. With the previous model still in memory it was 143 MB.
    assert three - one < 70

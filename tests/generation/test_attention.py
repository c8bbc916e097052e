"""Attention: transformers' own weights, computed eagerly, in records and on the page."""

import base64
import json
import re
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import MambaConfig

from tests.conftest import run
from tests.generation.test_layers import PROMPT, SIZES, saved
from tests.tiny_models import SEP, save_model, save_tokenizer

KINDS = {
    "self": "attentions",
    "encoder": "encoder_attentions",
    "decoder": "decoder_attentions",
    "cross": "cross_attentions",
}


def attention(*arguments: str) -> list[dict[str, Any]]:
    done = run("topk", "--attention", "--json", *arguments)
    assert done.exit_code == 0, done.stderr
    records: list[dict[str, Any]] = json.loads(done.stdout)
    return records


def weights_on(page: Path) -> list[tuple[str, np.ndarray[Any, Any]]]:
    """The title and the weights of each map: [layers, heads, queries, keys]."""
    found = re.search(r'id="content">(.*?)</script>', page.read_text("utf-8"))
    assert found
    content = json.loads(found[1])
    numbers = np.frombuffer(zlib.decompress(base64.b64decode(content["data"])), np.uint8) / 255
    maps = []
    for each in content["maps"]:
        shape = (len(each["heads"]), each["heads"][0], len(each["queries"]), len(each["keys"]))
        size = int(np.prod(shape))
        maps.append((each["title"], numbers[:size].reshape(shape)))
        numbers = numbers[size:]
    assert not len(numbers)
    return maps


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "bert", "t5"])
def test_weights_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model = saved(name, tmp_path / "model")
    text = "the [MASK]un" if name == "bert" else PROMPT
    page = tmp_path / "heads.html"
    records = attention(
        text, "-m", str(tmp_path / "model"), "--dtype", "float32", "--save", str(page)
    )
    ids = AutoTokenizer.from_pretrained(tmp_path / "model")(text, return_tensors="pt").input_ids
    begin = {"decoder_input_ids": torch.tensor([[SEP]])} if name == "t5" else {}
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        output = model(input_ids=ids, **begin, output_attentions=True)
    kinds = ["encoder", "decoder", "cross"] if name == "t5" else ["self"]
    assert list(dict.fromkeys(record["attention"] for record in records)) == kinds
    for kind, (_, on_page) in zip(kinds, weights_on(page), strict=True):
        expected = getattr(output, KINDS[kind])
        assert on_page.shape[:2] == (len(expected), expected[0].shape[1])
        for shown, layer in zip(on_page, expected, strict=True):
            assert np.abs(shown - layer[0].numpy()).max() < 0.5 / 255 + 1e-5
        of_kind = [record for record in records if record["attention"] == kind]
        assert len(of_kind) == on_page.shape[0] * on_page.shape[1]
        for record in of_kind:
            head = expected[record["layer"] - 1][0, record["head"] - 1]
            assert record["weights"] == pytest.approx(head[record["position"]].tolist(), abs=1e-5)
            assert sum(record["weights"]) == pytest.approx(1.0, abs=1e-4)
    assert records[0]["position"] == (5 if name == "bert" else len(PROMPT) - 1)


def test_a_position_and_other_formats(tmp_path: Path) -> None:
    folder = str(save_model(tmp_path))
    first, *_ = attention("abcd", "-m", folder, "--position", "1")
    assert (first["position"], first["token"], first["layer"], first["head"]) == (1, "b", 1, 1)
    assert first["weights"][2:] == [0.0, 0.0]  # what comes after is not seen
    arguments = ("topk", "ab", "-m", folder, "--attention", "-k", "1", "--format")
    lines = run(*arguments, "text").stdout.splitlines()
    assert len(lines) == 2 * 4
    assert lines[0].startswith("self\t1\t1\t")
    head, *rows = run(*arguments, "csv").stdout.splitlines()
    assert head == "attention,layer,head,position,token,to,to_token,weight"
    assert len(rows) == 2 * 4 * 2


def test_a_page_of_200_tokens_is_below_5_megabytes(smollm2_folder: Path, tmp_path: Path) -> None:
    text = " ".join(f"word{i} and the {i * i}" for i in range(27))
    page = tmp_path / "heads.html"
    records = attention(text, "--save", str(page))
    assert len(records[0]["weights"]) >= 200
    assert len(records) == 30 * 9
    assert page.stat().st_size < 5_000_000
    assert not re.search(r"(src|href)=|https?:", page.read_text("utf-8"))


def test_a_model_without_attention_is_refused(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    sizes = {
        k: v for k, v in SIZES.items() if k not in ("num_attention_heads", "intermediate_size")
    }
    auto: Any = AutoModelForCausalLM
    auto.from_config(MambaConfig(**sizes, state_size=8)).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    done = run("topk", "ab", "-m", str(tmp_path), "--attention")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "returns no attention" in done.stderr


def test_too_many_tokens_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hftool.generation.attention.MOST_WEIGHTS", 2 * 4 * 25)
    done = run("topk", "abcdef", "-m", str(save_model(tmp_path)), "--attention")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: the prompt has 6 tokens; --attention of ")
    assert done.stderr.splitlines()[0].endswith(" takes 5")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium")
def test_the_page_runs(tmp_path: Path) -> None:
    page = tmp_path / "heads.html"
    records = attention("abcd", "-m", str(save_model(tmp_path / "model")), "--save", str(page))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--virtual-time-budget=5000", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, f"file://{page}"], capture_output=True, text=True, timeout=120, check=True
    )
    shown = re.findall(r"<small>\s*([0-9.]+)\s*</small>", done.stdout.split('id="keys"')[1])
    layer_2 = next(r for r in records if (r["layer"], r["head"]) == (2, 1))
    expected = [w for w in layer_2["weights"] if w > 0.01]
    assert [float(w) for w in shown if float(w) > 0.01] == pytest.approx(expected, abs=0.008)

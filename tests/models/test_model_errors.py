"""Errors in a model's files are one line; those in hftool's own code keep their traceback."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open

from hftool.errors import HftoolError, raised_by_us
from hftool.models.model_errors import loading_errors, model_errors
from hftool.nn import decoder, quantization
from tests.conftest import run
from tests.tiny_models import VOCABULARY, save_classifier, save_model

PROMPT = ("topk", "a", "-m")


def configure(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_bug_in_the_fast_llama_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model(tmp_path)
    bug = TypeError("planted")

    def broken(*arguments: Any) -> None:
        raise bug

    monkeypatch.setattr(decoder, "causal_attention", broken)
    done = run(*PROMPT, str(folder))
    assert done.exception is bug
    assert "config.json" not in done.stderr


def test_a_bug_that_shows_inside_torch_is_ours_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "MLP_CHUNK", "many")  # torch.split, a Python function, rejects it
    done = run(*PROMPT, str(save_model(tmp_path / "model")))
    assert isinstance(done.exception, TypeError | ValueError | RuntimeError), done.exception
    monkeypatch.setattr(torch.nn.functional, "layer_norm", lambda states, *_: states[..., :3])
    done = run("sentiment", "a", "-m", str(save_classifier(tmp_path / "classifier")))
    assert isinstance(done.exception, RuntimeError), done.exception


def test_a_bug_while_a_config_is_read_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "weight_shapes", lambda config: config.nothing)
    done = run(*PROMPT, str(save_model(tmp_path)))
    assert isinstance(done.exception, AttributeError)


def test_a_bug_in_our_layer_of_transformers_model_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "_biased", lambda outputs, bias: outputs.nothing)
    done = run(*PROMPT, str(save_model(tmp_path, "gpt2")), "--quantize", "int8")
    assert isinstance(done.exception, AttributeError)


@pytest.mark.parametrize("values", [{"n_head": 5}, {"activation_function": "nonesuch"}])
def test_a_broken_config_of_a_model_of_transformers_is_one_line(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    folder = save_model(tmp_path, "gpt2")
    configure(folder, **values)
    done = run(*PROMPT, str(folder))
    assert isinstance(done.exception, SystemExit)
    assert done.stderr.startswith(f"Error: cannot load {folder}: ")


def test_a_model_whose_config_contradicts_its_weights_is_one_line(tmp_path: Path) -> None:
    """Gemma fails only while it computes."""
    folder = save_model(tmp_path, "gemma3")
    configure(folder, sliding_window=-3)
    done = run(*PROMPT, str(folder))
    assert isinstance(done.exception, SystemExit), done.exception
    line, hint = done.stderr.splitlines()
    assert line.startswith("Error: the model fails: ")
    assert hint == "Hint: its config.json may not fit its weights"


def test_a_repositorys_own_code_is_not_ours(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    (folder / "code.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class Config(LlamaConfig):\n    model_type = 'own'\n"
        "class Model(LlamaForCausalLM):\n    config_class = Config\n"
        "    def forward(self, *args, **settings):\n        return undefined\n"
    )
    own = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    configure(folder, model_type="own", architectures=["OwnForCausalLM"], auto_map=own)
    done = run(*PROMPT, str(folder), "--trust-remote-code")
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.stderr.startswith("Error: the model fails: NameError: ")


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "bert"])
def test_a_tokenizer_with_more_tokens_than_the_model(tmp_path: Path, architecture: str) -> None:
    is_classifier = architecture == "bert"
    folder = (save_classifier if is_classifier else save_model)(tmp_path, architecture=architecture)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["a"] = 100_000
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    done = run("sentiment" if is_classifier else "topk", "a", "-m", str(folder))
    assert isinstance(done.exception, SystemExit), done.exception
    error, hint = done.stderr.splitlines()
    assert error.startswith(
        "Error: the text has the token id 100000, but the model's embeddings have only"
        f" {VOCABULARY} rows"
    )
    assert hint == "Hint: its tokenizer.json may be that of another model"


def test_libraries_in_c_that_we_call_ourselves(tmp_path: Path) -> None:
    broken = tmp_path / "model.safetensors"
    broken.write_bytes(b"?" * 50)
    with pytest.raises(HftoolError, match="cannot read the weights"), loading_errors(tmp_path):
        safe_open(broken, framework="pt")
    with pytest.raises(HftoolError, match="not enough memory"), model_errors():
        torch.empty(2**50)
    with pytest.raises(HftoolError, match="cannot load"), loading_errors(tmp_path):
        (tmp_path / "gone").read_bytes()


def test_who_raised_an_error() -> None:
    def caught(raising: Any, *arguments: Any) -> BaseException:
        with pytest.raises(Exception) as info:
            raising(*arguments)
        return info.value

    assert raised_by_us(caught(quantization.quantize, 5, "int8"))
    assert not raised_by_us(caught(int, "x"))  # called by a test, not by hftool
    assert not raised_by_us(SafetensorError("never raised"))

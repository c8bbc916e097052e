"""Loading models: they are what their files describe, and what can't be loaded is one line.

The folders are seeded models of a few thousand numbers, broken in one way each.
"""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import Result

from hftool.errors import HftoolError, UsageError
from hftool.generation.resolution import resolve_sampling
from hftool.models import load
from hftool.models.device import choose_device, choose_dtype
from hftool.models.language_model import LanguageModel
from hftool.models.load import load_classifier, load_language_model
from hftool.models.validation import tensor_sizes
from hftool.options.model import ClassifierOptions, ExactLoadOptions, LoadOptions
from hftool.options.sampling import SamplingOptions
from tests.conftest import run
from tests.hub_server import save_classifier, save_llama
from tests.tiny_models import VOCABULARY, save_tokenizer

PROMPT = "the sun"
LOST = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two intact models to copy: llama and bert."""
    folder = tmp_path_factory.mktemp("whole")
    for name, save in (("llama", save_llama), ("bert", save_classifier)):
        (folder / name).mkdir()
        save(folder / name)
    return folder


@pytest.fixture
def llama(whole: Path, tmp_path: Path) -> Path:
    """The folder of a language model, to be broken by a test."""
    return Path(shutil.copytree(whole / "llama", tmp_path / "llama"))


@pytest.fixture
def bert(whole: Path, tmp_path: Path) -> Path:
    """The folder of a classifier, to be broken by a test."""
    return Path(shutil.copytree(whole / "bert", tmp_path / "bert"))


def configure(folder: Path, **values: Any) -> None:
    """Set values in a folder's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def topk(folder: Path | str, *arguments: str) -> Result:
    return run("topk", PROMPT, "-m", str(folder), "-k", "1", "--dtype", "float32", *arguments)


def sentiment(folder: Path | str, *arguments: str) -> Result:
    return run("sentiment", PROMPT, "-m", str(folder), *arguments)


def refusal(result: Result, status: int = 1) -> list[str]:
    """Return the stderr of a command that must fail with one error, and at most one hint."""
    lines = result.stderr.splitlines()
    assert (result.exit_code, result.stdout) == (status, ""), result.stderr
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert lines[0].startswith("Error: ")
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("Hint: "))
    return lines


def test_a_folder_loads_as_it_was_saved(llama: Path) -> None:
    options = LoadOptions(model=str(llama), dtype="float32", device="cpu")
    loaded = load_language_model(options, fast=False)
    saved = load_file(llama / "model.safetensors")
    state = loaded.model.state_dict()
    assert set(state) == set(saved)
    for name, value in saved.items():
        assert torch.equal(state[name], value), name
    assert not loaded.model.training
    assert (loaded.context_length, loaded.end_ids) == (64, frozenset([259]))


def test_a_classifier_loads_with_its_labels(bert: Path) -> None:
    loaded = load_classifier(ClassifierOptions(model=str(bert), device="cpu"))
    assert (loaded.labels, loaded.max_length) == (("DULL", "BRIGHT"), 64)
    assert loaded.activation == "softmax"
    assert loaded.model(input_ids=torch.tensor([[1]])).logits.dtype == torch.float32


def test_labels_with_a_gap(bert: Path) -> None:
    configure(bert, id2label={"0": "DULL", "5": "BRIGHT"})
    line, _ = refusal(sentiment(bert))
    assert line.startswith(f"Error: cannot read {bert}/config.json: its id2label has ")


# The wrong kind of model


@pytest.mark.parametrize("command", ["topk", "generate", "sample"])
def test_a_classifier_is_not_a_language_model(bert: Path, command: str) -> None:
    assert refusal(run(command, PROMPT, "-m", str(bert))) == [
        f"Error: {bert} is not a language model that generates text "
        "(it is a BertForSequenceClassification)",
        "Hint: `sentiment` takes classifiers",
    ]


def test_the_embedded_classifier_is_not_a_language_model(minilm_folder: Path) -> None:
    lines = refusal(topk("minilm-sst2"))
    assert lines[0].startswith("Error: minilm-sst2 is not a language model that generates text")


def test_a_language_model_is_not_a_classifier(smollm2_folder: Path) -> None:
    assert refusal(sentiment("smollm2")) == [
        "Error: smollm2 is not a text classifier (it is a LlamaForCausalLM)",
        "Hint: a language model needs the labels: --labels positive,negative",
    ]


# Weights


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def long_header(data: bytes) -> bytes:
    return (10**12).to_bytes(8, "little") + data[8:]


def garbled_header(data: bytes) -> bytes:
    return data[:8] + b"?" * 40 + data[48:]


@pytest.mark.parametrize("spoil", [cut, long_header, garbled_header, lambda data: b""])
def test_broken_safetensors(llama: Path, spoil: Callable[[bytes], bytes]) -> None:
    weights = llama / "model.safetensors"
    weights.write_bytes(spoil(weights.read_bytes()))
    (line,) = refusal(topk(llama))
    places = (f"the weights in {llama}", f"{llama}/model.safetensors")
    assert line.startswith(tuple(f"Error: cannot read {place}: " for place in places))


def test_missing_weights_are_never_random(llama: Path) -> None:
    weights = load_file(llama / "model.safetensors")
    del weights[LOST]
    save_file(weights, llama / "model.safetensors", metadata={"format": "pt"})
    (line,) = refusal(topk(llama))
    assert line == f"Error: {llama} lacks 1 of the model's weights, such as {LOST}"


def test_a_base_model_does_not_become_a_classifier_with_a_random_head(bert: Path) -> None:
    weights = load_file(bert / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("classifier.")}
    save_file(kept, bert / "model.safetensors", metadata={"format": "pt"})
    (line,) = refusal(sentiment(bert))
    assert line == f"Error: {bert} lacks 2 of the model's weights, such as classifier.bias"


def test_weights_of_another_shape(llama: Path) -> None:
    configure(llama, vocab_size=300)
    (line,) = refusal(topk(llama))
    assert line == (
        f"Error: {llama} has lm_head.weight in the shape [261, 32], "
        "not [300, 32] as its config says"
    )


def test_unneeded_weights_are_reported(llama: Path) -> None:
    before = topk(llama)
    weights = load_file(llama / "model.safetensors")
    weights["model.layers.9.extra"] = torch.zeros(3)
    save_file(weights, llama / "model.safetensors", metadata={"format": "pt"})
    after = topk(llama)
    assert (after.exit_code, after.stdout) == (0, before.stdout)
    assert (
        "does not use 1 of the tensors in its weights, such as model.layers.9.extra" in after.stderr
    )


@pytest.mark.parametrize("index", ["{", "{}", "[]", '{"weight_map": {"a": 5}}'])
def test_a_broken_index(llama: Path, index: str) -> None:
    path = llama / "model.safetensors.index.json"
    (llama / "model.safetensors").rename(llama / "part.safetensors")
    path.write_text(index)
    (line,) = refusal(topk(llama))
    assert line.startswith(f"Error: cannot read {path}: ")


def test_a_missing_shard(llama: Path) -> None:
    (llama / "model.safetensors").rename(llama / "part.safetensors")
    index = {"weight_map": {"a": "part.safetensors", "b": "gone.safetensors"}}
    (llama / "model.safetensors.index.json").write_text(json.dumps(index))
    assert refusal(topk(llama)) == [f"Error: {llama} has no gone.safetensors"]


def test_a_folder_without_weights(llama: Path) -> None:
    (llama / "model.safetensors").unlink()
    assert refusal(topk(llama)) == [f"Error: {llama} has no model.safetensors"]


def test_a_folder_with_only_a_tokenizer(llama: Path) -> None:
    (llama / "config.json").unlink()
    assert refusal(topk(llama)) == [f"Error: {llama} has no config.json"]
    assert run("encode", PROMPT, "-m", str(llama)).exit_code == 0


# Pickled weights and a repository's own code


@pytest.fixture
def pickled(llama: Path) -> Path:
    """`llama` with its weights in pytorch_model.bin."""
    torch.save(load_file(llama / "model.safetensors"), llama / "pytorch_model.bin")
    (llama / "model.safetensors").unlink()
    return llama


def test_pickled_weights_need_trust(whole: Path, pickled: Path) -> None:
    assert refusal(topk(pickled)) == [
        f"Error: {pickled} has no model.safetensors",
        "Hint: its weights are pickled: --trust-remote-code allows those",
    ]
    trusted = topk(pickled, "--trust-remote-code")
    assert trusted.exit_code == 0, trusted.stderr
    assert trusted.stdout == topk(whole / "llama").stdout


class Command:
    """Runs a command where it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("kind", ["cut", "no pickle", "command", "old command"])
def test_broken_or_hostile_pickled_weights(pickled: Path, tmp_path: Path, kind: str) -> None:
    weights = pickled / "pytorch_model.bin"
    harm = {"a": Command(f"touch '{tmp_path / 'harm'}'")}
    if kind == "cut":
        weights.write_bytes(cut(weights.read_bytes()))
    elif kind == "no pickle":
        weights.write_bytes(b"not a pickle" * 20)
    elif kind == "command":
        torch.save(harm, weights)
    else:
        weights.write_bytes(pickle.dumps(harm))
    lines = refusal(topk(pickled, "--trust-remote-code"))
    assert str(pickled) in lines[0]
    assert "weights_only" not in " ".join(lines)  # torch advises to give up safety
    assert not (tmp_path / "harm").exists()


def test_a_repositorys_code_runs_only_with_trust(llama: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (llama / "code.py").write_text(
        f"open({str(ran)!r}, 'w').close()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class Config(LlamaConfig):\n    model_type = 'own'\n"
        "class Model(LlamaForCausalLM):\n    config_class = Config\n"
    )
    own = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    configure(llama, model_type="own", architectures=["OwnForCausalLM"], auto_map=own)
    assert refusal(topk(llama)) == [
        f"Error: cannot load {llama}: it needs the repository's own code",
        "Hint: --trust-remote-code runs that code; read it first",
    ]
    assert run("encode", PROMPT, "-m", str(llama)).exit_code == 0
    assert not ran.exists()
    assert topk(llama, "--trust-remote-code").exit_code == 0
    assert ran.exists()


def test_a_repositorys_code_for_a_known_kind_of_model_is_not_run(
    whole: Path, llama: Path, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    (llama / "code.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    configure(llama, auto_map={"AutoModelForCausalLM": "code.Model"})
    assert topk(llama).stdout == topk(whole / "llama").stdout
    assert not ran.exists()


# config.json


@pytest.mark.parametrize("text", ["{", "", "\x00ÿ", "[]", "null", '"x"', "3"])
def test_a_config_that_is_not_an_object(llama: Path, text: str) -> None:
    (llama / "config.json").write_bytes(text.encode("latin-1"))
    for result in (topk(llama), run("models", "show", str(llama))):
        (line,) = refusal(result)
        assert str(llama / "config.json") in line


def test_an_unknown_architecture(llama: Path) -> None:
    configure(llama, model_type="nonesuch", architectures=["NonesuchForCausalLM"])
    (line,) = refusal(topk(llama))
    assert line.startswith(f"Error: cannot load {llama}: ")
    assert "nonesuch" in line


@pytest.mark.parametrize(
    "values",
    [
        {"hidden_size": "wide"},
        {"hidden_size": -1},
        {"num_hidden_layers": None},
        {"num_attention_heads": 0},
        {"hidden_act": "nonesuch"},
        {"model_type": 5},
        {"architectures": [1], "model_type": "nonesuch"},
        {"eos_token_id": "x"},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"rope_parameters": {"rope_type": "nonesuch"}},
    ],
    ids=lambda values: next(iter(values)),
)
def test_a_wrong_value_in_a_config(llama: Path, values: dict[str, Any]) -> None:
    configure(llama, **values)
    (line,) = refusal(topk(llama))
    assert line.startswith(f"Error: cannot load {llama}: ")


def test_a_quantization_config_that_is_none(llama: Path) -> None:
    configure(llama, quantization_config=7)
    (line,) = refusal(topk(llama))
    assert line == f"Error: {llama}/config.json: quantization_config has no quant_method"


@pytest.mark.parametrize("architectures", [[], None, "LlamaForCausalLM"])
def test_architectures_are_not_needed(whole: Path, llama: Path, architectures: Any) -> None:
    configure(llama, architectures=architectures)
    assert topk(llama).stdout == topk(whole / "llama").stdout


@pytest.mark.parametrize("name", ["tokenizer.json", "generation_config.json"])
def test_another_file_that_is_not_json(llama: Path, name: str) -> None:
    (llama / name).write_text("{")
    (line,) = refusal(topk(llama))
    assert f"{llama / name}: " in line


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["[]", "3"])
def test_another_file_that_is_not_an_object(llama: Path, name: str, text: str) -> None:
    (llama / name).write_text(text)
    (line,) = refusal(topk(llama))
    assert str(llama) in line


# Devices and precisions


@pytest.mark.parametrize(
    ("device", "status", "hint"),
    [
        ("cuda", 1, "use --device cpu"),
        ("cuda:3", 1, "use --device cpu"),
        ("gpu", 2, "one of auto, cpu, cuda, cuda:N, mps"),
        ("cuda:x", 2, "one of auto, cpu, cuda, cuda:N, mps"),
        ("cpu:1", 2, "one of auto, cpu, cuda, cuda:N, mps"),
        ("", 2, "one of auto, cpu, cuda, cuda:N, mps"),
    ],
)
def test_a_device_that_does_not_exist(llama: Path, device: str, status: int, hint: str) -> None:
    if torch.cuda.is_available() and status == 1:
        pytest.skip("this machine has a CUDA device")
    lines = refusal(topk(llama, "--device", device), status)
    assert device in lines[0]
    assert lines[1] == f"Hint: {hint}"


def test_mps_on_a_machine_without_it() -> None:
    if torch.backends.mps.is_available():
        pytest.skip("this machine has a Metal device")
    with pytest.raises(HftoolError, match="no device mps on this machine"):
        choose_device("mps")


def test_the_devices_of_this_machine() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    best = choose_device("auto").type
    assert (best == "cuda") == torch.cuda.is_available()
    with pytest.raises(UsageError):
        choose_device("tpu")


def test_an_unknown_precision(llama: Path) -> None:
    result = run("topk", PROMPT, "-m", str(llama), "--dtype", "int3")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "int3" in result.stderr


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_the_model_has_the_requested_precision(llama: Path, name: Any) -> None:
    options = LoadOptions(model=str(llama), dtype=name, device="cpu")
    loaded, theirs = load_language_model(options), load_language_model(options, fast=False)
    dtype = getattr(torch, name)
    assert {parameter.dtype for parameter in theirs.model.parameters()} == {dtype}
    assert loaded.model.dtype == loaded.model(torch.tensor([[1, 2]])).logits.dtype == dtype


def test_auto_on_a_cpu_is_bfloat16_only_where_it_computes_in_it() -> None:
    flags = Path("/proc/cpuinfo")
    if not flags.exists():
        pytest.skip("needs /proc/cpuinfo")
    words = set(flags.read_text().split())
    native = bool(words & {"avx512_bf16", "amx_bf16", "bf16"})
    chosen = choose_dtype("auto", torch.device("cpu"))
    assert chosen == (torch.bfloat16 if native else torch.float32)


def test_an_encoder_decoder_does_not_chat(tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes: dict[str, Any] = {"d_model": 32, "d_ff": 48, "num_layers": 1, "num_heads": 2, "d_kv": 8}
    make: Any = T5ForConditionalGeneration
    make(T5Config(vocab_size=VOCABULARY, **sizes)).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    result = run("chat", "-m", str(tmp_path), stdin="hi\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        f"Error: {tmp_path} is an encoder-decoder",
        "Hint: `generate`, `sample`, `topk` and `score --given` take those",
    ]


@pytest.mark.parametrize("exact", [True, False])
def test_the_precision_where_results_are_numbers(llama: Path, exact: bool) -> None:
    kind = ExactLoadOptions if exact else LoadOptions
    automatic = choose_dtype("auto", torch.device("cpu"))
    loaded = load_language_model(kind(model=str(llama), device="cpu"))
    assert loaded.model.dtype == (torch.float32 if exact else automatic)
    named = load_language_model(kind(model=str(llama), device="cpu", dtype="bfloat16"))
    assert named.model.dtype == torch.bfloat16


def test_a_large_model_is_not_made_exact(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 4 * sum(tensor_sizes(llama))
    for limit, dtype in (
        (size, torch.float32),
        (size - 1, choose_dtype("auto", torch.device("cpu"))),
    ):
        monkeypatch.setattr(load, "MAX_EXACT_BYTES", limit)
        loaded = load_language_model(ExactLoadOptions(model=str(llama), device="cpu"))
        assert loaded.model.dtype == dtype


def test_the_embedded_chat_model_samples_as_its_card_recommends(
    smollm2: LanguageModel, smollm2_folder: Path
) -> None:
    settings = resolve_sampling(SamplingOptions(), smollm2.generation_config)
    assert (settings.temperature, settings.top_p, settings.top_k) == (0.2, 0.9, 50)
    # Its own fields stay, and another model, such as this folder of unknown origin, gets none.
    of_folder = load_language_model(LoadOptions(model=str(smollm2_folder))).generation_config
    assert smollm2.generation_config == {**of_folder, "temperature": 0.2, "top_p": 0.9}


@pytest.mark.parametrize(
    ("layers", "seed", "random"),
    [
        (["local", "lsh"], None, True),
        (["local", "lsh"], 1, False),
        (["local", "local"], None, False),
    ],
)
def test_attention_that_hashes_at_random_is_named(
    layers: list[str],
    seed: int | None,
    random: bool,
    tmp_path: Path,
    notes: pytest.LogCaptureFixture,
) -> None:
    from transformers import ReformerConfig, ReformerModelWithLMHead

    config = ReformerConfig(
        attn_layers=layers, hash_seed=seed, is_decoder=True, vocab_size=VOCABULARY, hidden_size=64,
        attention_head_size=32, num_attention_heads=2, axial_pos_shape=(32, 32),
        axial_pos_embds_dim=(32, 32), max_position_embeddings=1024, num_buckets=8,
        local_attn_chunk_length=32, lsh_attn_chunk_length=32,
    )  # fmt: skip
    torch.manual_seed(0)
    model: Any = ReformerModelWithLMHead(config)
    model.eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    load_language_model(LoadOptions(model=str(tmp_path), device="cpu"))
    assert ("hashes tokens at random" in notes.text) == random
    ids = torch.randint(VOCABULARY, (1, 640))
    with torch.inference_mode():  # the warning is true: transformers differs from itself
        first, again = model(ids).logits, model(ids).logits
    assert torch.equal(first, again) != random

"""Models made to harm: an error, in bounded time and memory, no code run, no file read that is not
the model's own. Pickled weights and a repository's code are in test_load.py."""

import json
import os
import resource
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hftool.errors import HftoolError
from hftool.prompting import template_sandbox
from hftool.prompting.chat_template import ChatTemplate
from hftool.prompting.messages import Chat
from hftool.tokenization.tokenizer import Tokenizer
from tests.conftest import run, run_process
from tests.hub_server import tiny_llama, write_gguf
from tests.tiny_models import save_classifier, save_model

MEMORY = 6 * 2**30  # a process may not ask for more; the virtual size of torch alone is some 3 GiB
SECRET = "the secret of another folder"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "language")
    save_classifier(folder / "classifier")
    (folder / "secret").write_text(SECRET)
    return folder


@pytest.fixture
def model(models: Path, tmp_path: Path) -> Path:
    return shutil.copytree(models / "language", tmp_path / "model")


@pytest.fixture
def judge(models: Path, tmp_path: Path) -> Path:
    return shutil.copytree(models / "classifier", tmp_path / "judge")


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """More memory than a small model needs is not there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY * 2, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def refused(*arguments: str) -> str:
    """The one error of a command that ends with status 1."""
    done = run(*arguments)
    assert isinstance(done.exception, SystemExit), done.exception
    assert (done.exit_code, done.stdout) == (1, "")
    error, *hint = [line for line in done.stderr.splitlines() if not line.startswith("setting up ")]
    assert error.startswith("Error: ") and all(line.startswith("Hint: ") for line in hint)
    return error.removeprefix("Error: ")


def configure(folder: Path, file: str = "config.json", /, **values: Any) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# Chat templates


@pytest.fixture(scope="module")
def tokenizer(models: Path) -> Tokenizer:
    return Tokenizer(models / "language", "m")


def rendered(tokenizer: Tokenizer, source: str) -> str:
    return ChatTemplate(tokenizer, source).render(Chat([{"role": "user", "content": "hello"}]))


def loops(body: str) -> str:
    return "{% for i in range(99999) %}" * 3 + body + "{% endfor %}" * 3


DOUBLED = "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = OP %}{% endfor %}"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (loops(""), "it takes longer than 1 seconds"),
        (loops("{{ messages[0].content }}"), "it "),  # of time or of memory
        ("{{ lipsum(n=1000000000) }}", "it takes longer than 1 seconds"),
        (
            "{% macro f(n) %}{% if n %}{{ f(n-1) ~ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
            "it takes longer than 1 seconds",
        ),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "maximum recursion depth"),
        ("{{ 'a' * 10 ** 10 }}", "it takes more than 1024 MiB"),
        ("{{ [1] * 10 ** 9 }}", "it takes more than 1024 MiB"),
        ("{{ 'a'|center(10 ** 11) }}", "it takes more than 1024 MiB"),
        ("{{ '%99999999999d' % 1 }}", "it "),
        (DOUBLED.replace("OP", "n.x ~ n.x"), "it takes "),  # a gigabyte, or long to make one
        (
            DOUBLED.replace("'ab'", "99").replace("OP", "n.x * n.x"),
            "it takes longer than 1 seconds",
        ),
        ("{{ 10 ** (10 ** 10) }}", "it takes longer than 1 seconds"),
        ("{{ 5|round(-99999999) }}", "it takes longer than 1 seconds"),
        ("{{ [5]|map('round', 10 ** 9, 'ceil')|list }}", "it takes longer than 1 seconds"),
        ("{{ messages[0].content * 1000000 }}", "it makes 5,000,000 characters of the chat"),
        ("a" * 2_000_000, "it has more than 1,000,000 characters"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "maximum recursion depth"),
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__'"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "access to attribute"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% import 'os' as os %}", "no loader"),
        ("{{ '\\ud800' }}", "'utf-8' codec can't encode"),
    ],
)
def test_a_template_ends_in_time_and_memory(
    source: str, error: str, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_sandbox, "SECONDS", 1.0)
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(HftoolError) as caught:
        rendered(tokenizer, source)
    assert caught.value.message.startswith(f"the chat template of m fails: {error}")
    assert resource.getrlimit(resource.RLIMIT_AS) == before


@pytest.mark.parametrize(
    "source", ["{{ ''|attr('__class__') }}", "{{ raise_exception.__globals__ }}", "{{ self._x }}"]
)
def test_a_template_sees_nothing_of_python(source: str, tokenizer: Tokenizer) -> None:
    assert rendered(tokenizer, source) == ""


def test_bounds_leave_ordinary_templates_alone(tokenizer: Tokenizer) -> None:
    source = "{{ messages[0].content * 2 }} {{ 7 ** 2 }} {{ 2.55|round(1) }}"
    assert rendered(tokenizer, source) == "hellohello 49 2.5"


@pytest.mark.parametrize(
    "value", [5, True, [1], [{"x": 1}], [{"name": [], "template": "x"}], {"a": 1}]
)
def test_a_template_that_is_no_text(value: Any, model: Path) -> None:
    (model / "chat_template.jinja").unlink(missing_ok=True)
    configure(model, "tokenizer_config.json", chat_template=value)
    error = refused("encode", "a", "--chat", "-m", str(model))
    assert error.startswith(f"cannot read the chat template in {model}/tokenizer_config.json: ")


def test_a_template_that_is_not_utf8(model: Path) -> None:
    (model / "chat_template.jinja").write_bytes(b"\xff\xfe")
    error = refused("encode", "a", "--chat", "-m", str(model))
    assert error.startswith(f"cannot read the chat template in {model}/chat_template.jinja: ")


# Files outside the model's folder


@pytest.mark.parametrize(
    "name", ["chat_template.jinja", "tokenizer.json", "config.json", "model.safetensors"]
)
def test_a_link_that_leads_out_is_not_followed(name: str, model: Path, models: Path) -> None:
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(models / "secret")
    for command in (["encode", "a", "--chat", "-m"], ["topk", "a", "-m"], ["models", "show"]):
        error = refused(*command, str(model))
        assert error == f"{model / name} is a file outside the model's folder"


def test_a_link_among_the_other_templates_is_not_followed(model: Path, models: Path) -> None:
    (model / "additional_chat_templates").mkdir()
    link = model / "additional_chat_templates" / "rag.jinja"
    link.symlink_to(models / "secret")
    error = refused("encode", "a", "--template", "rag", "-m", str(model))
    assert error == f"{link} is a file outside the model's folder"


def test_a_link_is_followed_with_trust(model: Path, models: Path) -> None:
    weights = model / "model.safetensors"
    weights.unlink()
    weights.symlink_to(models / "language" / "model.safetensors")
    assert run("topk", "a", "-m", str(model), "--trust-remote-code").exit_code == 0


def test_a_link_inside_the_folder_is_followed(model: Path) -> None:
    (model / "model.safetensors").rename(model / "weights")
    (model / "model.safetensors").symlink_to("weights")
    assert run("topk", "a", "-m", str(model)).exit_code == 0


@pytest.mark.parametrize("absolute", [True, False])
def test_an_index_names_no_file_outside(absolute: bool, model: Path, models: Path) -> None:
    (model / "model.safetensors").unlink()
    there = models / "language" / "model.safetensors"
    name = str(there) if absolute else os.path.relpath(there, model)
    index = {"metadata": {}, "weight_map": {"lm_head.weight": name}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert refused("topk", "a", "-m", str(model)).endswith("is a file outside the model's folder")


def test_a_config_names_no_weights_outside(model: Path, models: Path) -> None:
    configure(model, transformers_weights=str(models / "language" / "model.safetensors"))
    assert "inside the model directory" in refused("topk", "a", "-m", str(model))


def test_an_adapter_loads_no_other_model(model: Path, models: Path) -> None:
    names = {"base_model_name_or_path": str(models / "language")}
    (model / "adapter_config.json").write_text(json.dumps(names))
    assert refused("topk", "a", "-m", str(model)) == f"{model} has a model and an adapter"


def test_code_of_the_hub_is_not_asked_for(model: Path) -> None:
    configure(model, attn_implementation="somebody/kernel")
    error = refused("topk", "a", "-m", str(model))
    assert "attn_implementation names code on the hub, 'somebody/kernel'" in error


# Claims of a size


@pytest.mark.parametrize("where", ["language", "classifier"])
@pytest.mark.parametrize(
    "values",
    [
        {"num_hidden_layers": 10**7},
        {"vocab_size": 10**8},
        {"hidden_size": 10**7},
        {"intermediate_size": 10**9},
        {"num_attention_heads": 10**9},
        {"head_dim": 10**9},
        {"num_labels": 2**31},
    ],
    ids=lambda values: next(iter(values)),
)
def test_a_config_far_larger_than_its_weights_is_not_built(
    where: str, values: dict[str, int], model: Path, judge: Path
) -> None:
    folder = model if where == "language" else judge
    configure(folder, "config.json", **values)
    command = ("topk", "a") if where == "language" else ("sentiment", "a")
    ((name, value),) = values.items()
    error = refused(*command, "-m", str(folder))
    assert error.startswith(f"{folder}/config.json: {name} is {value}, but the weights have ")


@pytest.mark.parametrize("architecture", ["gpt2", "gemma3"])
def test_a_model_far_larger_than_its_weights_is_not_built(
    architecture: str, tmp_path: Path
) -> None:
    """By a value that means a size in this architecture alone."""
    folder = save_model(tmp_path / "model", architecture)
    name = {"gpt2": "n_positions", "gemma3": "num_key_value_heads"}[architecture]
    assert run("topk", "a", "-m", str(folder)).exit_code == 0
    configure(folder, **{name: 10**9})
    error = refused("topk", "a", "-m", str(folder))
    assert error.startswith(f"{folder}/config.json describes a model of ")


def test_ids_that_no_vocabulary_has_are_not_listed(model: Path) -> None:
    path = model / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["Ĺ"] = 2**31
    path.write_text(json.dumps(content))
    assert "higher than in any vocabulary" in refused("vocab-dump", str(model))


NESTED = {"lists": "[" * 100_000_000, "objects": '{"a":' * 40_000_000}


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "config.json", "special_tokens_map.json"]
)
def test_a_deeply_nested_file(name: str, kind: str, model: Path) -> None:
    text = NESTED[kind]
    (model / name).write_text(text if name == "tokenizer.json" else text[:1_000_000])
    assert str(model) in refused("topk", "a", "-m", str(model))


def test_a_deeply_nested_index(model: Path) -> None:
    (model / "model.safetensors.index.json").write_text("[" * 1_000_000)
    assert refused("topk", "a", "-m", str(model)).startswith(f"cannot read {model}/model.safe")


def header(content: Any) -> bytes:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(data)) + data + bytes(12)


def tensor(shape: list[Any], *offsets: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    "content",
    [
        header({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}),  # they overlap
        header({"a": tensor([10**9], 0, 4 * 10**9)}),
        header({"a": tensor([-1], 0, -4)}),
        header({"a": tensor([2], 8, 0)}),
        header({"a": tensor([2**62, 4], 0, 0)}),
        header({"a": tensor([10**18] * 400, 0, 8)}),
        header({"a": tensor(["x"], 0, 8)}),
        header({"a": tensor([True], 0, 8)}),
        header({"a": tensor([2], 0, 8, dtype="\x1b[2J")}),
        header({"a": None}),
        header(b'{"a":' * 100_000),
        header(b"[" * 1_000_000),
        header(b'{"a":{"dtype":"F32","shape":[' + b",".join([b"9" * 4000] * 300) + b"]}}"),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 90_000_000) + b"{}",
        b"",
    ],
    ids=range(16),
)
def test_a_safetensors_header_of_wild_numbers(content: bytes, model: Path) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert str(model) in refused("topk", "a", "-m", str(model))
    shown = run("models", "show", str(model))
    assert isinstance(shown.exception, SystemExit | None)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "whole.gguf"
    write_gguf(path, tiny_llama())
    return path.read_bytes()


def put(data: bytes, behind: bytes, skip: int, value: bytes) -> bytes:
    at = data.index(behind) + len(behind) + skip
    return data[:at] + value + data[at + len(value) :]


U32, U64 = struct.Struct("<I").pack, struct.Struct("<Q").pack
TOKENS = b"tokenizer.ggml.tokens"
WILD: dict[str, Callable[[bytes], bytes]] = {
    "layers": lambda d: put(d, b"llama.block_count", 4, U32(2**31)),
    "width": lambda d: put(d, b"llama.embedding_length", 4, U32(2**31 - 1)),
    "heads": lambda d: put(d, b"llama.attention.head_count", 4, U32(2**31)),
    "tensors": lambda d: put(d, b"GGUF", 4, U64(2**60)),
    "fields": lambda d: put(d, b"GGUF", 12, U64(2**60)),
    "array": lambda d: put(d, TOKENS, 8, U64(2**60)),
    "array's type": lambda d: put(d, TOKENS, 4, U32(9)),
    "string": lambda d: put(d, TOKENS, 16, U64(2**60)),
    "name": lambda d: put(d, b"general.name", 4, U64(2**63)),
    "dimensions": lambda d: put(d, b"token_embd.weight", 0, U32(2**31)),
    "shape": lambda d: put(d, b"token_embd.weight", 4, U64(2**32) + U64(2**32)),
    "offset": lambda d: put(d, b"token_embd.weight", 24, U64(2**62)),
    "bytes": lambda d: put(d, TOKENS, 4, U32(0) + U64(2**40)),  # numpy cuts a slice off silently
    "lists": lambda d: put(d, TOKENS, 4, U32(9) + U64(2**40) + (U32(0) + U64(0)) * 50),
}


@pytest.mark.parametrize("kind", WILD)
def test_a_gguf_file_of_wild_lengths(
    kind: str, gguf: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HFTOOL_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "wild.gguf"
    path.write_bytes(WILD[kind](gguf))
    assert path.read_bytes() != gguf
    assert refused("topk", "a", "-m", str(path)).startswith(f"cannot read {path}: it")
    assert list((tmp_path / "cache" / "converted").glob("*/")) == []


# Values of the wrong kind, all through the files: no traceback


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("generation_config.json", {"eos_token_id": [[]]}),
        ("generation_config.json", {"eos_token_id": 3.5}),
        ("generation_config.json", {"top_k": True}),
        ("generation_config.json", {"temperature": "hot"}),
        ("generation_config.json", {"repetition_penalty": [1]}),
        ("config.json", {"sliding_window": "x"}),
        ("config.json", {"text_config": 5}),
        ("config.json", {"architectures": 5}),
        ("tokenizer_config.json", {"model_max_length": {"a": 5}}),
        ("tokenizer_config.json", {"extra_special_tokens": 5}),
        ("tokenizer_config.json", {"bos_token": "\ud800"}),
    ],
)
def test_values_of_the_wrong_kind_are_no_bug(
    name: str, values: dict[str, Any], model: Path
) -> None:
    (model / "generation_config.json").write_text("{}")
    configure(model, name, **values)
    for command in (
        ["generate", "a", "-n", "2", "-m"],
        ["encode", "a", "--chat", "-m"],
        ["vocab-dump", "--kind", "unused"],
        ["models", "show"],
    ):
        done = run(*command, str(model))
        assert isinstance(done.exception, SystemExit | None), done.exception
        assert done.exit_code in (0, 1)
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
        assert len(errors) == done.exit_code


def test_a_classifier_without_layers(judge: Path) -> None:
    configure(judge, num_hidden_layers=0)
    assert run("sentiment", "a", "-m", str(judge)).exit_code == 0


@pytest.mark.parametrize("length", [{"a": 5}, -(10**9), float("nan"), "x", 10**30])
def test_a_classifier_of_no_sensible_length(length: Any, judge: Path) -> None:
    configure(judge, "tokenizer_config.json", model_max_length=length)
    assert run("sentiment", "a", "-m", str(judge)).exit_code == 0


def test_hostile_models_need_no_more_memory_than_others(model: Path) -> None:
    # In a process of its own, that has nothing loaded: the limit is of all its memory.
    configure(model, vocab_size=60_000_000)
    done = run_process(
        *("topk", "a", "-m", str(model)),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )
    assert done.status == 1
    assert "vocab_size is 60000000" in done.stderr

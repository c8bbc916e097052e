"""The output of `models`, against the files and against torch; and the aliases it stores."""

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification

from hftool import config
from hftool.models.references import AdaptedMiniLM, GgufFile, resolve_reference
from tests.conftest import run
from tests.hub_server import save_llama
from tests.tiny_models import transformers_model


def rows(*arguments: str) -> list[dict[str, Any]]:
    """Return the records of a `models` command."""
    result = run("models", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    records: list[dict[str, Any]] = json.loads(result.stdout)
    return records


def config_file() -> Path:
    return config.config_path()


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    save_llama(folder)
    return folder


def test_show_agrees_with_torch(smollm2_folder: Path) -> None:
    (entry,) = rows("show", "smollm2")
    model = transformers_model(smollm2_folder)
    assert entry["parameters"] == sum(p.numel() for p in model.parameters())
    assert entry["context_length"] == model.config.max_position_embeddings
    assert entry["architecture"] == type(model).__name__
    assert entry["size_bytes"] == size(smollm2_folder)
    assert entry["path"] == str(smollm2_folder)
    assert {k: entry[k] for k in ("ref", "name", "task", "dtype", "license", "gated")} == {
        "ref": "smollm2",
        "name": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "task": "text-generation",
        "dtype": "Q4_1+Q8_0+F32",
        "license": "apache-2.0",
        "gated": False,
    }
    assert entry["chat_template"] is True


def test_show_agrees_with_torch_on_the_classifier(minilm_folder: Path) -> None:
    (entry,) = rows("show", "minilm-sst2")
    auto: Any = AutoModelForSequenceClassification
    own = auto.from_pretrained(minilm_folder)
    assert entry["parameters"] == sum(p.numel() for p in own.parameters())
    assert entry["task"] == "text-classification"
    assert entry["architecture"] == type(own).__name__
    assert entry["path"] == str(minilm_folder)
    assert entry["chat_template"] is False


def test_the_fields_are_in_the_order_of_the_design() -> None:
    expected = (
        "ref, name, task, source, path, architecture, parameters, context_length, dtype, "
        "size_bytes, license, gated, chat_template, "
        "float32_bytes, bfloat16_bytes, machine_bytes, fits"
    )
    assert ", ".join(rows("show", "gemma")[0]) == expected


def test_show_of_a_folder(tiny: Path) -> None:
    (entry,) = rows("show", str(tiny))
    assert (entry["path"], entry["source"]) == (str(tiny), f"folder: {tiny}")
    # Embeddings and head; a layer's attention, feed-forward and two norms; the last norm.
    attention = 2 * 32 * 32 + 2 * 32 * 16
    layer = attention + 3 * 32 * 64 + 2 * 32
    assert entry["parameters"] == 2 * 261 * 32 + 2 * layer + 32
    assert (entry["context_length"], entry["dtype"]) == (64, "F32")
    assert (entry["license"], entry["gated"], entry["chat_template"]) == (None, None, False)


def test_show_of_a_model_that_is_not_here() -> None:
    (entry,) = rows("show", "owner/name@v2")
    assert (entry["path"], entry["size_bytes"], entry["parameters"]) == (None, None, None)
    assert (entry["name"], entry["source"]) == ("owner/name", "hub: owner/name@v2")
    (gated,) = rows("show", "gemma")
    assert (gated["path"], gated["gated"], gated["parameters"]) == (None, True, 999_885_952)


def test_show_knows_an_alias_by_its_repository() -> None:
    by_alias, by_id = rows("show", "qwen")[0], rows("show", "Qwen/Qwen3-0.6B")[0]
    assert {**by_alias, "ref": "Qwen/Qwen3-0.6B"} == by_id


def test_an_embedded_model_is_here_before_it_is_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HFTOOL_CACHE", str(tmp_path / "empty"))
    gguf, minilm = resolve_reference("smollm2"), resolve_reference("minilm-sst2")
    assert isinstance(gguf, GgufFile) and isinstance(minilm, AdaptedMiniLM)
    assert isinstance(minilm.base, Path)
    sizes = {
        "smollm2": gguf.path.stat().st_size,
        "minilm-sst2": (minilm.base / "model.safetensors").stat().st_size,
    }
    listed = {row["alias"]: row for row in rows("list")}
    assert {name: row["size_bytes"] for name, row in listed.items() if row["here"]} == sizes
    assert all(row["size_bytes"] is None for row in listed.values() if not row["here"])
    for name in sizes:
        (entry,) = rows("show", name)
        assert (entry["path"], entry["size_bytes"]) == (None, sizes[name])
    assert not (tmp_path / "empty").exists()


def test_show_of_a_header_that_is_broken(tiny: Path) -> None:
    weights = tiny / "model.safetensors"
    whole = weights.read_bytes()
    for broken in (b"", whole[:100], (10**12).to_bytes(8, "little") + whole[8:]):
        weights.write_bytes(broken)
        result = run("models", "show", str(tiny))
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"Error: cannot read {weights}: ")
        assert len(result.stderr.splitlines()) == 1


def test_show_of_nothing() -> None:
    result = run("models", "show", "smolm2")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: unknown model 'smolm2'\nHint: did you mean 'smollm2'?\n"


def test_list_shows_what_is_here(smollm2_folder: Path, minilm_folder: Path) -> None:
    listed = {row["alias"]: row for row in rows("list")}
    names = ["smollm2", "minilm-sst2", "gemma", "llama", "llama-1b", "qwen", "distilbert-sst2"]
    assert list(listed) == names
    assert [name for name in names if listed[name]["here"]] == ["smollm2", "minilm-sst2"]
    assert listed["smollm2"]["size_bytes"] == size(smollm2_folder)
    assert listed["qwen"]["model"] == "Qwen/Qwen3-0.6B"
    assert listed["distilbert-sst2"]["task"] == "text-classification"


def test_an_alias_is_stored_and_the_rest_of_the_file_stays(tiny: Path) -> None:
    text = (
        '# mine\n[generate] # by hand\ntemperature = 0.5 # cool\n\n[aliases]\nold = "a/b" # why\n'
    )
    config_file().write_text(text)
    assert run("models", "alias", "tiny", "owner/name@v1").exit_code == 0
    written = config_file().read_text()
    for line in text.splitlines():
        assert line in written.splitlines()
    assert tomllib.loads(written) == {
        "generate": {"temperature": 0.5},
        "aliases": {"old": "a/b", "tiny": "owner/name@v1"},
    }
    assert rows("show", "tiny")[0]["source"] == "hub: owner/name@v1"
    assert [row["alias"] for row in rows("list")][:2] == ["old", "tiny"]
    assert run("models", "unalias", "tiny").exit_code == 0
    assert tomllib.loads(config_file().read_text()) == tomllib.loads(text)
    assert "# why" in config_file().read_text()


def test_an_alias_where_there_is_no_config_file_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "config.toml"
    monkeypatch.setenv("HFTOOL_CONFIG", str(path))
    config.load.cache_clear()
    assert run("models", "alias", "v1.5", "owner/name").exit_code == 0
    assert tomllib.loads(path.read_text()) == {"aliases": {"v1.5": "owner/name"}}


def test_an_alias_of_a_folder_is_valid_in_every_folder(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tiny.parent)
    assert run("models", "alias", "mine", "./tiny").exit_code == 0
    assert tomllib.loads(config_file().read_text())["aliases"] == {"mine": str(tiny)}
    monkeypatch.chdir("/")
    assert rows("show", "mine")[0]["path"] == str(tiny)
    listed = {row["alias"]: row for row in rows("list")}
    assert (listed["mine"]["here"], listed["mine"]["size_bytes"]) == (True, size(tiny))
    shutil.rmtree(tiny)
    assert {row["alias"]: row for row in rows("list")}["mine"]["here"] is False


def test_an_alias_of_an_alias_means_what_that_one_means() -> None:
    for name, ref in (("first", "owner/name"), ("second", "first"), ("small", "smollm2")):
        assert run("models", "alias", name, ref).exit_code == 0
    assert tomllib.loads(config_file().read_text())["aliases"] == {
        "first": "owner/name",
        "second": "owner/name",
        "small": "smollm2",
    }
    assert rows("show", "second")[0]["source"] == "hub: owner/name"


def test_an_alias_may_hide_a_built_in_one() -> None:
    assert run("models", "alias", "qwen", "me/qwen").exit_code == 0
    listed = [row for row in rows("list") if row["alias"] == "qwen"]
    assert [(row["model"], row["purpose"]) for row in listed] == [("me/qwen", "yours")]
    assert run("models", "unalias", "qwen").exit_code == 0
    assert rows("show", "qwen")[0]["name"] == "Qwen/Qwen3-0.6B"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["alias", "a/b", "owner/name"], 2, "Error: 'a/b' can't be an alias"),
        (["alias", "", "owner/name"], 2, "Error: '' can't be an alias"),
        (["alias", ".x", "owner/name"], 2, "Error: '.x' can't be an alias"),
        (["alias", "x", "smolm2"], 1, "Error: unknown model 'smolm2'"),
        (["unalias", "nonesuch"], 1, "Error: you have no alias 'nonesuch'"),
        (["unalias", "qwen"], 1, "Error: you have no alias 'qwen'"),
    ],
)
def test_an_alias_that_cannot_be(arguments: list[str], status: int, message: str) -> None:
    result = run("models", *arguments)
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr.splitlines()[0] == message
    assert not config_file().exists()


def test_a_broken_config_file_is_not_overwritten() -> None:
    config_file().write_text("[aliases\n")
    config.load.cache_clear()
    result = run("models", "alias", "x", "owner/name")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: cannot read the config file {config_file()}: ")
    assert config_file().read_text() == "[aliases\n"


@pytest.mark.parametrize(
    ("machine", "fits", "verdict"),
    [
        (5_000_000_000, "float32", "this machine has 5.0 GB: fits"),  # 80 % of it are 4 GB
        (4_999_000_000, "bfloat16", "this machine has 5.0 GB: fits in bfloat16"),
        (2_499_000_000, "none", "this machine has 2.5 GB: does not fit"),
    ],
)
def test_whether_a_model_fits(
    machine: int, fits: str, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    memory = psutil.virtual_memory()._replace(total=machine)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    (entry,) = rows("show", "gemma")  # 999,885,952 parameters
    assert (entry["float32_bytes"], entry["bfloat16_bytes"]) == (3_999_543_808, 1_999_771_904)
    assert (entry["machine_bytes"], entry["fits"]) == (machine, fits)
    shown = " ".join(run("models", "show", "gemma", "--format", "table").stdout.split())
    assert f"memory needs 4.0 GB in float32, 2.0 GB in bfloat16; {verdict}" in shown
    assert (entry["context_length"], entry["license"]) == (32_768, "gemma")


def test_an_unknown_model_has_no_verdict() -> None:
    (entry,) = rows("show", "owner/name")
    assert (entry["float32_bytes"], entry["fits"]) == (None, None)
    assert "this machine has" in run("models", "show", "owner/name", "--format", "table").stdout


def test_the_list_survives_a_broken_model(tiny: Path) -> None:
    (tiny / "model.safetensors").write_bytes(b"")
    assert run("models", "alias", "mine", str(tiny)).exit_code == 0
    assert rows("list")[0]["here"] is False


def test_the_list_fits_a_narrow_terminal() -> None:
    shown = run("models", "list", "--format", "table").stdout.splitlines()
    assert max(map(len, shown)) <= 80
    joined = "".join(line.strip() for line in shown)
    assert "distilbert/distilbert-base-uncased-finetuned-sst-2-english" in joined

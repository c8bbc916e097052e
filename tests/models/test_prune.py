"""`models prune`: copies that something uses stay, all others go."""

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from filelock import FileLock

from hftool.models import converted_copies
from hftool.models.references import GgufFile
from tests.conftest import run
from tests.hub_server import tiny_llama, write_gguf

SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "pruned-copy.json"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the copies in an empty cache folder of this test's own."""
    monkeypatch.setenv("HFTOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "converted"


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, tiny_llama())
    return path


def convert(file: Path) -> Path:
    return converted_copies.converted_gguf(GgufFile(file), "tokenizer", "tiny")


def old_tokenizer(folder: Path) -> Path:
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello"]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    (folder / "config.json").write_text('{"model_type": "bert", "vocab_size": 6}')
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    return folder


def pruned(*arguments: str) -> list[dict[str, Any]]:
    done = run("models", "prune", "--format", "jsonl", *arguments)
    assert done.exit_code == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    for record in records:
        jsonschema.validate(record, json.loads(SCHEMA.read_text()))
    return records


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def folders(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if path.is_dir()}


def test_a_copy_of_a_file_that_was_removed_goes(
    cache: Path, gguf_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.gguf"
    shutil.copy(gguf_file, path)
    copy = convert(path)
    assert pruned() == []  # its source is there
    path.unlink()
    expected = {"name": copy.name, "source": str(path), "size_bytes": size(copy)}
    assert pruned("--dry-run") == [{**expected, "removed": False}]
    assert folders(cache) == {copy.name}
    assert pruned() == [{**expected, "removed": True}]
    assert folders(cache) == set()


def test_a_copy_of_a_file_with_another_content_goes(
    cache: Path, gguf_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.gguf"
    shutil.copy(gguf_file, path)
    convert(path)
    path.write_bytes(b"GGUF")
    assert len(pruned()) == 1


def test_an_alias_keeps_the_copy_of_a_file_that_was_moved(
    cache: Path, gguf_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.gguf"
    shutil.copy(gguf_file, path)
    copy = convert(path)
    moved = path.rename(tmp_path / "moved.gguf")
    assert run("models", "alias", "mine", str(moved)).exit_code == 0
    assert pruned() == []
    assert run("models", "unalias", "mine").exit_code == 0
    assert [record["name"] for record in pruned()] == [copy.name]


def test_the_embedded_models_copies_stay(cache: Path) -> None:
    """Those of other weights, and of other versions of hftool, don't."""
    assert run("sentiment", "good").exit_code == 0
    (kept,) = folders(cache)
    shutil.copytree(cache / kept, cache / "minilm-sst2-0123456789ab")
    (cache / "gguf-0123456789ab").mkdir()
    (cache / ".gguf-0123456789ab.x.part").mkdir()
    (cache / ".gguf-0123456789ab.x.part" / "config.json").write_text("{}")
    records = pruned()
    assert {record["name"] for record in records} == {
        *("minilm-sst2-0123456789ab", "gguf-0123456789ab", ".gguf-0123456789ab.x.part")
    }
    assert folders(cache) == {kept}


def test_a_tokenizers_copy_goes_when_its_files_change(cache: Path, tmp_path: Path) -> None:
    folder = old_tokenizer(tmp_path / "old")
    assert run("encode", "hello", "-m", str(folder)).stdout == "5\n"
    assert pruned() == []
    with (folder / "vocab.txt").open("a") as file:
        file.write("more\n")
    assert run("encode", "hello", "-m", str(folder)).stdout == "5\n"
    assert [record["source"] for record in pruned()] == [str(folder)]
    assert len(folders(cache)) == 1


def test_nothing_is_removed_while_a_model_is_converted(
    cache: Path, gguf_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.gguf"
    shutil.copy(gguf_file, path)
    copy = convert(path)
    path.unlink()
    with FileLock(cache / "lock"):
        done = run("models", "prune")
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.splitlines()[0] == "Error: a model is being converted"
        assert len(pruned("--dry-run")) == 1
    assert folders(cache) == {copy.name}


def test_in_text_and_as_a_table(cache: Path, gguf_file: Path, tmp_path: Path) -> None:
    assert run("models", "prune").stdout == ""
    assert run("models", "prune", "--format", "table").stdout == (
        "nothing to remove: every converted copy is in use\n"
    )
    path = tmp_path / "tiny.gguf"
    shutil.copy(gguf_file, path)
    copy = convert(path)
    path.unlink()
    shown = run("models", "prune", "--dry-run", "--format", "table").stdout
    assert copy.name in shown and shown.endswith(" to remove, without --dry-run\n")
    line = f"{copy.name}\t{size(copy)}\t{path}\n"
    assert run("models", "prune", "--format", "text").stdout == line

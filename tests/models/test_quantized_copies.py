"""Quantized weights that are kept on disk: the same numbers, and pruned with their model."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hftool.models import converted_copies, quantized_copies
from hftool.models.load import load_language_model
from hftool.models.prune import prune
from hftool.nn import quantization
from hftool.options.model import LoadOptions
from tests.tiny_models import all_logits, save_model

IDS = list(b"kept on disk")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HFTOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(quantized_copies, "LEAST", 0)
    return save_model(tmp_path / "model", "gemma3")


def load(folder: Path, bits: Any) -> Any:
    options = LoadOptions(model=str(folder), device="cpu", offline=True, quantize=bits)
    return load_language_model(options).model


@pytest.mark.parametrize("bits", ["int4", "int8"])
def test_kept_weights_compute_what_they_did_before(
    folder: Path, bits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = all_logits(load(folder, bits), IDS)
    [copy] = converted_copies.copies_path().glob("quantized-*")
    assert list(prune(dry_run=True)) == []
    monkeypatch.delattr(quantization, f"_{bits}")  # nothing is quantized again
    assert torch.equal(all_logits(load(folder, bits), IDS), first)
    shutil.rmtree(folder)
    assert [pruned.name for pruned in prune()] == [copy.name]


def test_other_weights_have_a_copy_of_their_own(folder: Path) -> None:
    load(folder, "int8")
    save_model(folder, "gemma3", seed=7)
    second = load(folder, "int8")
    assert len(list(converted_copies.copies_path().glob("quantized-*"))) == 2
    assert len([pruned.name for pruned in prune()]) == 1
    assert torch.equal(all_logits(load(folder, "int8"), IDS), all_logits(second, IDS))


def test_without_a_place_to_keep_them(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file")
    load(folder, "int8")
    assert "can't be kept" in caplog.text

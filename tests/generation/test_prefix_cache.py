"""The key-value cache: the same logits as one pass over all tokens."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from hftool.errors import HftoolError
from hftool.generation import prefix_cache
from hftool.generation.prefix_cache import CachedModel
from hftool.models.language_model import LanguageModel
from hftool.models.model_errors import memory_errors
from hftool.nn.decoder import Decoder
from tests.tiny_models import (
    ARCHITECTURES,
    END,
    SLIDING_WINDOW,
    TOKENS,
    VOCABULARY,
    all_logits,
    load_model,
    save_model,
    save_tokenizer,
    transformers_model,
)

CONTEXT = 64
LENGTH = 40


@pytest.fixture(scope="module")
def ids() -> list[int]:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(TOKENS, (LENGTH,), generator=generator).tolist()


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp(request.param), request.param, context=CONTEXT)


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return load_model(folder)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    return transformers_model(folder)


def assert_equal(cached: CachedModel, reference: Any, ids: Sequence[int]) -> None:
    expected = all_logits(reference, ids)[-1]
    found = cached.next_logits(ids)
    assert found.shape == (VOCABULARY,)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


@contextmanager
def passes(language_model: LanguageModel) -> Iterator[list[int]]:
    """Count the tokens that each pass through the model computes."""
    counts: list[int] = []

    def count(module: Any, arguments: Any, keywords: dict[str, Any]) -> None:
        counts.append(keywords["input_ids"].shape[1])

    handle = language_model.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield counts
    finally:
        handle.remove()


def test_step_by_step(model: LanguageModel, reference: Any, ids: list[int]) -> None:
    assert LENGTH > 4 * SLIDING_WINDOW
    cached = CachedModel(model)
    expected = all_logits(reference, ids)
    assert expected.std() > 0.3  # far from flat: a wrong context would show
    with passes(model) as counts:
        for count in range(1, LENGTH + 1):
            found = cached.next_logits(ids[:count])
            torch.testing.assert_close(found, expected[count - 1], atol=2e-4, rtol=1e-4)
    assert counts == [1] * LENGTH


def test_prompt_in_one_pass(model: LanguageModel, reference: Any, ids: list[int]) -> None:
    cached = CachedModel(model)
    for count in (30, 31, 32, LENGTH):
        assert_equal(cached, reference, ids[:count])


def test_after_the_ids_diverge(model: LanguageModel, reference: Any, ids: list[int]) -> None:
    cached = CachedModel(model)
    for changed in (
        ids,
        [*ids[:20], 7, 8, 9],  # another end
        ids[:20],  # the beginning of the cached tokens
        ids[:20],  # the same again
        [9, *ids[:15]],  # another beginning
        [9, *ids[:5]],  # shorter than the sliding window
        [9, *ids[:4], 3, 4],
        [9],
        ids,
    ):
        assert_equal(cached, reference, changed)


def test_branches(
    model: LanguageModel, reference: Any, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Continuations of the same tokens, in one pass or several; the shared ones in one."""
    cached = CachedModel(model, rewinds=True)
    branches = [[5, 6, 7], [8], [9, 3], [5, 6]]
    for together, passed in ((64, [20, 3]), (4, [3, 2, 2]), (1, [3, 1, 2, 2])):
        monkeypatch.setattr(prefix_cache, "BRANCH_TOKENS", together)
        with passes(model) as counts:
            found = list(cached.branch_logits(ids[:20], branches))
        for branch, logits in zip(branches, found, strict=True):
            expected = all_logits(reference, [*ids[:20], *branch])[20:]
            torch.testing.assert_close(logits, expected, atol=2e-4, rtol=1e-4)
        assert counts == passed


@pytest.mark.parametrize("width", [1, 3, 7, LENGTH])
def test_prompt_in_slices(
    width: int,
    model: LanguageModel,
    reference: Any,
    ids: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prefix_cache, "PREFILL_SLICE", width)
    cached = CachedModel(model)
    with passes(model) as counts:
        assert_equal(cached, reference, ids[:30])
        assert max(counts) <= width
        assert sum(counts) == 30
        assert_equal(cached, reference, [*ids[:25], 1, 2, 3, 4, 5, 6, 7, 8])
        assert_equal(cached, reference, [*ids[:25], 1, 2, 3, 4, 5, 6, 7, 8, 9])
        assert max(counts) <= width


def test_only_the_requested_logits_are_computed(model: LanguageModel, ids: list[int]) -> None:
    rows: list[int] = []

    def count(module: Any, arguments: Any, output: Any) -> None:
        rows.append(output.logits.shape[1])

    handle = model.model.register_forward_hook(count)
    try:
        CachedModel(model).next_logits(ids)
        CachedModel(model).last_logits(ids, 3)
    finally:
        handle.remove()
    assert rows == [1, 3]


def test_only_what_is_new_is_computed(model: LanguageModel, ids: list[int]) -> None:
    sliding = model.model.config.model_type == "gemma3_text"  # it discards tokens
    cached = CachedModel(model)
    with passes(model) as counts:
        cached.next_logits(ids[:30])
        cached.next_logits(ids)
        cached.next_logits([*ids[:35], 1, 2])
        cached.next_logits(ids[:20])
    assert counts == [30, 10, 2, 20 if sliding else 1]


def test_interrupted_pass_leaves_no_trace(
    model: LanguageModel, reference: Any, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = CachedModel(model)
    cached.next_logits(ids[:10])

    def interrupt(*arguments: Any, **keywords: Any) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    plain = isinstance(model.model, Decoder)
    lists = [m for m in model.model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 2]
    layers: Any = model.model.layers if plain else lists[0]
    monkeypatch.setattr(layers[1], "forward", interrupt)  # the first layer has cached its keys
    with pytest.raises(KeyboardInterrupt):
        cached.next_logits(ids[:12])
    assert_equal(cached, reference, ids[:12])
    assert_equal(cached, reference, ids[:14])


def test_context_is_full_but_not_overfull(model: LanguageModel, reference: Any) -> None:
    full = [i % 50 for i in range(CONTEXT)]
    assert_equal(CachedModel(model), reference, full)
    with pytest.raises(HftoolError) as caught:
        CachedModel(model).next_logits([*full, 1])
    assert re.findall(r"\b\d+\b", caught.value.message)[0] == str(CONTEXT + 1)
    assert caught.value.message.endswith(f" holds {CONTEXT}")


def test_model_without_a_key_value_cache(
    tmp_path: Path, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        state_size=4,
        num_hidden_layers=2,
        initializer_range=0.3,
        eos_token_id=END,
    )
    MambaForCausalLM(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    reference = transformers_model(tmp_path)
    monkeypatch.setattr(prefix_cache, "PREFILL_SLICE", 4)
    cached = CachedModel(load_model(tmp_path))
    for part in (ids[:10], ids[:11], ids[:12], [*ids[:5], 3]):
        assert_equal(cached, reference, part)


def test_logits_that_are_not_numbers(tmp_path: Path) -> None:
    broken = load_model(save_model(tmp_path, weights=float("nan")))
    with pytest.raises(HftoolError, match=r"not numbers \(in float32\)") as caught:
        CachedModel(broken).next_logits([1, 2])
    assert caught.value.hint == "its weights may be broken: use another checkpoint"


def test_too_little_memory() -> None:
    with pytest.raises(HftoolError, match="not enough memory") as caught, memory_errors():
        torch.empty(2**50)
    assert "--dtype bfloat16" in str(caught.value.hint)
    with pytest.raises(RuntimeError, match="must match"), memory_errors():
        torch.ones(2) + torch.ones(3)

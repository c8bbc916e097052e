"""The two kinds of key-value cache behind one interface, against one pass over all tokens."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MambaConfig

from hftool.nn.cache import Cache, can_pad, new_cache
from hftool.nn.llama import KeyValueCache, read_llama
from hftool.nn.transformers_cache import TransformersCache
from tests.tiny_models import SLIDING_WINDOW, TOKENS, all_logits, save_model, transformers_model

LAYERS, KV_HEADS, HEAD_DIM = 2, 2, 8  # of `tests.tiny_models`


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(params=[KeyValueCache, TransformersCache])
def model(request: pytest.FixtureRequest, folder: Path) -> Any:
    """The same model twice: as hftool computes it, and as transformers does."""
    fast = request.param is KeyValueCache
    model = read_llama(folder, torch.float32, None) if fast else transformers_model(folder)
    assert type(new_cache(model)) is request.param
    return model


def cache_of(model: Any, **settings: bool) -> Cache:
    cache = new_cache(model, **settings)
    assert cache is not None
    return cache


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(TOKENS, shape, generator=torch.Generator().manual_seed(6))


@torch.inference_mode()
def test_tokens_cropped_from_a_cache_leave_no_trace(model: Any) -> None:
    cache = cache_of(model)
    text = ids(1, 30)
    cache.run(model, text[:, :20])
    cache.run(model, ids(1, 9))
    assert cache.can_crop(9)
    cache.crop(9)
    logits = cache.run(model, text[:, 20:]).logits
    expected = all_logits(model, text[0].tolist())[20:]
    torch.testing.assert_close(logits[0], expected, atol=2e-4, rtol=1e-4)


@torch.inference_mode()
def test_selected_sequences_go_on_as_they_would_alone(model: Any) -> None:
    cache = cache_of(model)
    rows = ids(3, 12)
    cache.run(model, rows)
    cache.select(torch.tensor([2, 0]))
    step = ids(2, 1)
    logits = cache.run(model, step).logits[:, -1]
    for number, row in enumerate((2, 0)):
        expected = all_logits(model, [*rows[row].tolist(), *step[number].tolist()])[-1]
        torch.testing.assert_close(logits[number], expected, atol=2e-4, rtol=1e-4)


@torch.inference_mode()
def test_the_size_of_a_cache(model: Any) -> None:
    cache = cache_of(model)
    assert cache.nbytes == 0
    cache.expect(50)
    cache.run(model, ids(3, 12))
    tokens = 50 if isinstance(cache, KeyValueCache) else 12  # transformers' can't reserve any
    assert cache.nbytes == LAYERS * 2 * 3 * KV_HEADS * tokens * HEAD_DIM * 4
    assert can_pad(model)


@torch.inference_mode()
def test_a_sliding_window_is_cropped_only_if_it_was_to_rewind(tmp_path: Path) -> None:
    model = transformers_model(save_model(tmp_path, "gemma3"))
    plain, rewinding = cache_of(model), cache_of(model, rewinds=True)
    text = ids(1, 3 * SLIDING_WINDOW)
    for cache in (plain, rewinding):
        cache.run(model, text[:, :4])
        assert cache.can_crop(4)
        cache.run(model, text[:, 4:])
    assert not plain.can_crop(1)
    assert rewinding.can_crop(SLIDING_WINDOW) and not rewinding.can_crop(100)
    rewinding.crop(SLIDING_WINDOW)
    logits = rewinding.run(model, text[:, -SLIDING_WINDOW:]).logits[0]
    expected = all_logits(model, text[0].tolist())[-SLIDING_WINDOW:]
    torch.testing.assert_close(logits, expected, atol=2e-4, rtol=1e-4)


def test_a_model_with_a_state_has_no_cache_and_no_padding() -> None:
    auto: Any = AutoModelForCausalLM
    config = MambaConfig(vocab_size=TOKENS, hidden_size=16, state_size=4, num_hidden_layers=1)
    model = auto.from_config(config)
    assert new_cache(model) is None
    assert not can_pad(model)

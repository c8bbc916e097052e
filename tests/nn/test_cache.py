"""The two kinds of key-value cache behind one interface, against one pass over all tokens."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MambaConfig

from hftool.nn.cache import Cache, can_pad, new_cache
from hftool.nn.decoder import read_decoder
from hftool.nn.key_value_cache import KeyValueCache
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
    model = read_decoder(folder, torch.float32, None) if fast else transformers_model(folder)
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
@pytest.mark.parametrize("fast", [True, False])
def test_a_sliding_window_is_cropped_only_if_it_was_to_rewind(tmp_path: Path, fast: bool) -> None:
    folder = save_model(tmp_path, "gemma3")
    model = read_decoder(folder, torch.float32, None) if fast else transformers_model(folder)
    plain, rewinding = cache_of(model), cache_of(model, rewinds=True)
    text = ids(1, 3 * SLIDING_WINDOW)
    for cache in (plain, rewinding):
        cache.run(model, text[:, :4])
        assert cache.can_crop(4)
        cache.run(model, text[:, 4:])
    assert fast or not plain.can_crop(1)
    assert rewinding.can_crop(SLIDING_WINDOW)
    expected = all_logits(model, text[0].tolist())
    for cache in (plain, rewinding):
        if cache.can_crop(cropped := SLIDING_WINDOW):
            cache.crop(cropped)
            logits = cache.run(model, text[:, -cropped:]).logits[0]
            torch.testing.assert_close(logits, expected[-cropped:], atol=2e-4, rtol=1e-4)


@torch.inference_mode()
def test_tokens_fall_out_of_the_window_of_a_fast_cache(tmp_path: Path) -> None:
    model = read_decoder(save_model(tmp_path, "gemma3"), torch.float32, None)
    assert model is not None
    text = ids(1, 8 * SLIDING_WINDOW)
    expected = all_logits(model, text[0].tolist())
    cache = KeyValueCache(model.config.windows)
    for token in range(text.shape[1]):
        logits = cache.run(model, text[:, token : token + 1]).logits[0, -1]
        torch.testing.assert_close(logits, expected[token], atol=2e-4, rtol=1e-4)
        full = [layer for layer in cache._layers if layer.keys.shape[2] > 2 * SLIDING_WINDOW]
        assert len(full) <= 1
    assert not cache.can_crop(text.shape[1] - 1)


def test_a_model_with_a_state_is_not_padded() -> None:
    auto: Any = AutoModelForCausalLM
    config = MambaConfig(vocab_size=TOKENS, hidden_size=16, state_size=4, num_hidden_layers=1)
    model = auto.from_config(config)
    assert not can_pad(model)

"""Llama and related models: bit for bit what transformers' classes compute."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from hftool.generation.prefix_cache import PREFILL_SLICE, CachedModel
from hftool.models.language_model import LanguageModel
from hftool.models.load import load_language_model
from hftool.nn.llama import KeyValueCache, Llama, read_llama
from hftool.nn.quantization import quantize
from hftool.options.model import LoadOptions
from tests.conftest import model_folder, run
from tests.tiny_models import save_model, save_tokenizer

LONG_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "llama, a head each": LlamaConfig(**{**SIZES, "num_key_value_heads": 4}),
    "llama, biased and tied": LlamaConfig(
        **SIZES, attention_bias=True, mlp_bias=True, tie_word_embeddings=True
    ),
    "llama 3.1": LlamaConfig(**SIZES, head_dim=32, rope_parameters=LONG_ROPE),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=False),
    "qwen3": Qwen3Config(**SIZES, head_dim=32, tie_word_embeddings=True),
}


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(3)
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(CONFIGS[request.param])
    with torch.no_grad():  # so that biases and norms have an effect
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder, max_shard_size="200kB")
    return folder


def transformers_own(folder: Path, dtype: torch.dtype) -> Any:
    auto: Any = AutoModelForCausalLM
    return auto.from_pretrained(folder, dtype=dtype).eval()


def drawn(*shape: int) -> torch.Tensor:
    return torch.randint(320, shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_every_bit_is_that_of_transformers(folder: Path, dtype: torch.dtype) -> None:
    theirs, ours = transformers_own(folder, dtype), read_llama(folder, dtype, None)
    assert ours is not None
    expected, found = theirs(drawn(1, 300)), ours(drawn(1, 300))
    assert torch.equal(found.logits, expected.logits)
    cache, theirs_cache = found.past_key_values, expected.past_key_values
    for tokens in [1] * 70 + [5, 1, 2]:  # more than the cache has capacity for
        ids = drawn(1, tokens)
        expected = theirs(ids, past_key_values=theirs_cache)
        found = ours(ids, past_key_values=cache)
        assert torch.equal(found.logits, expected.logits)
    assert cache.length == 378
    cache.crop(9)
    theirs_cache.crop(-9)
    expected = theirs(drawn(1, 4), past_key_values=theirs_cache, logits_to_keep=2)
    found = ours(drawn(1, 4), past_key_values=cache, logits_to_keep=2)
    assert found.logits.shape == (1, 2, 320)
    assert torch.equal(found.logits, expected.logits)


@torch.inference_mode()
def test_padding_on_the_left(folder: Path) -> None:
    theirs, ours = (
        transformers_own(folder, torch.bfloat16),
        read_llama(folder, torch.bfloat16, None),
    )
    assert ours is not None
    filled = torch.ones(3, 9, dtype=torch.long)
    filled[0, :6], filled[2, :2] = 0, 0
    caches: tuple[Any, Any] = (None, None)
    ids = drawn(3, 9)
    for _ in range(3):
        positions = (filled.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        more = {"attention_mask": filled, "position_ids": positions}
        expected = theirs(ids, past_key_values=caches[0], **more)
        found = ours(ids, past_key_values=caches[1], **more)
        assert torch.equal(found.logits[:, -1], expected.logits[:, -1])
        caches = (expected.past_key_values, found.past_key_values)
        filled, ids = torch.cat([filled, torch.ones(3, 1, dtype=torch.long)], 1), drawn(3, 1)
    caches[0].batch_select_indices(torch.tensor([2, 0]))
    caches[1].select(torch.tensor([2, 0]))
    more = {"attention_mask": filled[[2, 0]], "position_ids": filled[[2, 0]].sum(1)[:, None] - 1}
    expected = theirs(drawn(2, 1), past_key_values=caches[0], **more)
    found = ours(drawn(2, 1), past_key_values=caches[1], **more)
    assert torch.equal(found.logits, expected.logits)


@pytest.mark.parametrize("bits", ["int8", "int4"])
@torch.inference_mode()
def test_quantized_layers_compute_what_transformers_own_do(folder: Path, bits: Any) -> None:
    theirs, ours = transformers_own(folder, torch.float32), read_llama(folder, torch.float32, bits)
    assert ours is not None
    full = theirs(drawn(1, 20)).logits
    quantize(theirs, bits)
    expected, found = theirs(drawn(1, 20)), ours(drawn(1, 20))
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-3, rtol=1e-3)
    assert (found.logits - full).abs().max() > 1e-3  # it is quantized
    step = drawn(1, 1)
    expected = theirs(step, past_key_values=expected.past_key_values)
    found = ours(step, past_key_values=found.past_key_values)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-3, rtol=1e-3)


@pytest.mark.usefixtures("smollm2_folder")
@torch.inference_mode()
def test_smollm2_generates_what_transformers_generates() -> None:
    options = LoadOptions(device="cpu", offline=True, dtype="bfloat16")
    folder = model_folder(options.model)
    ours: LanguageModel = load_language_model(options)
    assert isinstance(ours.model, Llama)
    ids = ours.tokenizer.encode("The three laws of robotics are", special=True).ids
    theirs = transformers_own(folder, torch.bfloat16)
    asked = {"max_new_tokens": 250, "do_sample": False}
    expected = theirs.generate(torch.tensor([ids]), **asked)[0].tolist()
    done = run(
        *("generate", "The three laws of robotics are", "--greedy", "-n", "250", "--json"),
        *("--dtype", "bfloat16", "--logprobs"),
    )
    found = [token["id"] for token in json.loads(done.stdout)[0]["logprobs"]]
    assert found == expected[len(ids) :]
    assert len(found) > 100


@pytest.mark.usefixtures("smollm2_folder")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@torch.inference_mode()
def test_a_long_prompt_in_slices_gives_every_bit_of_one_pass(dtype: Any) -> None:
    options = LoadOptions(device="cpu", offline=True, dtype=dtype)
    ours = load_language_model(options)
    folder = model_folder(options.model)
    ids = torch.randint(40_000, (1300,), generator=torch.Generator().manual_seed(5)).tolist()
    expected = transformers_own(folder, ours.model.dtype)(
        torch.tensor([ids]), logits_to_keep=3
    ).logits[0]
    assert len(ids) > 2 * PREFILL_SLICE
    assert torch.equal(CachedModel(ours).last_logits(ids, 3), expected.float())


@torch.inference_mode()
def test_room_for_a_prompt_that_comes_in_slices_is_made_once() -> None:
    cache = KeyValueCache(1)
    cache.expect(9)
    places = set()
    for start, end in ((0, 4), (4, 8), (8, 9)):
        keys = torch.arange(start, end).float().view(1, 1, -1, 1)
        all_keys, all_values = cache.append(0, keys, -keys)
        cache.length = end
        places.add(all_keys.data_ptr())
        assert cache.nbytes == 2 * 9 * 4
    assert len(places) == 1
    assert all_keys.flatten().tolist() == list(range(9))
    assert torch.equal(all_values, -all_keys)


@torch.inference_mode()
def test_room_is_made_before_it_is_needed() -> None:
    cache = KeyValueCache(1)
    keys = torch.arange(12.0).view(1, 1, 6, 2)
    cache.append(0, keys, -keys)
    cache.length = 6
    assert cache.nbytes == 2 * keys.nbytes  # no spare capacity for a prompt
    places = set()
    for token in range(50):
        new = torch.full((1, 1, 1, 2), 100.0 + token)
        all_keys, all_values = cache.append(0, new, -new)
        cache.length += 1
        places.add(all_keys.data_ptr())
    assert len(places) == 1
    assert torch.equal(
        all_keys[0, 0, :, 0], torch.tensor([*range(0, 12, 2), *range(100, 150)]).float()
    )
    assert torch.equal(all_values, -all_keys)


# Models that are left to transformers


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return save_model(tmp_path / "tiny")


def configure(folder: Path, values: Mapping[str, Any]) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    "values",
    [
        {"some_new_option": 1},
        {"hidden_act": "gelu"},
        {"layer_types": ["sliding_attention", "full_attention"]},
        {"use_sliding_window": True},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
        {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "partial_rotary_factor": 1.0,
            }
        },
        {"eos_token_id": "x"},
        {"architectures": ["LlamaModel"]},
        {"architectures": None},
        {"rms_norm_eps": 1},
        {"num_attention_heads": 0},
        {"head_dim": 7},
    ],
    ids=str,
)
def test_a_config_that_is_left_to_transformers(tiny: Path, values: dict[str, Any]) -> None:
    assert read_llama(tiny, torch.float32, None) is not None
    configure(tiny, values)
    assert read_llama(tiny, torch.float32, None) is None


def test_mistral_has_a_window_where_none_is_named(tmp_path: Path) -> None:
    auto: Any = AutoModelForCausalLM
    auto.from_config(CONFIGS["mistral"]).save_pretrained(tmp_path)
    assert read_llama(tmp_path, torch.float32, None) is not None
    config = json.loads((tmp_path / "config.json").read_text())
    del config["sliding_window"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_llama(tmp_path, torch.float32, None) is None


def test_weights_that_do_not_fit(tiny: Path) -> None:
    file = tiny / "model.safetensors"
    weights = load_file(file)
    for change in (
        {"model.norm.weight": None},
        {"model.norm.weight": torch.ones(5)},
        {"model.norm.weight": torch.ones(32, dtype=torch.int8)},
        {"one.more": torch.ones(3)},
    ):
        changed = {
            name: value for name, value in {**weights, **change}.items() if value is not None
        }
        save_file(changed, file, {"format": "pt"})
        assert read_llama(tiny, torch.float32, None) is None
    save_file(weights, file, {"format": "pt"})
    assert read_llama(tiny, torch.float32, None) is not None
    index = {"weight_map": dict.fromkeys(weights, "../elsewhere/model.safetensors")}
    (tiny / "model.safetensors.index.json").write_text(json.dumps(index))
    shutil.copytree(tiny, tiny.parent / "elsewhere")
    file.unlink()  # it would come before an index
    assert read_llama(tiny, torch.float32, None) is None


def test_int4_of_a_shape_the_kernel_does_not_take(tmp_path: Path) -> None:
    config = LlamaConfig(**{**SIZES, "hidden_size": 40, "head_dim": 16})
    auto: Any = AutoModelForCausalLM
    auto.from_config(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    assert read_llama(tmp_path, torch.float32, "int8") is not None
    assert read_llama(tmp_path, torch.float32, "int4") is None


def test_beams_search_with_transformers_own_class(tiny: Path) -> None:
    options = LoadOptions(model=str(tiny), dtype="float32", device="cpu", offline=True)
    model = load_language_model(options)
    assert isinstance(model.model, Llama)
    assert type(model.transformers_model).__name__ == "LlamaForCausalLM"
    assert model.transformers_model is model.transformers_model


def test_the_embedded_model_is_one_of_them() -> None:
    folder = model_folder("smollm2")
    assert read_llama(folder, torch.bfloat16, None) is not None

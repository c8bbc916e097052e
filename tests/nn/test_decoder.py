"""Llama and related models: bit for bit what transformers' classes compute."""

import dataclasses
import importlib
import inspect
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from hftool.generation.prefix_cache import PREFILL_SLICE, CachedModel
from hftool.models.language_model import LanguageModel
from hftool.models.load import load_language_model
from hftool.nn.decoder import Decoder, read_decoder
from hftool.nn.decoder_families import FAMILIES
from hftool.nn.key_value_cache import KeyValueCache
from hftool.nn.quantization import quantize
from hftool.nn.rotary import BASES
from hftool.options.model import LoadOptions
from tests.conftest import model_folder, run
from tests.tiny_models import save_model, save_tokenizer, transformers_model

# The name that transformers has for a cache, which 5.24 changed.
CACHE = next(
    name
    for name in ("cache", "past_key_values")
    if name in inspect.signature(LlamaForCausalLM.forward).parameters
)
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}
PHI4 = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.1, 1.2, 1.5, 2.0, 2.5],
    "long_factor": [1.0, 2.0, 4.0, 8.0, 9.0, 11.0],
}
GEMMA = {
    "full_attention": {"rope_type": "linear", "rope_theta": 5e4, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e3},
}
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
SMALL: dict[str, Any] = {**SIZES, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "llama, a head each": LlamaConfig(**{**SIZES, "num_key_value_heads": 4}),
    "llama, biased and tied": LlamaConfig(
        **SIZES, attention_bias=True, mlp_bias=True, tie_word_embeddings=True
    ),
    "llama 3.1": LlamaConfig(**SIZES, head_dim=32, rope_parameters=LONG_ROPE),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=False),
    "llama, yarn": LlamaConfig(**SIZES, rope_parameters=YARN),
    "mistral, windows": MistralConfig(**SIZES, sliding_window=40),
    "qwen2, windows": Qwen2Config(
        **SIZES, use_sliding_window=True, sliding_window=30, max_window_layers=1
    ),
    "qwen3": Qwen3Config(**SIZES, head_dim=32, tie_word_embeddings=True),
    "smollm3": SmolLM3Config(**SMALL, no_rope_layer_interval=2, rope_parameters=LONG_ROPE),
    "phi3": Phi3Config(**SMALL, sliding_window=20),
    "phi4": Phi3Config(
        **SMALL, tie_word_embeddings=True, rope_parameters=PHI4, original_max_position_embeddings=64
    ),
    "gemma3": Gemma3TextConfig(
        **SIZES,
        head_dim=32,
        query_pre_attn_scalar=17,
        sliding_window=24,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters=GEMMA,
        final_logit_softcapping=30.0,
    ),
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


def drawn(*shape: int) -> torch.Tensor:
    return torch.randint(320, shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_every_bit_is_that_of_transformers(folder: Path, dtype: torch.dtype) -> None:
    theirs, ours = transformers_model(folder, dtype), read_decoder(folder, dtype, None)
    assert ours is not None
    expected, found = theirs(drawn(1, 300)), ours(drawn(1, 300))
    assert torch.equal(found.logits, expected.logits)
    cache, theirs_cache = found.cache, expected[CACHE]
    for tokens in [1] * 70 + [5, 1, 2]:  # more than the cache has capacity for
        ids = drawn(1, tokens)
        expected = theirs(ids, **{CACHE: theirs_cache})
        found = ours(ids, cache=cache)
        assert torch.equal(found.logits, expected.logits)
    assert cache.length == 378
    if any(ours.config.windows):  # transformers' own can't be cropped; see test_cache.py
        return
    cache.crop(9)
    theirs_cache.crop(-9)
    expected = theirs(drawn(1, 4), **{CACHE: theirs_cache}, logits_to_keep=2)
    found = ours(drawn(1, 4), cache=cache, logits_to_keep=2)
    assert found.logits.shape == (1, 2, 320)
    assert torch.equal(found.logits, expected.logits)


@torch.inference_mode()
def test_padding_on_the_left(folder: Path) -> None:
    theirs, ours = (
        transformers_model(folder, torch.bfloat16),
        read_decoder(folder, torch.bfloat16, None),
    )
    assert ours is not None
    filled = torch.ones(3, 9, dtype=torch.long)
    filled[0, :6], filled[2, :2] = 0, 0
    caches: tuple[Any, Any] = (None, None)
    ids = drawn(3, 9)
    for _ in range(3):
        positions = (filled.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        more = {"attention_mask": filled, "position_ids": positions}
        expected = theirs(ids, **{CACHE: caches[0]}, **more)
        found = ours(ids, cache=caches[1], **more)
        assert torch.equal(found.logits[:, -1], expected.logits[:, -1])
        caches = (expected[CACHE], found.cache)
        filled, ids = torch.cat([filled, torch.ones(3, 1, dtype=torch.long)], 1), drawn(3, 1)
    caches[0].batch_select_indices(torch.tensor([2, 0]))
    caches[1].select(torch.tensor([2, 0]))
    more = {"attention_mask": filled[[2, 0]], "position_ids": filled[[2, 0]].sum(1)[:, None] - 1}
    expected = theirs(drawn(2, 1), **{CACHE: caches[0]}, **more)
    found = ours(drawn(2, 1), cache=caches[1], **more)
    assert torch.equal(found.logits, expected.logits)


@pytest.mark.parametrize("bits", ["int8", "int4"])
@torch.inference_mode()
def test_quantized_layers_compute_what_transformers_own_do(folder: Path, bits: Any) -> None:
    theirs, ours = (
        transformers_model(folder, torch.float32),
        read_decoder(folder, torch.float32, bits),
    )
    assert ours is not None
    full = theirs(drawn(1, 20)).logits
    quantize(theirs, bits)
    expected, found = theirs(drawn(1, 20)), ours(drawn(1, 20))
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-3, rtol=1e-3)
    assert (found.logits - full).abs().max() > 1e-3  # it is quantized
    step = drawn(1, 1)
    expected = theirs(step, **{CACHE: expected[CACHE]})
    found = ours(step, cache=found.cache)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-3, rtol=1e-3)


@pytest.mark.usefixtures("smollm2_folder")
@torch.inference_mode()
def test_smollm2_generates_what_transformers_generates() -> None:
    options = LoadOptions(device="cpu", offline=True, dtype="bfloat16")
    folder = model_folder(options.model)
    ours: LanguageModel = load_language_model(options)
    assert isinstance(ours.model, Decoder)
    ids = ours.tokenizer.encode("The three laws of robotics are", special=True).ids
    theirs = transformers_model(folder, torch.bfloat16)
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
    expected = transformers_model(folder, ours.model.dtype)(
        torch.tensor([ids]), logits_to_keep=3
    ).logits[0]
    assert len(ids) > 2 * PREFILL_SLICE
    assert torch.equal(CachedModel(ours).last_logits(ids, 3), expected.float())


@torch.inference_mode()
def test_room_for_a_prompt_that_comes_in_slices_is_made_once() -> None:
    cache = KeyValueCache([None])
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
    cache = KeyValueCache([None])
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
        {"quantization_config": {"quant_method": "gptq"}},
        {"transformers_weights": "other.safetensors"},
        {"is_causal": False},
        {"hidden_act": "gelu"},
        {"layer_types": ["sliding_attention", "full_attention"]},
        {"sliding_window": 8},
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
        {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "long_factor": [1.0]}},
        {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
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
    assert read_decoder(tiny, torch.float32, None) is not None
    configure(tiny, values)
    assert read_decoder(tiny, torch.float32, None) is None


@torch.inference_mode()
def test_settings_without_effect_and_llama_2s_missing_base(tiny: Path) -> None:
    ids = torch.arange(9)[None]
    expected = transformers_model(tiny, torch.float32)(ids).logits
    configure(tiny, {"some_new_option": 1, "pretraining_tp": 2, "use_mrope": False})
    config = json.loads((tiny / "config.json").read_text())
    assert config.pop("rope_parameters") == {"rope_theta": 10000.0, "rope_type": "default"}
    (tiny / "config.json").write_text(json.dumps(config))
    ours = read_decoder(tiny, torch.float32, None)
    assert ours is not None
    assert torch.equal(ours(ids).logits, expected)


WITHOUT_EFFECT = {
    *("_attn_implementation", "attention_dropout", "bos_token_id", "embd_pdrop", "eos_token_id"),
    *("initializer_range", "pad_token_id", "pretraining_tp", "resid_pdrop", "use_cache"),
}
OF_IMAGES = {"get_text_config", "image_token_id", "mm_tokens_per_image", "text_config"}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_transformers_classes_read_no_other_settings(model_type: str) -> None:
    settings = FAMILIES[model_type].settings
    kind: Any = type(AutoConfig.for_model(model_type))
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    fields = {n: v for n, v in fields.items() if n in vars(kind).get("__annotations__", {})}
    known = {*settings, *SIZES, *WITHOUT_EFFECT}
    assert set(fields) <= known
    assert {name: fields[name] for name in fields.keys() & settings.keys()} == {
        name: settings[name] for name in fields.keys() & settings.keys()
    }
    base = kind.default_theta
    assert BASES.get(model_type, 1e4) == (base["global"] if isinstance(base, dict) else base)
    module = importlib.import_module(kind.__module__.replace("configuration", "modeling"))
    read = set(re.findall(r"\bconfig\.([a-z_]\w*)", inspect.getsource(module)))
    assert read - known <= (OF_IMAGES | {"vision_config"} if "gemma" in model_type else set())


def test_weights_that_do_not_fit(tiny: Path) -> None:
    file = tiny / "model.safetensors"
    weights = load_file(file)
    older = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file({**weights, **older}, file, {"format": "pt"})
    assert read_decoder(tiny, torch.float32, None) is not None
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
        assert read_decoder(tiny, torch.float32, None) is None
    save_file(weights, file, {"format": "pt"})
    assert read_decoder(tiny, torch.float32, None) is not None
    index = {"weight_map": dict.fromkeys(weights, "../elsewhere/model.safetensors")}
    (tiny / "model.safetensors.index.json").write_text(json.dumps(index))
    shutil.copytree(tiny, tiny.parent / "elsewhere")
    file.unlink()  # it would come before an index
    assert read_decoder(tiny, torch.float32, None) is None


def test_int4_of_a_shape_the_kernel_does_not_take(tmp_path: Path) -> None:
    config = LlamaConfig(**{**SIZES, "hidden_size": 40, "head_dim": 16})
    auto: Any = AutoModelForCausalLM
    auto.from_config(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    assert read_decoder(tmp_path, torch.float32, "int8") is not None
    assert read_decoder(tmp_path, torch.float32, "int4") is None


def test_beams_use_the_weights_that_are_loaded(tiny: Path) -> None:
    batch = tiny.parent / "batch.jsonl"
    beams: tuple[dict[str, int], ...] = ({}, {"num_beams": 3}, {"num_beams": 2})
    batch.write_text("".join(json.dumps({"prompt": "abc", **more}) + "\n" for more in beams))
    asked = ("-m", str(tiny), "-n", "9", "--greedy", "--dtype", "float32", "--device", "cpu")
    result = run("generate", "--batch", str(batch), *asked, "--logprobs", "--json", "-v")
    assert result.stderr.count("hftool's own code computes it") == 1
    assert "transformers' " not in result.stderr  # no class of its is loaded
    ids = AutoTokenizer.from_pretrained(tiny)("abc", return_tensors="pt").input_ids
    for more, record in zip(beams, json.loads(result.stdout), strict=True):
        settings = {"max_new_tokens": 9, "do_sample": False, "pad_token_id": 0, **more}
        found = transformers_model(tiny).generate(ids, attention_mask=ids > 0, **settings)
        assert [token["id"] for token in record["logprobs"]] == found[0, ids.shape[1] :].tolist()


def test_verbose_names_the_code_that_computes(tiny: Path) -> None:
    asked = ("topk", "a", "-m", str(tiny), "--offline", "--device", "cpu", "-v")
    assert "hftool's own code computes it" in run(*asked).stderr
    configure(tiny, {"hidden_act": "gelu"})
    told = run(*asked).stderr
    assert "because its activation is 'gelu'" in told
    assert "transformers' LlamaForCausalLM computes it" in told


@torch.inference_mode()
def test_the_text_of_a_multimodal_gemma(tmp_path: Path) -> None:
    text = {**SIZES, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = Gemma3Config(
        text_config={**text, "head_dim": 16, "sliding_window": 9},
        vision_config=vision,
        mm_tokens_per_image=4,
    )
    torch.manual_seed(3)
    theirs: Any = Gemma3ForConditionalGeneration(config)
    theirs.eval()
    theirs.save_pretrained(tmp_path)
    ours = read_decoder(tmp_path, torch.float32, None)
    assert ours is not None
    assert torch.equal(ours(drawn(1, 30)).logits, theirs(input_ids=drawn(1, 30)).logits)


def test_the_embedded_model_is_one_of_them() -> None:
    folder = model_folder("smollm2")
    assert read_decoder(folder, torch.bfloat16, None) is not None

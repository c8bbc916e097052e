"""LoRA adapters, against peft on the same model."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, Qwen3MoeConfig

from hftool.errors import HftoolError
from hftool.models import converted_copies
from hftool.models.adapters import merge_adapters
from hftool.models.load import load_language_model
from hftool.models.references import AdaptedModel, HubModel, LocalFolder, resolve_reference
from hftool.nn.decoder import Decoder
from hftool.options.model import LoadOptions
from tests.conftest import run
from tests.tiny_models import (
    VOCABULARY,
    all_logits,
    load_model,
    save_classifier,
    save_model,
    save_tokenizer,
    transformers_model,
    transformers_tokenizer,
)

IDS = list(range(20))
# Of peft with this version of transformers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("base") / "m")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HFTOOL_CACHE", str(tmp_path / "cache"))


def save_adapter(folder: Path, model: Any, seed: int = 1, **settings: Any) -> Path:
    """An adapter with random factors, as peft saves it."""
    torch.manual_seed(seed)
    given = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], **settings}
    adapted = get_peft_model(model, LoraConfig(**{"task_type": "CAUSAL_LM", **given}))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.normal_(0, 0.2)
    adapted.save_pretrained(str(folder))
    return folder


def peft_logits(base: Path, adapters: Sequence[tuple[Path, float]]) -> torch.Tensor:
    """What the model gives after each token with peft's adapters on it, not merged."""
    model: Any = transformers_model(base)
    for folder, scale in adapters:
        model = PeftModel.from_pretrained(model, str(folder))
        for module in model.modules():
            if hasattr(module, "scale_layer"):
                module.scale_layer(scale)
        if len(adapters) > 1:
            model = model.merge_and_unload()
    return all_logits(model.eval(), IDS)


def our_logits(ref: str, **options: Any) -> torch.Tensor:
    model = load_language_model(
        LoadOptions(model=ref, dtype="float32", device="cpu", offline=True, **options)
    )
    return model.forward(torch.tensor([IDS]))[0]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 3}},
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["embed_tokens", "v_proj"]},
        {"trainable_token_indices": [5, 6]},
    ],
)
def test_an_adapter_gives_what_peft_gives(
    base: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    adapter = save_adapter(tmp_path / "a", transformers_model(base), **settings)
    expected = peft_logits(base, [(adapter, 1.0)])
    assert (expected - all_logits(transformers_model(base), IDS)).abs().max() > 0.1
    merge_adapters(base, [(adapter, 1.0)], tmp_path)
    ours = load_model(tmp_path).forward(torch.tensor([IDS]))[0]
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
        {"target_modules": ["lm_head"]},
        {"modules_to_save": ["lm_head"]},
    ],
)
def test_embeddings_that_the_output_layer_shares(tmp_path: Path, settings: dict[str, Any]) -> None:
    base = save_model(tmp_path / "base", tie_word_embeddings=True)
    adapter = save_adapter(tmp_path / "a", transformers_model(base), **settings)
    expected = peft_logits(base, [(adapter, 1.0)])
    merge_adapters(base, [(adapter, 1.0)], tmp_path)
    ours = load_model(tmp_path).forward(torch.tensor([IDS]))[0]
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_experts_and_what_has_no_scale(tmp_path: Path, base: Path) -> None:
    sizes: dict[str, Any] = {
        **{"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48},
        **{"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2},
        **{"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    }
    config, auto = Qwen3MoeConfig(**sizes), cast(Any, AutoModelForCausalLM)
    auto.from_config(config).save_pretrained(tmp_path / "experts")
    save_tokenizer(tmp_path / "experts")
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    adapter = save_adapter(
        tmp_path / "a",
        transformers_model(tmp_path / "experts"),
        target_modules=["q_proj"],
        target_parameters=parameters,
    )
    expected = peft_logits(tmp_path / "experts", [(adapter, 1.0)])
    merge_adapters(tmp_path / "experts", [(adapter, 1.0)], tmp_path)
    ours = load_model(tmp_path).forward(torch.tensor([IDS]))[0]
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    for kind, cause in (
        (IA3Config(task_type="CAUSAL_LM"), "IA3, which has no scale"),
        (PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), "changes no weights"),
    ):
        get_peft_model(transformers_model(base), kind).save_pretrained(str(tmp_path / "other"))
        with pytest.raises(ValueError, match=cause):
            merge_adapters(base, [(tmp_path / "other", 0.5)], tmp_path / "out")


def test_scales_and_several_adapters(base: Path, tmp_path: Path) -> None:
    first = save_adapter(tmp_path / "a", transformers_model(base))
    second = save_adapter(tmp_path / "b", transformers_model(base), 2, target_modules=["o_proj"])
    expected = peft_logits(base, [(first, 0.5), (second, -1.0)])
    both = {"adapter": [f"{first}:0.5", f"{second}:-1"]}
    torch.testing.assert_close(our_logits(str(base), **both), expected, atol=1e-4, rtol=1e-4)
    assert isinstance(load_model(Path(f"{base}+{first}:0.5")).model, Decoder)  # the fast code


def test_the_base_is_found_by_itself(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "a", transformers_model(base))
    expected = our_logits(f"{base}+{adapter}")
    assert not (adapter / "config.json").exists()  # as peft writes it
    torch.testing.assert_close(our_logits(str(adapter)), expected)
    by_option = LoadOptions(adapter=[f"{adapter}:1"])
    assert (by_option.model, by_option.adapter) == (f"+{adapter}:1", None)
    torch.testing.assert_close(our_logits(by_option.model), expected)
    shutil.copy(base / "config.json", adapter)
    torch.testing.assert_close(our_logits(str(adapter)), expected)


def test_commands_with_adapters(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "a", transformers_model(base))
    compared = run("topk", "hello", "-m", str(base), "--compare", f"{base}+{adapter}", "--json")
    assert compared.exit_code == 0, compared.stderr
    assert len(json.loads(compared.stdout)) > 0
    alone = run("topk", "hello", "-m", str(adapter), "-k", "3", "--json")
    with_option = run(
        "topk", "hello", "-m", str(base), "--adapter", str(adapter), "-k", "3", "--json"
    )
    assert [r["prob"] for r in json.loads(alone.stdout)] == [
        r["prob"] for r in json.loads(with_option.stdout)
    ]
    small = run("generate", "hello", "-m", str(adapter), "-n", "3", "--quantize", "int8")
    assert small.exit_code == 0, small.stderr
    ids = run("encode", "hello", "-m", str(adapter))
    assert ids.stdout == run("encode", "hello", "-m", str(base)).stdout


def test_an_adapter_of_a_classifier(tmp_path: Path) -> None:
    base = save_classifier(tmp_path / "c", ["a", "b"])
    auto: Any = AutoModelForSequenceClassification
    model = auto.from_pretrained(base, num_labels=3, ignore_mismatched_sizes=True)
    adapter = save_adapter(
        tmp_path / "a", model, task_type="SEQ_CLS", target_modules=["query", "value"]
    )
    result = run("sentiment", "hello", "-m", str(adapter), "--json")
    assert result.exit_code == 0, result.stderr
    (record,) = json.loads(result.stdout)
    fresh = auto.from_pretrained(base, num_labels=3, ignore_mismatched_sizes=True)
    theirs: Any = PeftModel.from_pretrained(fresh, str(adapter)).eval()
    with torch.no_grad():
        logits = theirs(**transformers_tokenizer(base)("hello", return_tensors="pt")).logits[0]
    best = int(logits.argmax())
    assert record["label"] == f"LABEL_{best}"
    assert record["score"] == pytest.approx(float(logits.softmax(0)[best]), abs=1e-4)


def test_what_is_wrong_with_an_adapter(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = save_adapter(tmp_path / "a", transformers_model(base))
    other = save_model(tmp_path / "gpt2", "gpt2")
    with pytest.raises(HftoolError, match="which the model does not have"):
        our_logits(f"{other}+{adapter}")
    with pytest.raises(HftoolError, match="is not an adapter: it has no"):
        our_logits(f"{base}+{other}")
    config = json.loads((adapter / "adapter_config.json").read_text())
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**config, "base_model_name_or_path": "no/where"}))
    with pytest.raises(HftoolError, match="no/where is not in the local cache"):
        our_logits(str(adapter))
    path.write_text(json.dumps({**config, "base_model_name_or_path": None}))
    with pytest.raises(HftoolError, match="an adapter that does not name its base model"):
        our_logits(str(adapter))
    quantized = Path(shutil.copytree(base, tmp_path / "quantized"))
    settings = json.loads((base / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": "fp8"}
    (quantized / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="it is quantized, and adapters are merged into plain"):
        merge_adapters(quantized, [(adapter, 1.0)], tmp_path / "out")
    monkeypatch.setattr(converted_copies, "find_spec", lambda name: None)
    with pytest.raises(HftoolError, match="an adapter needs the package peft"):
        our_logits(f"{base}+{adapter}")


def test_references_with_adapters(tmp_path: Path) -> None:
    folder = tmp_path / "c++"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert resolve_reference(str(folder)) == LocalFolder(folder)
    first, second = HubModel("o/a"), HubModel("o/b", "v1")
    assert resolve_reference("o/m+o/a:0.5+o/b@v1") == AdaptedModel(
        HubModel("o/m"), ((first, 0.5), (second, 1.0))
    )
    assert resolve_reference("+o/a") == AdaptedModel(None, ((first, 1.0),))

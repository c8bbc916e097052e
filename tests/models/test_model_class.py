"""The class that a model is loaded with: by its config.json, and for text alone where it can be."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from hftool.models.load import load_language_model
from hftool.models.model_class import find_auto_class, is_for_text
from hftool.options.model import LoadOptions
from tests.conftest import run
from tests.tiny_models import all_logits
from tools.tiny_architectures import architectures, save


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "AutoModelForCausalLM"),
        ({"model_type": "llama"}, "AutoModelForCausalLM"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "AutoModelForMaskedLM"),
        ({"model_type": "bert", "architectures": ["BertLMHeadModel"]}, "AutoModelForMaskedLM"),
        (
            {"model_type": "bert", "architectures": ["BertLMHeadModel"], "is_decoder": True},
            "AutoModelForCausalLM",
        ),
        ({"model_type": "bert", "architectures": ["BertForSequenceClassification"]}, None),
        (
            {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}
            | {"is_encoder_decoder": True},
            "AutoModelForSeq2SeqLM",
        ),
        (
            {"model_type": "bart", "architectures": ["BartForConditionalGeneration"]}
            | {"is_encoder_decoder": True},
            "AutoModelForSeq2SeqLM",
        ),
        (
            {"model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"]},
            "AutoModelForMultimodalLM",
        ),
        ({"model_type": "nobody's", "architectures": ["OwnForCausalLM"]}, None),
    ],
)
def test_auto_class(config: dict[str, Any], expected: str | None) -> None:
    assert find_auto_class(config, next(iter(config.get("architectures", ())), None)) == expected


def multimodal(model_type: str, folder: Path) -> Path:
    [architecture] = [a for a in architectures(("image-text",)) if a.model_type == model_type]
    save(architecture, folder)
    return folder


@pytest.fixture(scope="module")
def gemma3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return multimodal("gemma3", tmp_path_factory.mktemp("gemma3"))


@pytest.mark.parametrize("model_type", ["llava", "qwen2_5_vl", "smolvlm"])
def test_only_the_text_of_a_multimodal_model_is_loaded(model_type: str, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    folder = multimodal(model_type, tmp_path)
    model = load_language_model(LoadOptions(model=str(folder), dtype="float32", device="cpu"))
    names = [name for name, _ in model.model.named_parameters() if not is_for_text(name)]
    assert not [name for name in names if re.search(r"(blocks|layers)\.", name)]
    auto: Any = AutoModelForImageTextToText
    whole = auto.from_pretrained(folder, dtype=torch.float32).eval()
    ids = list(b"What is in the picture?")
    torch.testing.assert_close(all_logits(model.model, ids), all_logits(whole, ids))


def test_commands_on_a_multimodal_model(gemma3: Path) -> None:
    for command in (
        ("generate", "abc", "-n", "3", "--greedy"),
        ("generate", "abc", "-n", "3", "--num-beams", "2"),
        ("sample", "abc", "--steps", "3"),
        ("topk", "abc", "--quantize", "int8"),
    ):
        result = run(*command, "-m", str(gemma3), "--dtype", "float32", "--format", "jsonl")
        assert (result.exit_code, "tensors" in result.stderr) == (0, False), result.stderr

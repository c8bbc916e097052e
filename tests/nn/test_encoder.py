"""BERT, DistilBERT and RoBERTa: the logits of transformers' own classes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from hftool.models.load import load_classifier
from hftool.nn.encoder import Encoder, read_encoder
from hftool.nn.quantization import quantize
from hftool.options.model import ClassifierOptions
from tests.conftest import model_folder

SIZES: dict[str, Any] = {"vocab_size": 300, "max_position_embeddings": 64, "initializer_range": 0.3}
BERT: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
LABELS: dict[str, Any] = {
    "id2label": {0: "BAD", 1: "SO", 2: "GOOD"},
    "label2id": {"BAD": 0, "SO": 1, "GOOD": 2},
}
CONFIGS: dict[str, Any] = {
    "bert": BertConfig(**SIZES, **BERT, **LABELS, num_attention_heads=4),
    "bert of one layer": BertConfig(
        **SIZES, **{**BERT, "num_hidden_layers": 1}, **LABELS, num_attention_heads=2
    ),
    "distilbert": DistilBertConfig(**SIZES, **LABELS, n_layers=2, n_heads=4, dim=32, hidden_dim=48),
    "roberta": RobertaConfig(**SIZES, **BERT, **LABELS, num_attention_heads=4),
    "xlm-roberta": XLMRobertaConfig(
        **SIZES, **BERT, **LABELS, num_attention_heads=4, type_vocab_size=1, pad_token_id=3
    ),
    "camembert": CamembertConfig(**SIZES, **BERT, **LABELS, num_attention_heads=4),
}


def save(folder: Path, config: Any) -> Path:
    torch.manual_seed(4)
    auto: Any = AutoModelForSequenceClassification
    model = auto.from_config(config)
    with torch.no_grad():  # so that biases and norms have an effect
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("bert"), CONFIGS[request.param])


def transformers_own(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    auto: Any = AutoModelForSequenceClassification
    return auto.from_pretrained(folder, dtype=dtype).eval()


def inputs(*lengths: int, types: bool, padding: int = 0) -> dict[str, torch.Tensor]:
    """Return random token ids, padded on the right to the longest."""
    draw = torch.Generator().manual_seed(sum(lengths))
    shape = (len(lengths), max(lengths))
    filled = torch.arange(shape[1])[None] < torch.tensor(lengths)[:, None]
    found = {
        "input_ids": torch.randint(300, shape, generator=draw).where(filled, padding),
        "attention_mask": filled.long(),
    }
    if types:
        found["token_type_ids"] = torch.randint(2, shape, generator=draw)
    return found


@pytest.mark.parametrize(
    ("dtype", "off"), [(torch.float32, 2e-5), (torch.bfloat16, 0.1), (torch.float16, 0.01)]
)
@torch.inference_mode()
def test_the_logits_are_those_of_transformers(folder: Path, dtype: Any, off: float) -> None:
    theirs, ours = transformers_own(folder, dtype), read_encoder(folder, dtype, None)
    assert ours is not None
    has_types = getattr(theirs.config, "type_vocab_size", 0) > 1
    padding = theirs.config.pad_token_id
    for lengths in ((1,), (60,), (5, 5), (9, 2, 40)):
        given = inputs(*lengths, types=has_types, padding=padding)
        expected, found = theirs(**given).logits, ours(**given).logits
        assert found.shape == (len(lengths), 3)
        torch.testing.assert_close(found, expected, atol=off, rtol=1e-3)
        spread = float(expected.float().std())
        assert spread > 4 * off or len(lengths) < 3  # otherwise any logits would be close
    ids = inputs(7, types=False)["input_ids"]
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=off, rtol=1e-3)


@torch.inference_mode()
def test_int8_is_that_of_transformers_own_layers(folder: Path) -> None:
    theirs, ours = transformers_own(folder), read_encoder(folder, torch.float32, "int8")
    assert ours is not None
    # Five texts: of up to four rows, `hftool_kernels` rounds the inputs twice, and the last layer
    # has a row per text where transformers' has one per token.
    given = inputs(9, 2, 40, 7, 5, types=False, padding=theirs.config.pad_token_id)
    full = theirs(**given).logits
    quantize(theirs, "int8", inputs_too=True)
    expected, found = theirs(**given).logits, ours(**given).logits
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=1e-2)
    assert (found - full).abs().max() > 1e-4


@pytest.mark.parametrize(
    "values",
    [
        {"quantization_config": {"quant_method": "gptq"}},
        {"hidden_act": "relu"},
        {"is_decoder": True},
        {"add_cross_attention": True},
        {"position_embedding_type": "relative_key"},
        {"problem_type": "nonesuch"},
        {"id2label": None},
        {"id2label": {"one": "BAD", "2": "SO", "3": "GOOD"}},
        {"id2label": {"0": "BAD", "1": "GOOD"}},  # the weights are for three labels
        {"num_attention_heads": 5},
        {"num_hidden_layers": "3"},
        {"pad_token_id": "0"},
        {"architectures": ["BertForMaskedLM"]},
    ],
    ids=str,
)
def test_a_config_that_is_left_to_transformers(tmp_path: Path, values: dict[str, Any]) -> None:
    save(tmp_path, CONFIGS["bert"])
    assert read_encoder(tmp_path, torch.float32, None) is not None
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    assert read_encoder(tmp_path, torch.float32, None) is None


def test_one_weight_more(tmp_path: Path) -> None:
    save(tmp_path, CONFIGS["bert"])
    file = tmp_path / "model.safetensors"
    save_file({**load_file(file), "bert.more": torch.ones(2)}, file, {"format": "pt"})
    assert read_encoder(tmp_path, torch.float32, None) is None


def test_the_embedded_classifier_is_one_of_them() -> None:
    folder = model_folder("minilm-sst2")
    loaded = load_classifier(ClassifierOptions(model=str(folder), device="cpu", offline=True))
    assert isinstance(loaded.model, Encoder)
    assert loaded.labels == ("NEGATIVE", "POSITIVE")
    assert loaded.max_length == 512

"""The class of transformers that a language model is loaded with.

A multimodal model is used for text alone: its language model is a class of its own in most
families, so that the rest need not be loaded.
"""

import copy
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hftool.nn.architectures import GENERATOR_SUFFIXES, LAYER_COUNT_KEYS

AutoClass = Literal[
    "AutoModelForCausalLM",
    "AutoModelForMultimodalLM",
    "AutoModelForSeq2SeqLM",
    "AutoModelForMaskedLM",
    "AutoModelForSequenceClassification",
]
# Each auto class with the name of transformers' table of its architectures; the first one that has
# an architecture is used.
TABLES: dict[AutoClass, str] = {
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "AutoModelForMultimodalLM": "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES",
    "AutoModelForSeq2SeqLM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "AutoModelForMaskedLM": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
}

# What a checkpoint of a multimodal model calls the weights of its language model, and what that
# calls them itself.
TEXT_WEIGHTS = {
    r"^(model\.)?language_model\.lm_head\.": "lm_head.",
    r"^(model\.)?language_model\.(model\.)?": "model.",
}
TEXT_PREFIX = "language_model."
LOGIT_SETTINGS = ("logit_scale", "logits_scaling", "final_logit_softcapping")


@dataclass(frozen=True)
class ModelClass:
    """A class of transformers: the auto class, the configuration that chooses among its classes,
    and the names that weights have instead of those in the checkpoint.

    With `for_text` it leaves weights for images and sounds out.
    """

    auto: AutoClass
    config: Any
    key_mapping: dict[str, str] = field(default_factory=dict)
    for_text: bool = False


def find_auto_class(config: Mapping[str, Any], architecture: str | None) -> AutoClass | None:
    """Return the auto class for a config.json, and for the first architecture that it names; None
    if transformers knows none that makes text.

    BERT and related models have classes for causal language models too; without `is_decoder` they
    are masked ones all the same.
    """
    from transformers.models.auto import modeling_auto

    model_type = str(config.get("model_type"))
    known = {
        auto: names[model_type]
        for auto, table in TABLES.items()
        if model_type in (names := getattr(modeling_auto, table))
    }
    if architecture and not any(architecture in _as_list(names) for names in known.values()):
        return next(iter(known), None) if architecture.endswith(GENERATOR_SUFFIXES) else None
    named = [auto for auto, names in known.items() if architecture in _as_list(names)]
    if "AutoModelForMaskedLM" in known and not config.get("is_encoder_decoder"):
        decodes = config.get("is_decoder") or config.get("causal")
        if "AutoModelForMaskedLM" in named or ("AutoModelForCausalLM" in named and not decodes):
            if not decodes:
                return "AutoModelForMaskedLM"
    return next(iter(named or known), None)


def _as_list(names: str | Sequence[str]) -> Sequence[str]:
    return [names] if isinstance(names, str) else names


def text_class(config: Any, weight_names: Sequence[str]) -> ModelClass | None:
    """Return the class of a multimodal model's language model; None if it has none of its own.

    Args:
        config: the configuration of the whole model.
        weight_names: the names in the checkpoint.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MULTIMODAL_LM_MAPPING,
    )

    text = config.get_text_config()
    if (
        text is config
        or getattr(text, "model_type", None) not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        or config.is_encoder_decoder
    ):
        return None
    if getattr(config, "quantization_config", None) is not None:
        return None
    # Some whole models leave out what the class for text does to its logits.
    changed = [n for n in LOGIT_SETTINGS if getattr(text, n, None) not in (None, 1, 1.0)]
    mapping: Any = MODEL_FOR_MULTIMODAL_LM_MAPPING
    whole = inspect.getsource(mapping[type(config)].forward)
    if not all(name in whole for name in changed):
        return None
    if not any(TEXT_PREFIX in name for name in weight_names):
        return None
    if not any("lm_head" in name for name in weight_names):
        text.tie_word_embeddings = True
    if getattr(config, "eos_token_id", None) is not None:
        text.eos_token_id = config.eos_token_id
    return ModelClass("AutoModelForCausalLM", text, TEXT_WEIGHTS, for_text=True)


def without_towers(config: Any) -> Any | None:
    """Return the configuration of a multimodal model whose parts for images and sounds have no
    layers; None if it has no such parts.

    Most families whose language model has no class of its own can be built like that.
    """
    if getattr(config, "quantization_config", None) is not None or config.is_encoder_decoder:
        return None
    small = copy.deepcopy(config)
    text = small.get_text_config()
    names = [n for n in small.sub_configs if getattr(small, n, None) not in (None, text)]
    found = False
    for part in () if text is small else [getattr(small, name) for name in names]:
        for key in (*LAYER_COUNT_KEYS, "depth"):
            if type(getattr(part, key, None)) is int:
                setattr(part, key, 0)
                found = True
    return small if found else None


def is_for_text(weight_name: str) -> bool:
    """Return whether a weight of a multimodal model is not for images or sounds, by its name."""
    return re.search(r"audio|image|multi_?modal|vision|visual", weight_name) is None


def uses_all_text(info: Mapping[str, Any]) -> bool:
    """Return whether the class for text alone has, and uses, all weights of the language model.

    Args:
        info: what transformers returns for `output_loading_info`.
    """
    others = [*info["missing_keys"], *info["mismatched_keys"]]
    return not others and not any(
        TEXT_PREFIX in name or name.startswith("model.layers.") for name in info["unexpected_keys"]
    )

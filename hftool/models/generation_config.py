"""What a model says about generating text: the fields of its generation_config.json.

The names are those of transformers' `GenerationConfig` (transformers 5.23).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hftool.catalogue import BUILT_IN
from hftool.json_files import read_json
from hftool.models.references import AdaptedModel, ModelSource

OWN_FIELDS = (
    *("do_sample", "temperature", "top_h", "top_k", "top_p", "min_p", "typical_p"),
    *("epsilon_cutoff", "eta_cutoff", "repetition_penalty", "no_repeat_ngram_size"),
    *("max_new_tokens", "max_length", "stop_strings", "num_beams", "length_penalty"),
    *("early_stopping", "num_return_sequences"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
)
"""Fields that hftool reads itself."""

PROCESSOR_FIELDS: dict[str, Any] = {
    "guidance_scale": 1,
    "sequence_bias": None,
    "encoder_repetition_penalty": 1,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "min_length": 0,
    "min_new_tokens": 0,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "remove_invalid_values": False,
    "exponential_decay_length_penalty": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "watermarking_config": None,
    "renormalize_logits": False,
}
"""Fields for which transformers makes logits processors, with the value that has no effect."""

UNUSED_FIELDS: dict[str, Any] = {
    "max_time": None,
    "token_healing": False,
    "penalty_alpha": 0,
    "dola_layers": None,
    "num_beam_groups": 1,
    "diversity_penalty": 0,
    "constraints": None,
    "force_words_ids": None,
    "assistant_ensemble_weight": None,
    "use_mtp": False,
}
"""Fields that would change the text and that hftool does not have, with the value that has no
effect."""


def read_generation_config(folder: Path) -> dict[str, Any]:
    """Return the fields of a model's generation_config.json.

    Where the file is missing, they are those in config.json: old models have them there.

    Raises:
        HftoolError: a file can't be read.
    """
    if (folder / "generation_config.json").exists():
        return read_json(folder / "generation_config.json")
    config = read_json(folder / "config.json")
    text_config = config.get("text_config")
    inner = text_config if isinstance(text_config, dict) else {}
    names = (*OWN_FIELDS, *PROCESSOR_FIELDS, *UNUSED_FIELDS)
    found = {name: config[name] for name in names if config.get(name) is not None}
    return {name: inner[name] for name in names if inner.get(name) is not None} | found


def recommended_settings(source: ModelSource) -> Mapping[str, Any]:
    """Return the fields that the catalogue adds to an embedded model's generation_config."""
    model = source.base if isinstance(source, AdaptedModel) else source
    sha256 = getattr(model, "sha256", None)
    embedded = (alias.embedded for alias in BUILT_IN.values() if alias.embedded)
    return next((e.generation_config for e in embedded if e.sha256 == sha256), {})


def has_effect(value: Any, neutral: Any) -> bool:
    """Return whether a field's value changes anything; empty lists do not."""
    return value is not None and value is not False and value != neutral and value not in ([], {})

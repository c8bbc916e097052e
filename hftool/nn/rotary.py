"""Rotary position embeddings, as the settings of a config.json have them."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from hftool.nn.architectures import NotComputed
from hftool.nn.decoder_families import KINDS, SIZES

Settings = Mapping[str, Any]

SCALED = ("linear", "llama3", "longrope", "yarn")
BASES = {"gemma3_text": 1e6, "smollm3": 2e6}  # of rotary embeddings; 1e4 in other families
LOCAL_BASE = 1e4  # of Gemma 3's layers with a window


@dataclass(frozen=True)
class Rope:
    """Rotary position embeddings (Su et al. 2021).

    Attributes:
        angles: by which each position rotates each pair of a head's numbers, in radians: float32
            [rotated numbers / 2].
        scale: a factor of cosines and sines.
        switch: texts of more tokens have the angles `beyond` (longrope), where there are any.
    """

    angles: torch.Tensor
    scale: float = 1.0
    switch: int = 0
    beyond: torch.Tensor | None = None


def read_ropes(
    settings: Settings, config: Settings, model_type: str
) -> tuple[list[Rope], dict[str, Any]]:
    """Return the position embeddings, in Gemma 3 those of layers without and with a window, and
    their settings as transformers' configurations have them."""
    scaling, given = config.get("rope_scaling"), config.get("rope_parameters")
    if any(not isinstance(value, dict | None) for value in (scaling, given)):
        raise NotComputed("its rope_scaling is not known")
    base = config.get("rope_theta", BASES.get(model_type, 1e4))
    if model_type == "gemma3_text":
        nested = given or {}
        if set(nested) - {*KINDS}:
            raise NotComputed("its rope_parameters are not known")
        full = {"rope_theta": base, **(nested.get(KINDS[0]) or {}), **(scaling or {})}
        local = {"rope_theta": config.get("rope_local_base_freq", LOCAL_BASE)}
        local |= nested.get(KINDS[1]) or {}
        ropes = [_rope(one, settings, model_type) for one in (full, local)]
        return ropes, {KINDS[0]: full, KINDS[1]: local}
    rope = {"rope_theta": base, **(scaling or given or {})}
    if (part := config.get("partial_rotary_factor")) is not None:
        rope.setdefault("partial_rotary_factor", part)
    return [_rope(rope, settings, model_type)], rope


def _rope(rope: dict[str, Any], settings: Settings, model_type: str) -> Rope:
    """Return the angles for a kind of position embedding, whose settings are completed as
    transformers does."""
    kind = rope["rope_type"] = rope.get("rope_type", rope.get("type", "default"))
    if model_type == "phi3" and kind in ("su", "yarn"):
        kind = rope["rope_type"] = "longrope"
    if kind in ("llama3", "longrope", "yarn"):
        most = settings["max_position_embeddings"]
        if original := settings.get("original_max_position_embeddings"):
            rope["original_max_position_embeddings"] = original
        rope.setdefault("original_max_position_embeddings", most)
    base, part = rope["rope_theta"], rope.get("partial_rotary_factor", 1.0)
    if type(base) not in (int, float) or not 0 < base <= sys.float_info.max:
        raise NotComputed(f"its rope_theta is {base!r}")
    if type(part) not in (int, float) or not 0 < part <= 1 or (part != 1 and model_type != "phi3"):
        raise NotComputed(f"its partial_rotary_factor is {part!r}")
    if kind == "default":
        size = int(settings["head_dim"] * part)
        return Rope(1.0 / (base ** (torch.arange(0, size, 2, dtype=torch.float) / size)))
    if kind not in SCALED:
        raise NotComputed(f"its rope_type is {kind!r}")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    complete: Any = SimpleNamespace(
        **{name: settings[name] for name in SIZES},
        rope_parameters=rope,
        standardize_rope_params=lambda: None,
    )
    try:
        angles, scale = ROPE_INIT_FUNCTIONS[kind](complete)
        if kind != "longrope":
            return Rope(angles, scale)
        switch = rope["original_max_position_embeddings"]
        beyond, _ = ROPE_INIT_FUNCTIONS[kind](complete, seq_len=switch + 1)
        return Rope(angles, scale, switch, beyond)
    except (ArithmeticError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise NotComputed(f"its rope_scaling is not known: {error}") from None

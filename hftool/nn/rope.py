"""Rotary position embeddings whose angles depend on the length of the whole text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hftool.nn.architectures import LENGTH_DEPENDENT_ROPE


@dataclass(frozen=True)
class LengthDependence:
    """How the angles of a model depend on the number of tokens.

    They are the same for all lengths up to `switch` tokens. Beyond it they are others (longrope,
    Ding et al. 2024) or, with `grows`, others for each length (dynamic scaling).
    """

    switch: int
    grows: bool

    def differ(self, length: int, other: int) -> bool:
        """Return whether texts of two lengths have different angles, so that the keys computed for
        the one can't be used for the other."""
        if self.grows:
            return length != other and max(length, other) > self.switch
        return (length > self.switch) != (other > self.switch)


def length_dependence(config: Any) -> LengthDependence | None:
    """Return how a model's angles depend on the length of a text, None if they don't.

    Args:
        config: the configuration of a model of transformers.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(kind for kind in rope.values() if isinstance(kind, Mapping))]
    for kind in kinds:
        name = kind.get("rope_type")
        if name in LENGTH_DEPENDENT_ROPE:
            own = kind.get("original_max_position_embeddings") if name == "longrope" else None
            switch = own or config.max_position_embeddings
            return LengthDependence(int(switch), name == "dynamic")
    return None


def forget_lengths(model: Any) -> None:
    """Give dynamically scaled embeddings their first angles: they keep those of the longest text
    that the model has seen."""
    for module in model.modules():
        if getattr(module, "rope_type", None) == "dynamic":
            module.max_seq_len_cached = module.original_max_seq_len
            module.inv_freq = module.original_inv_freq.to(module.inv_freq.device)

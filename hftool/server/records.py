"""Records about the daemon's models."""

from dataclasses import dataclass
from typing import Literal

ModelKind = Literal["language-model", "classifier", "tokenizer"]


@dataclass(frozen=True)
class LoadedModel:
    """A model a server has in memory. `memory` counts bytes of its own, `idle` seconds."""

    model: str
    kind: ModelKind
    state: Literal["loading", "ready"]
    memory: int
    requests: int
    idle: float
    process: int

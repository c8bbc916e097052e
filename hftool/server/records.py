"""Records about the daemon's models."""

from dataclasses import dataclass
from typing import Literal

ModelKind = Literal["language-model", "classifier", "tokenizer"]


@dataclass(frozen=True)
class LoadedModel:
    """A model that the daemon has in memory or is loading.

    `memory` is in bytes and leaves out what its process shares with others, `requests` counts the
    commands so far, `idle` is the seconds since the last one, `process` is the process id.
    """

    model: str
    kind: ModelKind
    state: Literal["loading", "ready"]
    memory: int
    requests: int
    idle: float
    process: int

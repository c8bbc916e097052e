"""Architectures that need something of their own: hftool's answers are transformers'."""

from pathlib import Path

import pytest

from tools.check_architectures import check
from tools.tiny_architectures import Task, architectures

# Each for something that the others don't have.
SAMPLE: list[tuple[Task, str]] = [
    ("causal", "bamba"),  # positions that its cache does not tell
    ("causal", "minimax"),  # a cache that does not count its tokens
    ("causal", "recurrent_gemma"),  # a state within the model, and no cache
    ("causal", "bart"),  # learned positions, which padding moves
    ("causal", "roberta"),  # positions that begin after the padding token's id
    ("causal", "cpmant"),  # tokens of its own before the prompt
    ("causal", "minicpm3"),  # multi-head latent attention
    ("causal", "rwkv"),  # a model that divides its weights
    ("causal", "llama4_text"),  # layers that compute more than a product
    ("image-text", "gemma3"),  # a class for text alone
    ("image-text", "gemma4"),  # and layers that share their keys and values
    ("image-text", "aya_vision"),  # a class for text alone that scales its logits, unlike the whole
    ("image-text", "qwen2_5_vl"),  # no class for text alone, positions in three dimensions
    ("image-text", "mistral3"),
    ("encoder-decoder", "t5"),  # relative positions
    ("encoder-decoder", "bart"),  # learned ones
    ("encoder-decoder", "switch_transformers"),  # an encoder with a router
    ("encoder-decoder", "m2m_100"),
    ("masked", "bert"),
    ("masked", "roberta"),
    ("masked", "perceiver"),  # its input has another name
]

# Whose answers differ from transformers' own; docs/models.md says how.
KNOWN = {"diffusion_gemma", "reformer", "shieldgemma2"}


def failures(task: Task, model_type: str, folder: Path) -> object:
    [architecture] = [a for a in architectures((task,)) if a.model_type == model_type]
    result = check(architecture, folder)
    return result.problem or result.failed


@pytest.mark.parametrize(("task", "model_type"), SAMPLE, ids=str)
def test_sample(task: Task, model_type: str, tmp_path: Path) -> None:
    assert failures(task, model_type, tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize("offset", range(0, 60, 6))
def test_a_part_of_all(offset: int, tmp_path: Path) -> None:
    """Every sixtieth architecture, ten times."""
    wrong = {}
    for architecture in list(architectures())[offset::60]:
        folder = tmp_path / f"{architecture.task}-{architecture.model_type}"
        folder.mkdir()
        if failed := check(architecture, folder).failed:
            wrong[architecture.model_type] = failed
    assert not set(wrong) - KNOWN, wrong

"""Rotary embeddings whose angles depend on the length of a text: every command computes what one
pass over the whole text does, and a stretched context is as long as its config says."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, Phi3Config, Qwen2Config

from hftool.generation.batch import generate_batch
from hftool.generation.beam_search import search
from hftool.generation.generate import generate
from hftool.generation.prefix_cache import CachedModel
from hftool.generation.records import BeamSettings, Generation, Request
from hftool.generation.sampling import SamplingSettings
from hftool.generation.speculative import prompt_lookup_generator
from hftool.generation.steps import StepSampler
from hftool.models.language_model import LanguageModel
from tests.tiny_models import END, VOCABULARY, load_model, save_tokenizer, transformers_model

GREEDY = SamplingSettings(greedy=True, seed=None)
SWITCH = 40
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "pad_token_id": None,
    "eos_token_id": END,
    "initializer_range": 0.4,
}


def rope(kind: str, **values: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 10000.0, **values}


CONFIGS: dict[str, Any] = {
    "longrope": Phi3Config(
        **SIZES,
        max_position_embeddings=2000,
        original_max_position_embeddings=SWITCH,
        rope_parameters=rope("longrope", short_factor=[1.0] * 4, long_factor=[4.0, 5.0, 6.0, 7.0]),
    ),
    "dynamic": LlamaConfig(
        **SIZES, max_position_embeddings=SWITCH, rope_parameters=rope("dynamic", factor=50.0)
    ),
    "linear": LlamaConfig(
        **SIZES, max_position_embeddings=SWITCH, rope_parameters=rope("linear", factor=50.0)
    ),
    "yarn": Qwen2Config(
        **SIZES,
        max_position_embeddings=SWITCH,
        rope_parameters=rope("yarn", factor=50.0, original_max_position_embeddings=SWITCH),
    ),
}


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(1)
    auto: Any = AutoModelForCausalLM
    auto.from_config(CONFIGS[request.param]).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return load_model(folder)


def logits_of(folder: Path, ids: Sequence[int]) -> torch.Tensor:
    """The logits after each token, by a model that has seen no other text."""
    fresh = transformers_model(folder)
    with torch.inference_mode():
        logits: torch.Tensor = fresh(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
    return logits


def ids_of(length: int, seed: int = 3) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(250, (length,), generator=generator).tolist()


def continued(folder: Path, ids: Sequence[int], tokens: int) -> list[int]:
    new: list[int] = []
    while len(new) < tokens and END not in new:
        new.append(int(logits_of(folder, [*ids, *new])[-1].argmax()))
    return new


def new_ids(record: Any) -> list[int]:
    assert isinstance(record, Generation) and record.logprobs is not None
    return [token.id for token in record.logprobs if token.id is not None]


@pytest.mark.parametrize("length", [SWITCH - 5, SWITCH, SWITCH + 1, 700])
def test_logits_of_a_prompt(model: LanguageModel, folder: Path, length: int) -> None:
    ids = ids_of(length)
    expected = logits_of(folder, ids)
    torch.testing.assert_close(
        CachedModel(model).next_logits(ids), expected[-1], atol=2e-3, rtol=1e-3
    )
    got = torch.cat(list(CachedModel(model).all_logits(ids)))
    torch.testing.assert_close(got, expected, atol=2e-3, rtol=1e-3)


def test_texts_that_grow_over_the_length(model: LanguageModel, folder: Path) -> None:
    prompts = [ids_of(SWITCH - 4), ids_of(5, 4), ids_of(SWITCH + 9, 5)]
    expected = [continued(folder, ids, 9) for ids in prompts]
    requests = [Request("", tuple(ids), GREEDY, 9, logprobs=0) for ids in prompts]
    assert [new_ids(list(generate(model, r))[-1]) for r in requests] == expected
    assert [new_ids(record) for record in generate_batch(model, requests)] == expected
    looked_up = generate(model, requests[0], candidate_generator=prompt_lookup_generator(3))
    assert new_ids(list(looked_up)[-1]) == expected[0]


def test_beams_that_grow_over_the_length(folder: Path, model: LanguageModel) -> None:
    ids = ids_of(SWITCH - 4)
    asked = Request("", tuple(ids), GREEDY, 9, logprobs=0)
    prompt = torch.tensor([ids])
    found = transformers_model(folder).generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        num_beams=3,
        max_new_tokens=9,
        do_sample=False,
        use_cache=False,
        pad_token_id=END,
    )[0, len(ids) :]
    (record,) = search(model, asked, BeamSettings(3, 1, 1.0))
    assert [i for i in new_ids(record) if i != END] == [int(i) for i in found if i != END]


def test_steps_that_are_taken_back_over_the_length(model: LanguageModel, folder: Path) -> None:
    ids = ids_of(SWITCH - 3)
    expected = continued(folder, ids, 6)
    sampler = StepSampler(model, ids, GREEDY, max_steps=6, k=1)
    assert [step.id for step in sampler.run()] == expected
    for _ in expected[1:]:
        sampler.undo()
    assert [step.id for step in sampler.run()] == expected[1:]


def test_a_conversation_that_is_shortened(model: LanguageModel, folder: Path) -> None:
    cached_model = CachedModel(model, rewinds=True)
    ids = ids_of(SWITCH + 20)
    for length in (SWITCH + 20, SWITCH - 10, SWITCH - 9, SWITCH + 5):
        expected = logits_of(folder, ids[:length])[-1]
        torch.testing.assert_close(
            cached_model.next_logits(ids[:length]), expected, atol=2e-3, rtol=1e-3
        )


def test_context(model: LanguageModel) -> None:
    assert model.context_length == 2000

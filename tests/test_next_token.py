"""What a model expects next, against its own logits and numbers worked out by hand."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from hftool.encoding import prompt_ids
from hftool.models.load import LanguageModel
from hftool.next_token import entropy_bits, next_tokens, rank_tokens
from hftool.options import PromptOptions
from tests.conftest import run
from tests.tiny_models import (
    CLS,
    SEP,
    VOCABULARY,
    all_logits,
    load_model,
    save_model,
    save_tokenizer,
    transformers_model,
    transformers_tokenizer,
)

PROMPTS = [
    "The capital of France is",
    "1+1=",
    "def fibonacci(n):\n    ",
    "Wörter mit Umlauten: Äpfel,",
    "大家好",
    "你是谁？我是",
    "Привет, как",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "I am happy 😀🎉",
]


@pytest.fixture(scope="module")
def reference(smollm2_folder: Path) -> Any:
    return transformers_model(smollm2_folder)


@pytest.fixture(scope="module")
def reference_tokenizer(smollm2_folder: Path) -> Any:
    return transformers_tokenizer(smollm2_folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"), context=16)


@pytest.fixture(scope="module")
def tiny(folder: Path) -> LanguageModel:
    return load_model(folder)


def topk(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    result = run("topk", "-m", str(folder), "--dtype", "float32", "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    records: list[dict[str, Any]] = json.loads(result.stdout)
    return records


@pytest.mark.parametrize("prompt", PROMPTS)
def test_probabilities_are_those_of_transformers(
    prompt: str, smollm2: LanguageModel, reference: Any, reference_tokenizer: Any
) -> None:
    ids = reference_tokenizer(prompt)["input_ids"]
    logits = all_logits(reference, ids)[-1]
    probs = torch.softmax(logits, dim=-1)
    found = list(next_tokens(smollm2, prompt_ids(smollm2.tokenizer, prompt, PromptOptions()), 20))
    assert [c.prob for c in found] == pytest.approx(probs.topk(20).values.tolist(), abs=1e-5)
    assert [c.prob for c in found] == pytest.approx([float(probs[c.id]) for c in found], abs=1e-5)
    logprobs = torch.log_softmax(logits, dim=-1)
    assert [c.logprob for c in found] == pytest.approx(
        [float(logprobs[c.id]) for c in found], abs=1e-4
    )
    entropy = -float((probs * logprobs).sum()) / math.log(2)
    assert [c.entropy for c in found] == pytest.approx([entropy] * 20, abs=1e-4)
    assert {c.position for c in found} == {len(ids) - 1}


def test_command_gives_the_same_numbers(
    smollm2_folder: Path, reference: Any, reference_tokenizer: Any
) -> None:
    ids = reference_tokenizer("The capital of France is")["input_ids"]
    values, order = torch.softmax(all_logits(reference, ids)[-1], dim=-1).topk(5)
    records = topk(smollm2_folder, "The capital of France is", "-k", "5")
    assert [r["id"] for r in records] == order.tolist()
    assert [r["token"] for r in records] == [
        reference_tokenizer.decode([i]) for i in order.tolist()
    ]
    assert [r["prob"] for r in records] == pytest.approx(values.tolist(), abs=1e-5)
    assert [r["cumulative"] for r in records] == pytest.approx(values.cumsum(0).tolist(), abs=1e-5)


def test_ranks_cumulative_and_entropy_by_hand(tiny: LanguageModel) -> None:
    logits = torch.tensor([0.125, 0.5, 0.125, 0.25]).log() + 7  # a constant changes nothing
    first, second, third, last = rank_tokens(tiny, logits, position=3, k=4)
    assert [first.id, second.id, third.id, last.id] == [1, 3, 0, 2]  # equal ones by their id
    assert [c.rank for c in (first, second, third, last)] == [1, 2, 3, 4]
    assert [c.prob for c in (first, second, third, last)] == pytest.approx(
        [0.5, 0.25, 0.125, 0.125]
    )
    assert [c.cumulative for c in (first, second, third, last)] == pytest.approx(
        [0.5, 0.75, 0.875, 1.0]
    )
    assert second.logprob == pytest.approx(math.log(0.25))
    assert [c.entropy for c in (first, second, third, last)] == pytest.approx([1.75] * 4)
    assert first.position == 3


def test_wanted_tokens_follow_in_the_order_of_their_ranks(tiny: LanguageModel) -> None:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    found = list(rank_tokens(tiny, logits, position=0, k=1, wanted=[0, 2, 1, 0]))
    assert [(c.id, c.rank) for c in found] == [(1, 1), (2, 3), (0, 4)]
    assert [c.cumulative for c in found] == pytest.approx([0.4, 0.9, 1.0])


@pytest.mark.parametrize(
    ("probs", "bits"),
    [
        ([0.25] * 4, 2.0),
        ([1.0, 0.0, 0.0, 0.0], 0.0),
        ([0.5, 0.5, 0.0, 0.0], 1.0),
        ([0.5, 0.25, 0.125, 0.125], 1.75),
        ([0.9, 0.1, 0.0, 0.0], 0.468995594),
    ],
)
def test_entropy_by_hand(probs: Sequence[float], bits: float) -> None:
    assert entropy_bits(torch.tensor(probs, dtype=torch.float64).log()) == pytest.approx(bits)


def test_a_token_the_model_excludes_has_probability_zero(tiny: LanguageModel) -> None:
    logits = torch.tensor([0.0, -torch.inf, 0.0, -torch.inf])
    found = list(rank_tokens(tiny, logits, position=0, k=4))
    assert [(c.id, c.prob) for c in found] == [(0, 0.5), (2, 0.5), (1, 0.0), (3, 0.0)]
    assert found[-1].cumulative == 1.0
    assert found[-1].logprob == -math.inf


def test_more_tokens_than_there_are_gives_the_whole_vocabulary(folder: Path) -> None:
    records = topk(folder, "ab", "-k", "100000")
    assert sorted(r["id"] for r in records) == list(range(VOCABULARY))
    assert [r["rank"] for r in records] == list(range(1, VOCABULARY + 1))
    probs = [r["prob"] for r in records]
    assert probs == sorted(probs, reverse=True)
    assert sum(probs) == pytest.approx(1.0)
    assert records[-1]["cumulative"] == pytest.approx(1.0)


def test_token_outside_and_inside_the_top_k(folder: Path) -> None:
    everything = topk(folder, "ab", "-k", str(VOCABULARY))
    letters = [r for r in everything if r["token"].isascii() and r["token"].isalpha()]
    best, worst = letters[0], letters[-1]
    k = best["rank"]
    assert worst["rank"] > k
    asked = ("--token", worst["token"], "--token", best["token"])
    assert topk(folder, "ab", "-k", str(k), *asked) == [*everything[:k], worst]


def test_token_text_of_several_tokens_is_an_error(folder: Path) -> None:
    result = run("topk", "-m", str(folder), "ab", "--token", "xy")
    assert (result.exit_code, result.stdout) == (1, "")
    error, hint = result.stderr.splitlines()
    assert error.startswith("Error: 'xy' is 2 tokens in ")
    assert "'x' 'y'" in error
    assert hint.startswith("Hint: ")


def test_token_of_no_text_is_an_error(folder: Path) -> None:
    result = run("topk", "-m", str(folder), "ab", "--token", "")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: '' is 0 tokens in ")


def test_empty_prompt_is_an_error(folder: Path) -> None:
    result = run("topk", "-m", str(folder), "")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: the prompt is empty")


def test_prompt_longer_than_the_context_is_an_error(folder: Path) -> None:
    result = run("topk", "-m", str(folder), "x" * 21)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: the prompt has 21 tokens; the context of ")
    assert result.stderr.splitlines()[0].endswith(" holds 16")


def test_prompt_that_fills_the_context_is_scored(folder: Path) -> None:
    assert topk(folder, "x" * 16)[0]["position"] == 15


def test_special_tokens_the_tokenizer_adds(tmp_path: Path) -> None:
    save_model(tmp_path)
    save_tokenizer(tmp_path, framed=True)
    reference = transformers_model(tmp_path)
    plain = load_model(tmp_path).tokenizer.encode("ab", special=False).ids
    for arguments, ids in (((), [CLS, *plain, SEP]), (("--no-special",), plain)):
        records = topk(tmp_path, "ab", "-k", "3", *arguments)
        probs = torch.softmax(all_logits(reference, ids)[-1], dim=-1)
        assert records[0]["position"] == len(ids) - 1
        assert [r["prob"] for r in records] == pytest.approx(
            probs.topk(3).values.tolist(), abs=1e-5
        )

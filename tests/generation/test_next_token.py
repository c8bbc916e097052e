"""Probabilities of next tokens, compared with the model's logits and numbers computed by hand."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from hftool.generation.next_token import NextTokenQuery, candidates_everywhere
from hftool.generation.ranking import entropy_bits, next_tokens, rank_tokens
from hftool.models.language_model import LanguageModel
from hftool.options.inputs import PromptOptions
from hftool.prompting.prompt import prompt_ids
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


def test_a_target_beyond_the_embeddings(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["a"] = 9_999
    (folder / "tokenizer.json").write_text(json.dumps(content))
    for target in ("a", "ba"):
        done = run("topk", "-m", str(folder), "b", "--target", target)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "token id 9999, but the model's embeddings have only" in done.stderr
    done = run("sample", "-m", str(folder), "a", "--steps", "1")
    assert "token id 9999, but the model's embeddings have only" in done.stderr


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
    asked = ("--target", worst["token"], "--target", best["token"])
    assert topk(folder, "ab", "-k", str(k), *asked) == [*everything[:k], worst]


def test_token_of_no_text_is_an_error(folder: Path) -> None:
    result = run("topk", "-m", str(folder), "ab", "--target", "")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: --target: the text is empty\n"


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


# Positions, continuations, filters, several models


TEXT = "The capital of France is Paris."


def reference_logprobs(reference: Any, ids: Sequence[int]) -> torch.Tensor:
    """Return transformers' log-probabilities after each of the ids: [tokens, vocabulary]."""
    return torch.log_softmax(all_logits(reference, ids).double(), dim=-1)


def test_candidates_after_each_token(reference: Any, reference_tokenizer: Any) -> None:
    ids = reference_tokenizer(TEXT)["input_ids"]
    logprobs = reference_logprobs(reference, ids)
    done = run("topk", TEXT, "--position", "all", "-k", "3", "--target", " dog", "--json")
    records = json.loads(done.stdout)
    assert len(records) == 4 * len(ids)
    (dog,) = reference_tokenizer(" dog")["input_ids"]
    for position, row in enumerate(logprobs):
        *best, last = records[4 * position : 4 * position + 4]
        assert {r["position"] for r in (*best, last)} == {position}
        assert {r["after"] for r in best} == {reference_tokenizer.decode([ids[position]])}
        assert [r["id"] for r in best] == row.topk(3).indices.tolist()
        assert [r["prob"] for r in best] == pytest.approx(row.topk(3).values.exp().tolist(), 1e-3)
        assert (last["id"], last["rank"]) == (dog, int((row > row[dog]).sum()) + 1)
        assert last["entropy"] == pytest.approx(entropy_bits(row), abs=1e-3)


def test_slices_give_what_one_pass_gives(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, query = list(range(4, 18)), NextTokenQuery(2)
    whole = list(candidates_everywhere(tiny, ids, query))
    monkeypatch.setattr("hftool.generation.prefix_cache.LOGITS_PER_SLICE", 3 * VOCABULARY)
    slices = list(candidates_everywhere(tiny, ids, query))
    assert [(c.position, c.id) for c in slices] == [(c.position, c.id) for c in whole]
    assert [c.prob for c in slices] == pytest.approx([c.prob for c in whole], rel=1e-4)


def test_a_position_is_the_prompt_cut_there(reference_tokenizer: Any) -> None:
    ids = reference_tokenizer(TEXT)["input_ids"]
    cut = reference_tokenizer.decode(ids[:3])
    expected = run("topk", cut, "--json").stdout
    assert run("topk", TEXT, "--position", "2", "--json").stdout == expected
    from_the_end = str(3 - len(ids) - 1)
    assert run("topk", TEXT, "--position", from_the_end, "--json").stdout == expected


@pytest.mark.parametrize("position", ["99", "-99", "x", "", "1.5"])
def test_no_such_position_is_a_usage_error(position: str, folder: Path) -> None:
    done = run("topk", "ab", "-m", str(folder), "--position", position)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: --position")


def test_a_text_of_several_tokens_is_a_continuation(
    reference: Any, reference_tokenizer: Any, smollm2_folder: Path
) -> None:
    prompt, text = "The capital of France is", " New York City"
    ids = reference_tokenizer(prompt)["input_ids"]
    continuation = reference_tokenizer(text, add_special_tokens=False)["input_ids"]
    logprobs = reference_logprobs(reference, ids + continuation)
    places = range(len(ids) - 1, len(ids) + len(continuation) - 1)
    expected = [float(logprobs[p, i]) for p, i in zip(places, continuation, strict=True)]
    done = run("topk", prompt, "-k", "1", "--dtype", "float32", "--target", text, "--json")
    _, *parts, whole = json.loads(done.stdout)
    assert [part["id"] for part in parts] == continuation
    assert [part["position"] for part in parts] == list(places)
    assert [part["logprob"] for part in parts] == pytest.approx(expected, abs=1e-4)
    assert (whole["token"], whole["id"], whole["rank"]) == (text, None, None)
    assert whole["logprob"] == pytest.approx(sum(expected), abs=1e-4)
    assert whole["prob"] == pytest.approx(math.exp(sum(expected)), rel=1e-3)


def test_sampled_probabilities_are_those_of_transformers_processors(
    reference: Any, reference_tokenizer: Any
) -> None:
    prompt = "cat dog cat dog cat"
    inputs = torch.tensor([reference_tokenizer(prompt)["input_ids"]])
    logits = all_logits(reference, inputs[0].tolist())[-1][None].float()
    processors = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(1.8),
            *(TemperatureLogitsWarper(0.5), TopKLogitsWarper(50), TopPLogitsWarper(0.9)),
        ]
    )
    expected = torch.softmax(processors(inputs, logits)[0], dim=-1)  # type: ignore[arg-type]
    done = run(
        *("topk", prompt, "-k", "5", "--dtype", "float32", "--json"),
        *("--temperature", "0.5", "--top-p", "0.9", "--repetition-penalty", "1.8"),
    )
    records = json.loads(done.stdout)
    entropy = float(torch.special.entr(expected).sum()) / math.log(2)
    for record in records:
        assert record["sampled_prob"] == pytest.approx(float(expected[record["id"]]), abs=1e-5)
        assert record["sampled_entropy"] == pytest.approx(entropy, abs=1e-4)
    assert {record["sampled_prob"] > 0 for record in records} == {True, False}
    greedy = json.loads(run("topk", prompt, "-k", "2", "--temperature", "0", "--json").stdout)
    assert [record["sampled_prob"] for record in greedy] == [1.0, 0.0]
    assert "sampled_prob" not in json.loads(run("topk", prompt, "--json").stdout)[0]


def test_models_are_asked_one_after_the_other(folder: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other", seed=5)
    both = topk(folder, "abc", "-k", "2", "--compare", str(other))
    alone = topk(folder, "abc", "-k", "2") + topk(other, "abc", "-k", "2")
    assert [record.pop("model") for record in both] == [str(folder)] * 2 + [str(other)] * 2
    assert both == alone


def test_all_positions_in_every_format(folder: Path) -> None:
    arguments = ("topk", "abcd", "-m", str(folder), "--position", "all", "-k", "2")
    filters = ("--temperature", "0.5", "--top-k", "3")
    for more in ((), filters):
        records = json.loads(run(*arguments, *more, "--json").stdout)
        assert len(records) == 4 * 2
        for end, text in enumerate(("a", "ab", "abc", "abcd")):
            alone = topk(folder, text, "-k", "2", *more)
            for record, expected in zip(records[2 * end : 2 * end + 2], alone, strict=True):
                assert record.pop("after") == text[-1]
                assert record.keys() == expected.keys()
                assert [record[name] for name in ("position", "rank", "id")] == [
                    expected[name] for name in ("position", "rank", "id")
                ]
                name = "sampled_prob" if more else "prob"
                assert record[name] == pytest.approx(expected[name], rel=1e-4)
    lines = run(*arguments, "--format", "text").stdout.splitlines()
    assert [line.split("\t")[:2] for line in lines[:3]] == [["0", "1"], ["0", "2"], ["1", "1"]]
    head = run(*arguments, "--format", "csv").stdout.splitlines()[0]
    assert head.startswith("position,after,rank,id,token,prob,")
    shown = run(*arguments, "--format", "table").stdout.splitlines()
    assert [line.split()[:2] for line in shown[1:]] == [[str(i), c] for i, c in enumerate("abcd")]


def test_all_positions_need_targets_of_one_token(folder: Path) -> None:
    done = run("topk", "ab", "-m", str(folder), "--position", "all", "--target", "xy")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: --target xy: with --position all a target is one token")


def test_lines_are_texts_of_their_own(folder: Path) -> None:
    done = run("topk", "-m", str(folder), "-k", "2", "--lines", "--json", stdin="ab\ncd\n")
    both = json.loads(done.stdout)
    assert [record.pop("index") for record in both] == [0, 0, 1, 1]
    arguments = ("topk", "-m", str(folder), "-k", "2", "--json")
    assert both == [r for text in ("ab", "cd") for r in json.loads(run(*arguments, text).stdout)]
    head = run("topk", "-m", str(folder), "--lines", "--format", "csv", stdin="ab\ncd\n").stdout
    assert head.startswith("index,position,rank,")


def test_a_text_longer_than_the_context_has_no_candidates(folder: Path) -> None:
    done = run("topk", "a" * 17, "-m", str(folder), "--position", "all")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "the prompt has 17 tokens; the context of" in done.stderr


@pytest.mark.usefixtures("smollm2_folder")
def test_a_target_without_its_space_is_noted() -> None:
    command = ("topk", "The capital of France is", "-k", "3", "--target")
    note = run(*command, "London").stderr
    assert note == '"London" is not the token " London", which has rank 3\n'
    assert run(*command, " London").stderr == ""

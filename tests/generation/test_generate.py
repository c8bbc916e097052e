"""Generation token by token, compared with transformers' `generate` and the model's logits."""

import csv
import json
import math
import re
from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from hftool.generation.generate import generate, token_ids
from hftool.generation.prefix_cache import CachedModel
from hftool.generation.records import Generation, Piece, Request
from hftool.generation.resolution import DEFAULT_TOP_K
from hftool.generation.sampling import SamplingSettings, own_filters
from hftool.models.language_model import LanguageModel
from tests.conftest import run
from tests.tiny_models import (
    ARCHITECTURES,
    END,
    VOCABULARY,
    all_logits,
    greedy_ids,
    load_model,
    save_model,
    transformers_model,
    transformers_tokenizer,
)

GREEDY = SamplingSettings(greedy=True, seed=None)
PROMPTS = [
    "Once upon a time",
    "def fibonacci(n):\n",
    "你是谁",
    "Three animals, as emoji: 🐶🐱",
]
FRENCH = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def reference(smollm2_folder: Path) -> Any:
    return transformers_model(smollm2_folder)


@pytest.fixture(scope="module")
def reference_tokenizer(smollm2_folder: Path) -> Any:
    return transformers_tokenizer(smollm2_folder)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def each_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def each_reference(each_folder: Path) -> Any:
    return transformers_model(each_folder)


@pytest.fixture(scope="module")
def each_model(each_folder: Path) -> LanguageModel:
    return load_model(each_folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


def generated(
    model: LanguageModel,
    ids: Sequence[int],
    settings: SamplingSettings = GREEDY,
    tokens: int = 30,
    **options: Any,
) -> tuple[list[str], Generation]:
    """Return the texts of the pieces, and the record."""
    *pieces, record = generate(model, Request("", tuple(ids), settings, tokens, **options))
    assert isinstance(record, Generation)
    return texts_of(pieces), record


def texts_of(pieces: Sequence[Piece | Generation]) -> list[str]:
    """Return the texts of events, all of which must be pieces."""
    assert all(isinstance(piece, Piece) for piece in pieces)
    return [piece.text for piece in pieces if isinstance(piece, Piece)]


def ids_until_end(
    model: LanguageModel, ids: Sequence[int], settings: SamplingSettings, tokens: int
) -> list[int]:
    found: list[int] = []
    for token_id, _ in islice(
        token_ids(CachedModel(model), ids, settings, own_filters(settings)), tokens
    ):
        found.append(token_id)
        if token_id in model.end_ids:
            break
    return found


def command(name: str, folder: Path, *arguments: str) -> list[dict[str, Any]]:
    result = run(name, "-m", str(folder), "--dtype", "float32", "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    records: list[dict[str, Any]] = json.loads(result.stdout)
    return records


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_is_that_of_transformers(
    prompt: str, smollm2: LanguageModel, reference: Any, reference_tokenizer: Any
) -> None:
    ids = reference_tokenizer(prompt)["input_ids"]
    expected = greedy_ids(reference, ids, 30)
    assert ids_until_end(smollm2, ids, GREEDY, 30) == expected
    pieces, record = generated(smollm2, ids)
    # hftool shows the bytes of an incomplete last character instead of U+FFFD.
    text = re.sub(r"(<0x[0-9A-F]{2}>)+$", "\ufffd", record.text)
    assert text == reference_tokenizer.decode(expected, skip_special_tokens=True)
    assert "".join(pieces) == record.text
    assert record.finish_reason == ("stop" if expected[-1] in smollm2.end_ids else "length")
    assert record.completion_tokens == len(expected)


def test_penalties_are_those_of_transformers(
    smollm2: LanguageModel, reference: Any, reference_tokenizer: Any
) -> None:
    ids = reference_tokenizer("I think that I think that I")["input_ids"]
    penalties: dict[str, Any] = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2}
    settings = SamplingSettings(greedy=True, seed=None, **penalties)
    expected = greedy_ids(reference, ids, 20, **penalties)
    assert expected != greedy_ids(reference, ids, 20)
    assert ids_until_end(smollm2, ids, settings, 20) == expected


@pytest.mark.parametrize(
    "penalties",
    [
        {},
        {"repetition_penalty": 1.5},
        {"no_repeat_ngram_size": 1},
        {"repetition_penalty": 0.8, "no_repeat_ngram_size": 2},
    ],
    ids=str,
)
def test_greedy_ids_of_each_architecture(
    penalties: dict[str, Any], each_reference: Any, each_model: LanguageModel
) -> None:
    settings = SamplingSettings(greedy=True, seed=None, **penalties)
    for prompt in ([1, 2, 3], [40, 41, 40, 41, 40, 41]):
        expected = greedy_ids(each_reference, prompt, 30, **penalties)
        assert ids_until_end(each_model, prompt, settings, 30) == expected


def test_command_stops_at_the_end_of_the_answer(
    smollm2_folder: Path, reference: Any, reference_tokenizer: Any
) -> None:
    question = "What is the capital of France?"
    messages = [{"role": "user", "content": question}]
    text = reference_tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    ids = reference_tokenizer(text, add_special_tokens=False)["input_ids"]
    expected = greedy_ids(reference, ids, 40)
    assert expected[-1] == reference_tokenizer.eos_token_id
    [record] = command("generate", smollm2_folder, "--chat", question, "--greedy", "-n", "40")
    assert record["text"] == reference_tokenizer.decode(expected, skip_special_tokens=True)
    assert "Paris" in record["text"]
    assert record["prompt"] == question
    assert (record["index"], record["stop"], record["seed"]) == (0, None, None)
    assert record["finish_reason"] == "stop"
    assert record["usage"] == {"prompt_tokens": len(ids), "completion_tokens": len(expected)}
    assert record["tokens_per_second"] == pytest.approx(len(expected) / record["seconds"])


def test_special_tokens_are_kept_where_asked(
    smollm2: LanguageModel, reference_tokenizer: Any
) -> None:
    ids = reference_tokenizer(FRENCH)["input_ids"]
    _, plain = generated(smollm2, ids)
    pieces, kept = generated(smollm2, ids, skip_special=False)
    assert kept.text == plain.text + "<|im_end|>"
    assert "".join(pieces) == kept.text


def test_length_and_usage(folder: Path) -> None:
    [record] = command("generate", folder, "abc", "-n", "7", "--seed", "5")
    assert record["finish_reason"] == "length"
    assert record["usage"] == {"prompt_tokens": 3, "completion_tokens": 7}
    assert record["seed"] == 5


def test_text_format_is_the_continuation_alone(folder: Path) -> None:
    arguments = ("generate", "-m", str(folder), "--dtype", "float32", "abc", "-n", "9", "--seed=3")
    result = run(*arguments)
    [record] = command("generate", folder, "abc", "-n", "9", "--seed=3")
    assert (result.stdout, result.stderr) == (record["text"] + "\n", "")


@pytest.mark.parametrize("seed", range(4))
def test_pieces_make_up_the_text(seed: int, folder: Path) -> None:
    model = load_model(folder)  # its bytes are random: many are no characters
    reference_tokenizer = transformers_tokenizer(folder)
    settings = SamplingSettings(greedy=False, seed=seed)
    ids = ids_until_end(model, [1, 2, 3], settings, 40)
    pieces, record = generated(model, [1, 2, 3], settings, 40, skip_special=False)
    assert len(pieces) > 5
    assert all(pieces)
    assert "".join(pieces) == record.text
    decoded = reference_tokenizer.decode(ids)
    stable = decoded.rstrip("\ufffd")
    assert record.text.startswith(stable)
    assert (len(record.text) > len(stable)) == (len(decoded) > len(stable))
    assert re.fullmatch(r"(<0x[0-9A-F]{2}>)*", record.text[len(stable) :])


def test_the_end_can_be_any_of_several_ids(tmp_path: Path, folder: Path) -> None:
    reference = transformers_model(folder)
    expected = greedy_ids(reference, [1, 2, 3], 10)
    assert expected.index(expected[4]) == 4
    model = load_model(save_model(tmp_path, generation_config={"eos_token_id": [END, expected[4]]}))
    assert model.end_ids == {END, expected[4]}
    assert ids_until_end(model, [1, 2, 3], GREEDY, 10) == expected[:5]
    _, record = generated(model, [1, 2, 3])
    assert (record.finish_reason, record.completion_tokens) == ("stop", 5)


CONTEXT = 16


@pytest.fixture(scope="module", params=ARCHITECTURES)
def short(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    endless = {"eos_token_id": VOCABULARY}
    return save_model(
        tmp_path_factory.mktemp("short"), request.param, context=CONTEXT, generation_config=endless
    )


def test_stops_at_the_end_of_the_context(short: Path) -> None:
    reference, model = transformers_model(short), load_model(short)
    ids = list(model.tokenizer.encode("abcdefghij", special=True).ids)
    known = list(ids)
    while len(known) <= CONTEXT:  # the last token is not seen by the model any more
        known.append(int(all_logits(reference, known)[-1].argmax()))
    arguments = ("generate", "-m", str(short), "--dtype", "float32", "--greedy", "--json")
    result = run(*arguments, "abcdefghij", "-n", "50")
    assert result.exit_code == 0
    [record] = json.loads(result.stdout)
    assert record["finish_reason"] == "length"
    assert record["usage"] == {"prompt_tokens": 10, "completion_tokens": 7}
    assert ids_until_end(model, ids, GREEDY, 7) == known[10:]
    assert result.stderr == "Warning: stopped after 7 tokens: the context is full\n"
    assert run(*arguments, "abcdefghij", "-n", "7").stderr == ""
    stepped = run("sample", *arguments[1:], "abcdefghij")
    assert [step["id"] for step in json.loads(stepped.stdout)] == known[10:]
    assert stepped.stderr == result.stderr


def test_prompt_that_does_not_fit(short: Path) -> None:
    for name in ("generate", "sample"):
        result = run(name, "-m", str(short), "x" * 20)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("Error: the prompt has 20 tokens; the context of ")
        assert result.stderr.splitlines()[0].endswith(" holds 16")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("generate", "bfloat16"), ("sample", "float16"), ("topk", "float32")],
)
def test_logits_that_are_not_numbers(name: str, dtype: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path, weights=float("nan"))
    result = run(name, "-m", str(folder), "ab", "--dtype", dtype)
    assert (result.exit_code, result.stdout) == (1, "")
    error, hint = result.stderr.splitlines()
    assert error == f"Error: the model's logits are not numbers (in {dtype})"
    assert ("try --dtype float32" in hint) == (dtype != "float32")
    assert "use another checkpoint" in hint


@pytest.mark.parametrize("bits", ["int4", "int8"])
def test_weights_that_are_not_numbers_are_not_quantized(bits: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path, weights=float("nan"))
    result = run("generate", "-m", str(folder), "ab", "--quantize", bits)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the model has weights that are not numbers" in result.stderr


def test_scores_that_are_not_numbers_in_code_of_transformers(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "gpt2", weights=float("nan"))
    result = run("score", "-m", str(folder), "ab")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Error: the model's logits are not numbers (in float32)" in result.stderr


@pytest.mark.parametrize("more", [(), ("--num-beams", "2")])
def test_a_bias_for_a_token_past_the_embeddings(more: tuple[str, ...], tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    path = str(folder / "tokenizer.json")
    backend = Tokenizer.from_file(path)
    backend.add_special_tokens(["<a>", "<b>", "<c>"])
    backend.save(path)
    arguments = ("generate", "-m", str(folder), "ab", "-n", "2", "--greedy", *more, "--bias")
    refused = run(*arguments, "<c>=5")
    assert (refused.exit_code, refused.stdout) == (1, "")
    text = f"the text has the token id {VOCABULARY}, but the model's embeddings have only"
    assert f"Error: {text} {VOCABULARY} rows" in refused.stderr
    assert run(*arguments, "<a>=5", "--bias", "<c>=5").exit_code == 0


def test_steps_are_the_models_own_numbers(
    each_folder: Path, each_reference: Any, each_model: LanguageModel
) -> None:
    ids = list(each_model.tokenizer.encode("Hello", special=True).ids)
    steps = command("sample", each_folder, "Hello", "--steps", "6", "--seed", "3", "-k", "4")
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    for step in steps:
        probs = torch.softmax(all_logits(each_reference, ids)[-1].double(), dim=-1)
        values, order = probs.topk(DEFAULT_TOP_K)
        entropy = float(-(probs * probs.log()).nansum()) / math.log(2)
        assert step["prob"] == pytest.approx(float(probs[step["id"]]), abs=1e-5)
        assert step["entropy"] == pytest.approx(entropy, abs=1e-3)
        kept = values / values.sum()
        sampled_entropy = float(-(kept * kept.log2()).sum())
        assert step["sampled_entropy"] == pytest.approx(sampled_entropy, abs=1e-3)
        assert step["rank"] == int((probs > probs[step["id"]] + 1e-7).sum()) + 1
        assert step["kept"] == DEFAULT_TOP_K
        assert step["sampled_prob"] == pytest.approx(step["prob"] / float(values.sum()), rel=1e-3)
        # The most probable kept token whose cumulative probability exceeds the drawn number.
        place = int((values.cumsum(0) <= step["drawn"] * values.sum()).sum())
        assert step["id"] == int(order[place])
        candidates = step["candidates"][:4]
        assert [c["id"] for c in step["candidates"][4:]] == [step["id"]] * (step["rank"] > 4)
        assert [c["id"] for c in candidates] == order[:4].tolist()
        assert [c["rank"] for c in candidates] == [1, 2, 3, 4]
        assert [c["prob"] for c in candidates] == pytest.approx(values[:4].tolist(), abs=1e-5)
        ids.append(step["id"])


def test_candidates_name_the_filter_that_removed_them(folder: Path) -> None:
    arguments = ("--steps", "3", "--seed", "3", "-k", "6", "--top-k", "4", "--min-p", "0.9")
    for step in command("sample", folder, "Hello", *arguments):
        best = step["candidates"][0]["prob"]
        for candidate in step["candidates"]:
            by_min_p = "min_p" if candidate["prob"] < 0.9 * best else None
            expected = "top_k" if candidate["rank"] > 4 else by_min_p
            assert candidate["removed_by"] == expected
            assert (candidate["sampled_prob"] == 0) == (expected is not None)
        assert step["kept"] == sum(c["removed_by"] is None for c in step["candidates"])


def test_the_number_drawn_falls_into_the_interval_of_its_token(folder: Path) -> None:
    arguments = ("--temperature", "0.7", "--top-p", "0.9", "--repetition-penalty", "1.5")
    steps = command("sample", folder, "Hello", "--seed", "3", "-k", "1000", *arguments)
    for step in steps:
        below = step["sampled_cumulative"] - step["sampled_prob"]
        assert below <= step["drawn"] < step["sampled_cumulative"]
        kept = [c for c in step["candidates"] if c["removed_by"] is None]
        assert len(kept) == step["kept"]
        total = 0.0
        for c in sorted(kept, key=lambda c: (-c["sampled_prob"], c["id"])):
            total += c["sampled_prob"]
            assert c["sampled_cumulative"] == pytest.approx(total)
        assert total == pytest.approx(1)


def test_each_filters_effect_is_in_the_record(folder: Path) -> None:
    arguments = ("--temperature", "0.5", "--top-k", "4", "--min-p", "0.3")
    for step in command("sample", folder, "Hello", "--seed", "3", "-k", "1000", *arguments):
        candidates = step["candidates"]
        probs = {c["id"]: c["prob"] for c in candidates}
        squares = {i: p * p / sum(p * p for p in probs.values()) for i, p in probs.items()}
        best = dict(sorted(squares.items(), key=lambda item: -item[1])[:4])
        most = max(best.values())
        left = {i: p for i, p in best.items() if p >= 0.3 * most}
        for c in candidates:
            after = c["after"]
            assert list(after) == ["temperature", "top_k", "min_p"]
            for name, kept in {"temperature": squares, "top_k": best, "min_p": left}.items():
                share = kept[c["id"]] / sum(kept.values()) if c["id"] in kept else None
                assert after[name] == (None if share is None else pytest.approx(share, rel=1e-4))
            assert (after["min_p"] or 0.0) == c["sampled_prob"]


def test_first_step_is_what_topk_says(folder: Path) -> None:
    table = {r["id"]: r for r in command("topk", folder, "Hello", "-k", "1000")}
    [step] = command("sample", folder, "Hello", "--steps", "1", "--seed", "9", "--top-k", "0")
    row = table[step["id"]]
    assert (step["token"], step["rank"]) == (row["token"], row["rank"])
    assert [step["prob"], step["sampled_prob"]] == pytest.approx([row["prob"]] * 2, rel=1e-12)
    assert step["entropy"] == pytest.approx(row["entropy"], rel=1e-12)


def test_sample_and_generate_draw_the_same(smollm2: LanguageModel, smollm2_folder: Path) -> None:
    arguments = ("Once upon a time", "--seed", "7")
    steps = command("sample", smollm2_folder, *arguments, "--steps", "8")
    [record] = command("generate", smollm2_folder, *arguments, "-n", "8")
    assert smollm2.tokenizer.decode([step["id"] for step in steps]) == record["text"]
    assert steps[-1]["text"] == record["text"]
    assert all(b["text"].startswith(a["text"]) for a, b in pairwise(steps))


def test_sample_ends_at_the_end_of_the_text(tmp_path: Path, folder: Path) -> None:
    ids = list(load_model(folder).tokenizer.encode("Hello", special=True).ids)
    expected = greedy_ids(transformers_model(folder), ids, 10)
    assert expected.index(expected[6]) == 6
    ending = save_model(tmp_path, generation_config={"eos_token_id": expected[6]})
    steps = command("sample", ending, "Hello", "--greedy", "--steps", "30")
    assert [step["id"] for step in steps] == expected[:7]
    assert {(step["drawn"], step["rank"]) for step in steps} == {(None, 1)}


def test_lines_are_prompts_of_their_own(tmp_path: Path) -> None:
    folder = str(save_model(tmp_path))
    arguments = ("generate", "-m", folder, "-n", "4", "--seed", "3", "--json")
    done = run(*arguments, "--lines", stdin="ab\ncd\n")
    records = json.loads(done.stdout)
    alone = [json.loads(run(*arguments, text).stdout)[0] for text in ("ab", "cd")]
    assert [record["index"] for record in records] == [0, 1]
    assert [record["text"] for record in records] == [record["text"] for record in alone]
    assert [record["prompt"] for record in records] == ["ab", "cd"]


def test_a_line_that_fails_is_answered_in_its_place(short: Path, folder: Path) -> None:
    arguments = ("generate", "-m", str(short), "-n", "4", "--greedy", "--lines")
    source = "ab\n\nabcdefghijklmnopqrstuvw\ncd\n"  # the context holds 16 tokens
    empty = "the prompt is empty: the model needs at least one token"
    long = f"the prompt has 23 tokens; the context of {short} holds 16"
    done = run(*arguments, "--format", "jsonl", stdin=source)
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        f"Warning: line 2: {empty}",
        f"Warning: line 3: {long}",
        "Error: 2 lines failed",
    ]
    first, second, third, fourth = map(json.loads, done.stdout.splitlines())
    assert second == {"id": None, "line": 2, "error": empty}
    assert third == {"id": None, "line": 3, "error": long}
    assert (first["index"], fourth["index"], fourth["prompt"]) == (0, 3, "cd")
    [expected] = json.loads(run(*arguments[:-1], "--json", "cd").stdout)
    assert fourth["text"] == expected["text"]

    table = list(
        csv.DictReader(run(*arguments, "--format", "csv", stdin=source).stdout.split("\n"))
    )
    assert [row["error"] for row in table] == ["", empty, long, ""]
    assert [row["line"] for row in table] == ["", "2", "3", ""]
    text = run(*arguments, stdin=source)
    assert text.stdout == f"{first['text']}\n\n\n{fourth['text']}\n"
    assert text.stderr.startswith(f"Warning: line 2: {empty}\n")

    alone = run(*arguments[:-1], stdin="")  # a single prompt has an error of its own
    assert (alone.exit_code, alone.stdout) == (1, "")
    assert alone.stderr.startswith(f"Error: {empty}\n")

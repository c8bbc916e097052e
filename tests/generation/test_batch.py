"""Batches: each text is the one that its request gives outside a batch."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hftool.errors import HftoolError
from hftool.generation import batch, batched_model
from hftool.generation.batch import generate_batch, generate_side_by_side
from hftool.generation.batch_file import numbered_records
from hftool.generation.batched_model import BatchedModel
from hftool.generation.generate import generate
from hftool.generation.records import BeamSettings, FailedRequest, Generation, Request
from hftool.generation.requests import requests_of_records
from hftool.generation.sampling import SamplingSettings
from hftool.models.language_model import LanguageModel
from hftool.options.generation import GenerateOptions, GenerationOptions
from hftool.options.inputs import FileOptions, PromptOptions
from hftool.options.sampling import SamplingOptions
from tests.conftest import run
from tests.tiny_models import (
    ARCHITECTURES,
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
    "你是谁",
    "x",
    "def fibonacci(n):\n",
    "The capital of France is the city of Paris, which lies on the river",
]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return load_model(folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("tiny"))


def alone(model: LanguageModel, request: Request) -> Generation:
    *_, record = generate(model, request)
    assert isinstance(record, Generation)
    return record


def in_order(model: LanguageModel, requests: list[Request]) -> list[batch.Outcome]:
    """Return the records of one batch in the order of its requests."""
    records = dict(generate_side_by_side(model, requests))
    return [records[i] for i in range(len(requests))]


def same(record: batch.Outcome) -> dict[str, Any]:
    assert isinstance(record, Generation)
    times = ("seconds", "tokens_per_second", "logprobs")
    return {name: value for name, value in vars(record).items() if name not in times}


# Logits


@torch.inference_mode()
def test_padding_changes_no_logits(folder: Path, model: LanguageModel) -> None:
    reference = transformers_model(folder)
    rows = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [40], [7, 7, 7, 20]]
    decoder = BatchedModel(model)
    logits = decoder.add(rows)
    for more in ([5, 6, 7], [8, 9, 10], [11, 12, 13]):
        for row, ids in zip(logits, rows, strict=True):
            torch.testing.assert_close(row, all_logits(reference, ids)[-1], atol=1e-4, rtol=1e-4)
        rows = [[*row, token_id] for row, token_id in zip(rows, more, strict=True)]
        logits = decoder.step(more)
    decoder.keep([2, 0])
    logits = decoder.step([3, 4])
    rows = [[*rows[2], 3], [*rows[0], 4]]
    for row, ids in zip(logits, rows, strict=True):
        torch.testing.assert_close(row, all_logits(reference, ids)[-1], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_rows_join_and_leave(folder: Path, model: LanguageModel) -> None:
    reference = transformers_model(folder)
    decoder = BatchedModel(model)
    rows: list[list[int]] = []
    # of each time: the rows that stay, in their new order, and how long those are that join
    for kept, lengths in (
        ([], [9, 2]),
        ([0, 1], [30, 1]),  # longer than all before
        ([0, 3, 1], []),  # the last one takes the place of the longest
        ([0, 1, 2], [3]),  # in the place of one that has left
        ([3, 1], [4, 3, 12]),
        ([4, 0, 2], [1]),
    ):
        if len(kept) < len(rows):
            decoder.keep(kept)
        rows = [rows[row] for row in kept]
        new = [list(range(5 + n, 5 + 2 * n)) for n in lengths]
        found = [decoder.step([7] * len(rows))] if rows else []
        found += [decoder.add(new)] if new else []
        rows = [[*row, 7] for row in rows] + new
        for row, ids in zip(torch.cat(found), rows, strict=True):
            torch.testing.assert_close(row, all_logits(reference, ids)[-1], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_prefill_in_slices(
    folder: Path, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [list(range(1, 24)), [5, 6], list(range(30, 41))]
    whole = BatchedModel(model).add(rows)
    monkeypatch.setattr(batched_model, "PREFILL_SLICE", 4)
    torch.testing.assert_close(BatchedModel(model).add(rows), whole, atol=1e-4, rtol=1e-4)


def test_real_prompts_padded_are_those_of_transformers(
    smollm2: LanguageModel, smollm2_folder: Path
) -> None:
    reference = transformers_model(smollm2_folder)
    tokenizer = transformers_tokenizer(smollm2_folder)
    encoded = [tuple(tokenizer(prompt)["input_ids"]) for prompt in PROMPTS]
    requests = [Request("", ids, GREEDY, 16, skip_special=False) for ids in encoded]
    for record, ids in zip(in_order(smollm2, requests), encoded, strict=True):
        assert isinstance(record, Generation)
        expected = tokenizer.decode(greedy_ids(reference, ids, 16))
        assert record.text.startswith(expected.rstrip("\ufffd"))


# Independent requests


def varied(model: LanguageModel) -> list[Request]:
    """Return requests that differ in everything in which requests can differ."""
    settings = [
        GREEDY,
        SamplingSettings(greedy=False, seed=1),
        SamplingSettings(greedy=False, seed=1, temperature=0.6, top_k=9),
        SamplingSettings(greedy=False, seed=2, top_p=0.9, repetition_penalty=1.3),
        SamplingSettings(greedy=True, seed=None, no_repeat_ngram_size=2),
        SamplingSettings(greedy=False, seed=3, min_p=0.05, typical_p=0.9),
        SamplingSettings(greedy=False, seed=1),
    ]
    prompts = ["abcabcabcabc", "你好", "x", "hello " * 6, "ab", "abab", "abcabcabcabc"]
    lengths = [20, 3, 17, 9, 30, 1, 20]
    return [
        Request(
            prompt,
            tuple(model.tokenizer.encode(prompt, special=True).ids),
            setting,
            length,
            stop=("a", "\ufffd") if index == 3 else (),
            index=index,
            id=f"record {index}",
        )
        for index, (prompt, setting, length) in enumerate(
            zip(prompts, settings, lengths, strict=True)
        )
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 64])
def test_batch_is_each_alone(model: LanguageModel, size: int) -> None:
    requests = varied(model)
    records = list(generate_batch(model, requests, size))
    assert [same(record) for record in records] == [same(alone(model, r)) for r in requests]
    assert same(records[1])["text"] != same(records[6])["text"]


def test_sampled_batch_of_the_real_model(smollm2: LanguageModel) -> None:
    requests = [
        Request(
            prompt,
            tuple(smollm2.tokenizer.encode(prompt, special=True).ids),
            SamplingSettings(greedy=False, seed=5, top_k=50),
            12,
            index=index,
        )
        for index, prompt in enumerate(PROMPTS)
    ]
    records = list(generate_batch(smollm2, requests))
    assert [same(record) for record in records] == [same(alone(smollm2, r)) for r in requests]


def test_logprobs_in_a_batch(model: LanguageModel) -> None:
    requests = [Request("", ids, GREEDY, 4, logprobs=2) for ids in ((1, 2, 3), (9,))]
    for record, request in zip(generate_batch(model, requests), requests, strict=True):
        expected = alone(model, request)
        assert isinstance(record, Generation)
        assert record.logprobs is not None and expected.logprobs is not None
        assert [t.id for t in record.logprobs] == [t.id for t in expected.logprobs]
        values = [t.logprob for t in record.logprobs]
        assert values == pytest.approx([t.logprob for t in expected.logprobs], abs=1e-4)


def test_row_without_numbers_fails_alone(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(tiny)
    forward = BatchedModel._forward

    def broken(self: BatchedModel, ids: torch.Tensor, filled: torch.Tensor) -> torch.Tensor:
        logits = forward(self, ids, filled)
        if len(logits) == 3 and ids.shape[1] == 1:
            logits[1] = float("nan")
        return logits

    monkeypatch.setattr(BatchedModel, "_forward", broken)
    requests = [Request("", (i,), GREEDY, 6, id=i, line=i) for i in (1, 2, 3)]
    first, second, third = in_order(model, requests)
    assert same(first) == same(alone(model, requests[0]))
    assert second == FailedRequest(2, 2, "the model's logits are not numbers (in float32)")
    assert same(third) == same(alone(model, requests[2]))


def test_a_state_is_not_padded(tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    from tests.tiny_models import save_tokenizer

    config = MambaConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, state_size=4, eos_token_id=None
    )
    torch.manual_seed(0)
    make: Any = MambaForCausalLM
    make(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    model = load_model(tmp_path)
    assert not model.can_batch
    requests = [Request("", ids, GREEDY, 4) for ids in ((1, 2, 3), (9,))]
    records = list(generate_batch(model, requests))
    assert [same(record) for record in records] == [same(alone(model, r)) for r in requests]


def test_a_request_on_which_the_model_fails_fails_alone(model: LanguageModel) -> None:
    prompts = [(1, 2, 3), (4, VOCABULARY + 7), (5,), (6, 7)]
    requests = [Request("", ids, GREEDY, 4, id=i, line=i) for i, ids in enumerate(prompts, 1)]
    records = list(generate_batch(model, requests))
    assert records[1] == FailedRequest(
        2,
        2,
        f"the text has the token id {VOCABULARY + 7}, but the model's embeddings have only"
        f" {VOCABULARY} rows",
    )
    for i in (0, 2, 3):
        assert same(records[i]) == same(alone(model, requests[i]))


# Order, memory, arrival


def beams(count: int) -> BeamSettings:
    return BeamSettings(count, 1, 1.0)


@pytest.mark.parametrize("kind", ["beams", "mixed", "guesses"])
def test_each_record_comes_as_soon_as_it_is_known(
    kind: str, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(tiny)
    computed: list[int] = []
    single, row = batch._generate_single, batch._Row

    def spy_single(model: Any, request: Request, guesses: Any) -> Any:
        computed.append(request.index)
        return single(model, request, guesses)

    def spy_row(model: Any, request: Request) -> Any:
        computed.append(request.index)
        return row(model, request)

    monkeypatch.setattr(batch, "_generate_single", spy_single)
    monkeypatch.setattr(batch, "_Row", spy_row)
    by_beams = {"beams": range(8), "mixed": (1, 3, 6), "guesses": ()}[kind]
    requests = [
        Request(
            "", (5, i), GREEDY, 3, beams=beams(2) if i in by_beams else None, index=i, line=i + 1
        )
        for i in range(8)
    ]
    guesses = (lambda ids: [5, 5]) if kind == "guesses" else None
    records = generate_batch(model, requests, 2, guesses)
    for i in range(8):
        assert same(next(records))["index"] == i
        # the rest of a batch of two at most, and what lies between its rows
        assert len(computed) <= i + (3 if kind == "mixed" else 1)


def test_a_short_text_does_not_wait_for_a_long_one(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(tiny)
    steps = 0
    step = BatchedModel.step

    def counted(self: BatchedModel, ids: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        return step(self, ids)

    monkeypatch.setattr(BatchedModel, "step", counted)
    endless = SamplingSettings(greedy=False, seed=1)
    requests = [Request("", (5,), endless, tokens, index=tokens) for tokens in (2, 90)]
    records = generate_batch(model, requests)
    assert same(next(records))["index"] == 2
    assert steps == 1
    assert same(next(records))["index"] == 90


def test_batches_hold_what_fits(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(tiny)
    sizes: list[int] = []
    forward = BatchedModel._forward

    def counted(self: BatchedModel, ids: torch.Tensor, filled: torch.Tensor) -> torch.Tensor:
        sizes.append(len(ids))
        return forward(self, ids, filled)

    monkeypatch.setattr(BatchedModel, "_forward", counted)
    monkeypatch.setattr(batch, "_tokens_that_fit", lambda model: 100)
    requests = [Request("", (5,) * length, GREEDY, 10) for length in (10, 10, 10, 10, 10, 40, 90)]
    model.pads = True
    assert len(list(generate_batch(model, requests))) == 7
    assert sizes == [5] * 10 + [1] * 20  # 5 of 20 tokens; 50; 100
    sizes.clear()
    list(generate_batch(model, requests, 3))  # a size that was asked for holds
    assert max(sizes) == 3


def test_requests_take_the_places_of_those_that_ended(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(tiny)
    model.pads = True
    steps: list[int] = []
    step = BatchedModel.step

    def counted(self: BatchedModel, ids: Any) -> torch.Tensor:
        steps.append(len(ids))
        return step(self, ids)

    monkeypatch.setattr(BatchedModel, "step", counted)
    requests = [
        Request("", (5, *range(i)), GREEDY, tokens, index=i)
        for i, tokens in enumerate((2, 9, 2, 5, 4, 3))
    ]
    records = list(generate_batch(model, requests, 3))
    assert [same(record) for record in records] == [same(alone(model, r)) for r in requests]
    assert steps == [3, 1, 3, 3, 3, 2, 2, 2]  # the first token of each comes from its prompt


def test_a_request_that_fails_leaves_the_batch_alone(tiny: Path) -> None:
    model = load_model(tiny)
    requests = [
        Request("", ids, GREEDY, 6, index=i, line=i)
        for i, ids in enumerate([(1,), (2,), (VOCABULARY + 7,), (3,), (4,)])
    ]
    outcomes = dict(generate_side_by_side(model, requests, 2))
    assert [i for i, found in outcomes.items() if isinstance(found, HftoolError)] == [2, 3]
    for i in (0, 1, 4):
        assert same(outcomes[i]) == same(alone(model, requests[i]))


def test_input_is_read_no_further_than_needed(tiny: Path) -> None:
    model = load_model(tiny)
    read = 0

    def endless() -> Iterator[Request]:
        nonlocal read
        while True:
            read += 1
            yield Request("", (1, 2), GREEDY, 1, index=read)

    records = generate_batch(model, endless(), 2)
    for expected in range(1, 40):
        assert same(next(records))["index"] == expected
    assert read < 40 + 2 * 4 * 4


# Records


def parsed(model: LanguageModel, *lines: str | bytes) -> list[Request | FailedRequest]:
    data = [line.encode() if isinstance(line, str) else line for line in lines]
    asked = GenerateOptions(
        PromptOptions(), SamplingOptions(greedy=True), GenerationOptions(max_new_tokens=5)
    )
    return list(requests_of_records(model, numbered_records(data), FileOptions(), asked))


def test_record_says_everything_for_itself(tiny: Path) -> None:
    model = load_model(tiny)
    line = {
        "id": {"any": ["thing"]},
        "prompt": "ab",
        **{"temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1, "typical_p": 0.8},
        **{"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "greedy": False, "seed": 9},
        **{"max_new_tokens": 7, "stop": ["x", "y"], "top_logprobs": 2},
    }
    [found] = parsed(model, json.dumps(line))
    settings = SamplingSettings(False, 9, 0.5, 3, 0.9, 0.1, 0.8, 1.2, 3)
    ids = tuple(model.tokenizer.encode("ab", special=True).ids)
    assert found == Request(
        "ab", ids, settings, 7, ("x", "y"), logprobs=2, id={"any": ["thing"]}, line=1
    )


def test_records_without_a_seed_draw_their_own(tiny: Path) -> None:
    lines = list(numbered_records([b'{"prompt": "a"}'] * 20))
    asked = GenerateOptions(PromptOptions(), SamplingOptions(), GenerationOptions())
    found = requests_of_records(load_model(tiny), lines, FileOptions(), asked)
    assert len({r.settings.seed for r in found if isinstance(r, Request)}) == 20
    asked = GenerateOptions(PromptOptions(), SamplingOptions(seed=4), GenerationOptions())
    found = requests_of_records(load_model(tiny), lines, FileOptions(), asked)
    assert {r.settings.seed for r in found if isinstance(r, Request)} == {4}


def test_messages_go_through_the_template(tiny: Path) -> None:
    model = load_model(tiny)
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    [found] = parsed(model, json.dumps({"messages": messages}))
    assert isinstance(found, Request)
    theirs = transformers_tokenizer(tiny).apply_chat_template(messages, add_generation_prompt=True)
    assert list(found.ids) == list(theirs["input_ids"])
    assert found.prompt == "U"
    [again] = parsed(model, json.dumps({"prompt": None, "messages": messages, "stop": None}))
    assert again == found


BROKEN = {
    "broken": "the line is not valid JSON: Expecting value: line 1 column 1 (char 0); prompts as",
    "[1]": "the line is not a JSON object",
    "{}": 'a record must have either "prompt" or "messages"',
    '{"prompt": null, "messages": null}': 'a record must have either "prompt" or "messages"',
    '{"prompt": "a", "messages": []}': 'a record must have either "prompt" or "messages"',
    '{"prompt": 5}': '"prompt" must be text',
    '{"prompt": ""}': "the prompt is empty",
    '{"messages": "hi"}': "the messages must be a list",
    '{"messages": [{"role": "user"}]}': "message 1 has no content",
    '{"prompt": "a", "temperatur": 1}': "unknown field temperatur",
    '{"prompt": "a", "temperature": "hot"}': "temperature must be a number of at least 0, not",
    '{"prompt": "a", "temperature": true}': "temperature must be a number of at least 0, not",
    '{"prompt": "a", "temperature": -1}': "temperature must be a number of at least 0, not '-1'",
    '{"prompt": "a", "temperature": NaN}': "the line is not valid JSON: NaN is not a JSON number",
    '{"prompt": "a", "temperature": 1e999}': "temperature must be a number of at least 0",
    '{"prompt": "a", "top_k": 1.5}': "top_k must be a whole number of at least 0, not '1.5'",
    '{"prompt": "a", "top_p": 1.01}': "top_p must be a number from 0 to 1, not '1.01'",
    '{"prompt": "a", "greedy": 1}': "greedy must be on or off, not '1'",
    '{"prompt": "a", "stop": 3}': "stop must be a text or a list of texts",
    '{"prompt": "a", "stop": [""]}': "a stop text is empty",
    '{"prompt": "a", "max_new_tokens": 0}': "max_new_tokens must be a whole number of at least 1",
    '{"prompt": "a", "seed": 99999999999999999999}': "seed must be a whole number from 0 to",
    '{"prompt": "a", "repetition_penalty": 0}': "--repetition-penalty must be above 0",
    '{"prompt": "a\\ud800"}': "the record has half of a surrogate pair",
    '{"prompt": "' + "a" * 200 + '"}': "the prompt has 200 tokens; the context of",
    "[" * 100_000: "the line is not valid JSON",
}


@pytest.mark.parametrize("line", BROKEN, ids=lambda line: line[:50])
def test_broken_record_is_answered_on_its_own_line(line: str, tiny: Path) -> None:
    before, failure, after = parsed(load_model(tiny), '{"prompt": "a"}', line, '{"prompt": "b"}')
    assert isinstance(before, Request) and isinstance(after, Request)
    assert isinstance(failure, FailedRequest)
    assert failure.error.startswith(BROKEN[line])
    assert (failure.line, after.line, after.index) == (2, 3, 2)


def test_bytes_that_are_not_text(tiny: Path) -> None:
    failure, good = parsed(load_model(tiny), b'{"prompt": "\xff"}', '{"prompt": "b"}')
    assert isinstance(failure, FailedRequest)
    assert failure.error == "stdin: line 1, byte 13: 0xff is not UTF-8"
    assert isinstance(good, Request)


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_any_line_is_a_request_or_a_failure(smollm2: LanguageModel, line: bytes) -> None:
    assert all(isinstance(item, Request | FailedRequest) for item in parsed(smollm2, line))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = st.sampled_from(["id", "prompt", "messages", *Request.__dataclass_fields__])


@given(st.dictionaries(FIELDS | st.sampled_from(["temperature", "top_p", "stop", "seed"]), JSON))
def test_any_record_is_a_request_or_a_failure(
    smollm2: LanguageModel, record: dict[str, Any]
) -> None:
    [found] = parsed(smollm2, json.dumps(record))
    assert isinstance(found, Request | FailedRequest)


# The command


def lines_of(records: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_batch_on_the_command_line(tiny: Path, tmp_path: Path) -> None:
    arguments = ("generate", "-m", str(tiny), "--dtype", "float32", "-n", "6")
    records: list[dict[str, Any]] = [
        {"id": 1, "prompt": "abc", "seed": 3},
        {"id": "two", "prompt": "hello", "seed": 4, "max_new_tokens": 2},
        {"id": None, "nothing": 1},
        {"messages": [{"role": "user", "content": "hi"}], "greedy": True},
    ]
    source = tmp_path / "in.jsonl"
    source.write_text(lines_of(records[:2]) + "\n" + lines_of(records[2:]))
    result = run(*arguments, "--batch", str(source))
    assert result.exit_code == 1
    assert result.stderr == ('Error: 1 record failed\nHint: see the "error" field in the output\n')
    first, second, failed, fourth = map(json.loads, result.stdout.splitlines())
    assert failed == {"id": None, "line": 4, "error": "unknown field nothing"}
    assert [first["id"], second["id"], fourth.get("id")] == [1, "two", None]
    assert [first["index"], second["index"], fourth["index"]] == [0, 1, 3]
    [expected] = json.loads(run(*arguments, "abc", "--seed", "3", "--json").stdout)
    assert (first["text"], first["seed"]) == (expected["text"], 3)
    [expected] = json.loads(run(*arguments, "hello", "--seed", "4", "-n", "2", "--json").stdout)
    assert (second["text"], second["usage"]) == (expected["text"], expected["usage"])
    [expected] = json.loads(run(*arguments, "--chat", "hi", "--greedy", "--json").stdout)
    assert (fourth["text"], fourth["prompt"]) == (expected["text"], "hi")
    whole = run(*arguments, "--batch", "-", "-o", str(tmp_path / "out"), stdin=source.read_text())
    assert whole.exit_code == 1
    written = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [r.get("text") for r in written] == [first["text"], second["text"], None, fourth["text"]]


def test_batch_of_nothing(tiny: Path) -> None:
    result = run("generate", "-m", str(tiny), "--batch", "-", stdin="\n \n")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "more", [("text",), ("-f", "x"), ("--lines",), ("--num-return-sequences", "2")], ids=" ".join
)
def test_batch_names_all_prompts(tiny: Path, more: tuple[str, ...]) -> None:
    result = run("generate", "-m", str(tiny), "--batch", "-", *more, stdin='{"prompt": "a"}\n')
    assert (result.exit_code, result.stdout) == (2, "")


def test_batch_file_that_is_not_there(tiny: Path) -> None:
    result = run("generate", "-m", str(tiny), "--batch", "/nowhere")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: cannot read /nowhere: No such file or directory\n",
    )


def test_slow_input_is_answered_record_by_record(tiny: Path) -> None:
    command = [sys.executable, "-m", "hftool", "generate", "-m", str(tiny), "--batch", "-", "-n3"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        for prompt in ("abc", "def"):
            process.stdin.write(json.dumps({"prompt": prompt}).encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["prompt"] == prompt
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.slow
def test_memory_does_not_grow_with_the_records(tiny: Path, tmp_path: Path) -> None:
    peaks = []
    for count in (1_000, 100_000):
        source = tmp_path / "in.jsonl"
        source.write_text(
            "".join(f'{{"id": {i}, "prompt": "ab", "greedy": true}}\n' for i in range(count))
        )
        out = tmp_path / "out.jsonl"
        code = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        arguments = ["generate", "-m", str(tiny), "-n", "1", "--batch", str(source), "-o", str(out)]
        done = subprocess.run(
            [sys.executable, "-c", code, sys.executable, "-m", "hftool", *arguments],
            capture_output=True,
            check=True,
        )
        peaks.append(int(done.stdout))
        ids = [json.loads(line)["id"] for line in out.read_text().splitlines()]
        assert ids == list(range(count))
    assert peaks[1] < peaks[0] + 100_000  # kB


def command(folder: Path, *arguments: Any) -> list[dict[str, Any]]:
    done = run("generate", "-m", str(folder), "--dtype", "float32", "--json", *arguments)
    records: list[dict[str, Any]] = json.loads(done.stdout)
    return records


def test_resume_of_another_input(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    arguments = ("generate", "-m", str(tiny), "-n", "1", "--batch", "-", "-o", str(out))
    first = '{"prompt": "a", "id": 1}\n'
    assert run(*arguments, stdin=first).exit_code == 0
    other = run(*arguments, "--resume", stdin='{"prompt": "b", "id": 1}\n')
    assert other.exit_code == 1
    assert "is from another input" in other.stderr
    more = run(*arguments, "--resume", stdin=first + '{"prompt": "b", "id": 2}\n')
    assert (more.exit_code, more.stderr) == (0, "resuming after record 1\n")
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize("option", [["--resume", "-o", "x"], ["--batch-size", "2"]])
def test_options_of_a_batch_need_one(
    option: list[str], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_text("an earlier answer")
    done = run("generate", "-m", str(tiny), "abc", *option)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {option[0]} needs --batch FILE\n")
    assert (tmp_path / "x").read_text() == "an earlier answer"


def test_an_output_folder_is_not_made(tiny: Path, tmp_path: Path) -> None:
    output = tmp_path / "nowhere" / "out.jsonl"
    done = run("generate", "-m", str(tiny), "--batch", "-", "-o", str(output), stdin="{}\n")
    assert done.exit_code == 1
    assert f"the folder {output.parent} does not exist" in done.stderr
    assert not output.parent.exists()

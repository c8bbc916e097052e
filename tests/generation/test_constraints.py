"""Constrained texts, against transformers' generate with the tokens that `regex` allows."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import regex
import torch

from hftool.errors import HftoolError, UsageError
from hftool.generation.batch import generate_batch
from hftool.generation.beam_search import search
from hftool.generation.constraints import schema_text
from hftool.generation.generate import generate
from hftool.generation.records import BeamSettings, Generation, Request
from hftool.generation.sampling import SamplingSettings
from hftool.generation.speculative import prompt_lookup_generator
from hftool.models.language_model import LanguageModel
from hftool.options.constraints import Constraint
from tests.conftest import run
from tests.tiny_models import END, all_logits, load_model, save_model, transformers_model

PATTERN = r"[a-c]{2,}( and ([a-c]{3}|[0-9]+)){1,2}"
GREEDY = SamplingSettings(greedy=True, seed=None, constraint=Constraint("regex", PATTERN))
SAMPLED = replace(GREEDY, greedy=False, seed=5, temperature=1.3)
PERSON = '{"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}'
TOKENS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("constraints"))


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return load_model(folder)


def requests(model: LanguageModel, settings: SamplingSettings) -> list[Request]:
    texts = ["abc and abc", "x", "a longer prompt"]
    prompts = [tuple(model.tokenizer.encode(text, special=False).ids) for text in texts]
    seeds = [None if settings.seed is None else settings.seed + i for i in range(len(texts))]
    return [
        Request(text, ids, replace(settings, seed=seed), TOKENS)
        for text, ids, seed in zip(texts, prompts, seeds, strict=True)
    ]


def last(events: Any) -> Generation:
    *_, record = events
    assert isinstance(record, Generation)
    return record


def oracle(model: LanguageModel, prompt: Sequence[int]) -> Any:
    """What `generate` of transformers calls: the tokens after which the pattern can still match."""
    known = [model.tokenizer.token_bytes(i) for i in range(END)]
    ascii_tokens = {i: data.decode() for i, data in enumerate(known) if data and data.isascii()}

    def allowed(_: int, ids: torch.Tensor) -> list[int]:
        text = model.tokenizer.decode(ids[len(prompt) :].tolist())
        left = [
            i
            for i, token in ascii_tokens.items()
            if regex.fullmatch(PATTERN, text + token, partial=True)
        ]
        return left + [END] * bool(regex.fullmatch(PATTERN, text))

    return allowed


@pytest.mark.parametrize("beams", [1, 3])
def test_texts_are_those_of_transformers(folder: Path, model: LanguageModel, beams: int) -> None:
    reference = transformers_model(folder)
    for request in requests(model, GREEDY):
        prompt = torch.tensor([request.ids])
        output = reference.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=TOKENS,
            do_sample=False,
            num_beams=beams,
            prefix_allowed_tokens_fn=oracle(model, request.ids),
        )
        expected = model.tokenizer.decode(output[0, len(request.ids) :].tolist(), True)
        if beams == 1:
            record = last(generate(model, request))
        else:
            [record] = search(model, request, BeamSettings(beams, 1, 1.0))
        assert record.text == expected
        assert record.valid is bool(regex.fullmatch(PATTERN, expected))


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED])
def test_drafts_and_batches_change_no_text(
    model: LanguageModel, settings: SamplingSettings
) -> None:
    alone = [last(generate(model, request)) for request in requests(model, settings)]
    assert len({record.text for record in alone}) == len(alone)
    for record in alone:
        assert record.valid is bool(regex.fullmatch(PATTERN, record.text))
    together = list(generate_batch(model, requests(model, settings)))
    drafts = prompt_lookup_generator(4)
    drafted = [
        last(generate(model, request, candidate_generator=drafts))
        for request in requests(model, settings)
    ]
    for records in (together, drafted):
        assert [r.text for r in records if isinstance(r, Generation)] == [r.text for r in alone]


def test_a_constraint_that_removes_nothing_changes_no_text() -> None:
    options = ["generate", "--chat", "Say hi.", "--seed", "3", "-n", "12", "--dtype", "float32"]
    free = run(*options)
    assert free.exit_code == 0
    assert run(*options, "--regex", "(?s:.*)").stdout == free.stdout


def test_no_more_beams_than_the_constraint_allows(model: LanguageModel) -> None:
    settings = replace(GREEDY, constraint=Constraint("choice", '["no", "yes"]'))
    request = replace(requests(model, settings)[0], beams=BeamSettings(4, 4, 1.0))
    records = list(search(model, request, BeamSettings(4, 4, 1.0)))
    assert sorted(record.text for record in records) == ["no", "yes"]
    assert all(record.valid for record in records)


def test_a_text_that_is_cut_off_is_not_valid(folder: Path) -> None:
    options = ["-m", str(folder), "--schema", PERSON, "--seed", "1", "--json"]
    result = run("generate", "x", *options, "-n", "4")
    assert result.exit_code == 1
    assert "ended before satisfying the constraint" in result.stderr
    [record] = json.loads(result.stdout)
    assert (record["finish_reason"], record["valid"]) == ("length", False)
    result = run("generate", "x", *options, "-n", "100", "--top-k", "1")
    [record] = json.loads(result.stdout)
    if record["valid"]:
        jsonschema.validate(json.loads(record["text"]), json.loads(PERSON))


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (["--schema", '{"not": {"type": "null"}, "if": {}}'], "the schema has if, not"),
        (["--schema", '{"$ref": "https://example.com/x"}'], "https://example.com/x"),
        (["--schema", "{"], "not valid JSON"),
        (["--schema", '{"items": {"$id": "x", "$ref": "y"}}'], "the schema has $id beside $ref"),
        (["--schema", "people.json"], "'people.json' is not a name"),
        (["--schema", "age year"], "'year' is not a type"),
        (["--regex", "(?=a)b"], "look-around"),
        (["--grammar", "/dev/null"], "no start rule found"),
        (["--choice", ""], "a text is empty"),
        (["--choice", "a", "--regex", "b"], "--regex excludes --choice"),
        (["--choice", "a", "--stop", "b"], "--stop would cut off"),
    ],
)
def test_what_cannot_be_kept_is_refused(folder: Path, options: list[str], cause: str) -> None:
    result = run("generate", "x", "-m", str(folder), *options)
    assert result.exit_code == 2
    assert cause in result.stderr
    assert len(result.stderr.splitlines()) <= 2
    assert not result.stdout


def test_a_constraint_that_nothing_satisfies_is_refused(model: LanguageModel) -> None:
    settings = replace(GREEDY, constraint=Constraint("regex", "[a&&b]"))
    with pytest.raises(HftoolError, match=r"no text satisfies it|no token that can begin"):
        last(generate(model, requests(model, settings)[1]))


def test_filters_that_leave_nothing_are_named(model: LanguageModel) -> None:
    settings = replace(GREEDY, no_repeat_ngram_size=1, constraint=Constraint("regex", "a{5}"))
    with pytest.raises(HftoolError, match="other filters have removed"):
        last(generate(model, requests(model, settings)[1]))


def test_sample_shows_what_is_forced(folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    options = ["-m", str(folder), "--regex", "ab|ac", "--seed", "1", "--json", "--steps", "9"]
    result = run("sample", "x", *options, "--trace", str(trace))
    first, second = json.loads(result.stdout)  # nothing can follow
    assert (first["token"], first["allowed"], first["kept"], first["sampled_prob"]) == (
        "a",
        1,
        1,
        1.0,
    )
    assert (second["allowed"], second["text"] in ("ab", "ac")) == (2, True)
    struck_out = next(c for c in first["candidates"] if c["token"] != "a")
    assert (struck_out["removed_by"], struck_out["after"]["regex"]) == ("regex", None)
    shown = run("sample", "--replay", str(trace), "-m", str(folder), "--format", "table")
    assert "forced by the constraint, 1 token kept" in shown.stdout
    assert "2 tokens allowed by the constraint" in shown.stdout
    contradicting = run("sample", "--replay", str(trace), "--regex", "a")
    assert (contradicting.exit_code, "leave out --regex" in contradicting.stderr) == (2, True)


def test_short_schemas() -> None:
    assert json.loads(schema_text("name, age int\ntags str[]")) == {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": False,
    }
    for wrong in ("", "a b c", "1 2", "name: text"):
        with pytest.raises(UsageError):
            schema_text(wrong)


def test_logprobs_are_the_models_own_and_those_among_what_is_allowed(model: LanguageModel) -> None:
    settings = replace(GREEDY, constraint=Constraint("choice", '["ab", "ac", "b"]'))
    request = replace(requests(model, settings)[0], logprobs=3)
    record = last(generate(model, request))
    ids = list(request.ids)
    for token in record.logprobs or ():
        logits = all_logits(model.model, ids)[-1]
        raw = torch.log_softmax(logits, dim=-1)
        text = model.tokenizer.decode(ids[len(request.ids) :])
        [allowed] = [[model.tokenizer.encode(c, False).ids[0] for c in {"": "ab", "a": "bc"}[text]]]
        among = torch.log_softmax(logits[allowed], dim=-1)
        assert token.logprob == pytest.approx(float(raw[token.id]), abs=1e-4)
        assert token.constrained_logprob == pytest.approx(
            float(among[allowed.index(token.id or 0)]), abs=1e-4
        )
        assert [t.id for t in token.top] == raw.topk(3).indices.tolist()
        assert {t.id for t in token.constrained_top or ()} == set(allowed)
        assert all((t.constrained_logprob is None) == (t.id not in allowed) for t in token.top)
        ids.append(token.id or 0)


def test_each_batch_record_has_its_own_constraint(folder: Path) -> None:
    ok = {"ok": {"type": "boolean"}}
    person = {"type": "object", "properties": ok, "required": ["ok"], "additionalProperties": False}
    answer = {"type": "json_schema", "json_schema": {"name": "ok", "schema": person}}
    asked: list[tuple[dict[str, Any], str]] = [
        ({}, "x|y"),
        ({"schema": person}, r'\{\s*"ok"\s*:\s*(true|false)\s*\}'),
        ({"response_format": answer}, r'\{\s*"ok"\s*:\s*(true|false)\s*\}'),
        ({"regex": "[ab]{3}"}, "[ab]{3}"),
        ({"choice": ["no", "yes"]}, "no|yes"),
        ({"grammar": 'start: "a" start "b" | "c"'}, "(a(?R)b|c)"),
        ({"response_format": {"type": "text"}}, "(?s:.*)"),
    ]
    refused: list[dict[str, Any]] = [
        {"schema": {"not": {}}},
        {"regex": "a", "choice": ["b"]},
        {"response_format": 3},
    ]
    lines = [json.dumps({"prompt": "abc", "seed": 3, **fields}) for fields, _ in asked]
    lines += [json.dumps({"prompt": "abc", **fields}) for fields in refused]
    options = ["-m", str(folder), "--choice", "x", "--choice", "y", "-n", "80"]
    result = run("generate", "--batch", "-", *options, stdin="\n".join(lines))
    assert result.exit_code == 1
    records = [json.loads(line) for line in result.stdout.splitlines()]
    for (_, pattern), record in zip(asked, records, strict=False):
        assert regex.fullmatch(pattern, record["text"]) or record["finish_reason"] == "length"
    assert [record.get("valid") for record in records[:5]] == [True] * 5
    assert "valid" not in records[6]
    errors = [record["error"] for record in records[len(asked) :]]
    assert "the schema has not" in errors[0]
    assert errors[1] == '"regex" excludes "choice"'
    assert '"response_format" must have the type' in errors[2]


def test_answers_of_a_chat(folder: Path) -> None:
    turns = '/schema ok bool\nhello\n/schema ""\nhello\n/schema "x\nhello\n'
    options = ["-m", str(folder), "--seed", "1", "--json", "-n", "40"]
    result = run("chat", *options, "--choice", "yes", "--choice", "no", stdin="hello\n" + turns)
    answers = [turn["content"] for turn in json.loads(result.stdout) if turn["role"] == "assistant"]
    assert answers[0] in ("yes", "no")
    assert set(json.loads(answers[1])) == {"ok"}
    assert len(answers) == 4
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(answers[2])
    assert "Error: --schema: '\"x' is not a name" in result.stderr
    cut = run("chat", "-m", str(folder), "--schema", "name", "-n", "3", stdin="hello\n")
    assert "the answer ended before satisfying the constraint" in cut.stderr
    excluded = run("chat", "-m", str(folder), "--schema", "name", "--stop", "x")
    assert (excluded.exit_code, "--stop would cut off" in excluded.stderr) == (2, True)

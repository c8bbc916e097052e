"""Commands as a user types them."""

import json
import os
from pathlib import Path

import pytest

from tests.conftest import run
from tests.tiny_models import VOCABULARY, save_model


@pytest.mark.usefixtures("smollm2_folder")
def test_topk_in_every_format() -> None:
    arguments = ["topk", "The capital of France is", "-k", "3", "--format"]
    records = json.loads(run(*arguments, "json").stdout)
    assert records[0]["token"] == " Paris"
    assert [json.loads(line) for line in run(*arguments, "jsonl").stdout.splitlines()] == records
    for name, separator in (("csv", ","), ("tsv", "\t")):
        head, *rows = run(*arguments, name).stdout.splitlines()
        assert head.split(separator) == list(records[0])
        assert [int(row.split(separator)[2]) for row in rows] == [r["id"] for r in records]
    text = [line.split("\t") for line in run(*arguments, "text").stdout.splitlines()]
    assert [(int(rank), int(i), float(prob), token) for rank, i, prob, token in text] == [
        (r["rank"], r["id"], r["prob"], r["token"]) for r in records
    ]
    table = run(*arguments, "table").stdout
    assert "␣Paris" in table and "█" in table


@pytest.mark.usefixtures("smollm2_folder")
def test_a_seed_repeats_a_generation_and_an_unseeded_one_says_its_seed() -> None:
    arguments = ["generate", "Once upon a time", "-n", "12", "--temperature", "1", "--json"]
    first = json.loads(run(*arguments).stdout)[0]
    again = json.loads(run(*arguments, "--seed", str(first["seed"])).stdout)[0]
    other = json.loads(run(*arguments, "--seed", str(first["seed"] + 1)).stdout)[0]
    assert again["text"] == first["text"] != other["text"]


@pytest.mark.usefixtures("smollm2_folder")
def test_piped_chat_remembers_and_writes_records() -> None:
    done = run("chat", "--greedy", "--format", "jsonl", stdin="My name is Ada.\n\nexit\nmore\n")
    turns = [json.loads(line) for line in done.stdout.splitlines()]
    assert [turn["role"] for turn in turns] == ["user", "assistant"]
    assert turns[0]["content"] == "My name is Ada."
    assert turns[1]["completion_tokens"] > 0
    assert done.stderr == ""


@pytest.mark.usefixtures("smollm2_folder")
def test_a_piped_chat_answers_as_one_generation_of_the_whole_dialogue() -> None:
    question = "What is the capital of France?"
    answer = run("chat", "--greedy", "--dtype", "float32", stdin=question + "\n").stdout
    alone = run("generate", "--chat", question, "--greedy", "--dtype", "float32").stdout
    assert answer == alone == "The capital of France is Paris.\n"


@pytest.mark.usefixtures("minilm_folder")
def test_sentiment_keeps_the_place_of_empty_lines() -> None:
    done = run("sentiment", "--format", "jsonl", stdin="I love it\n\nI hate it\n")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["label"] for r in records] == ["POSITIVE", "", "NEGATIVE"]
    assert records[1]["score"] is None
    lines = run("sentiment", stdin="I love it\n\nI hate it\n").stdout.splitlines()
    assert lines[1] == "\t\t"
    assert lines[2].startswith("NEGATIVE\t0.") and lines[2].endswith("\tI hate it")


@pytest.mark.parametrize(
    "arguments",
    [
        ["encode", "x", "--nonsense"],
        ["topk", "x", "-k", "0"],
        ["generate", "x", "--temperature", "-1"],
        ["generate", "x", "--top-p", "1.5"],
        ["sentiment", "x", "--format", "yaml"],
        ["encode", "x", "--json", "--format", "csv"],
        ["decode", "12,x"],
        ["encode", "x", "--count", "--roundtrip"],
        ["encode", "x", "--compare", "smollm2", "--max-tokens", "1"],
        ["encode", "x", "--messages", "chat.json"],
        ["encode", "--messages", "chat.json", "-s", "Be brief."],
        ["vocab-dump", "--stats", "--diff", "smollm2"],
        ["topk", "x", "--position", "all", "--layers"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr


def test_an_interrupted_output_file_is_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "labels.txt"
    target.write_text("before")
    done = run("decode", "-f", str(tmp_path / "none"), "-o", str(target))
    assert done.exit_code == 1
    assert target.read_text() == "before"
    assert os.listdir(tmp_path) == ["labels.txt"]


# Texts and numbers that are odd


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small model with a context of 16 tokens."""
    return str(save_model(tmp_path_factory.mktemp("tiny"), context=16))


@pytest.mark.parametrize("text", ["", " ", " \t\r\n ", "\u3000\u00a0"])
@pytest.mark.usefixtures("smollm2_folder")
def test_nothing_and_blanks_are_encoded_and_decoded(text: str) -> None:
    done = run("encode", text)
    assert (done.exit_code, done.stderr) == (0, "")
    back = run("decode", *done.stdout.split(), stdin="")
    assert back.stdout_bytes.decode() == text + "\n"
    assert run("encode", text, "--count").stdout == f"{len(done.stdout.split())}\n"
    assert run("encode", text, "--roundtrip").stdout == "same\n"
    for columns in ("--compare=minilm-sst2", "--special"):
        assert run("encode", text, columns, "--format", "table").exit_code == 0


@pytest.mark.parametrize("ids", ["", " ", "\n\t\n", "[]"])
@pytest.mark.usefixtures("smollm2_folder")
def test_no_ids_are_no_text(ids: str) -> None:
    for done in (run("decode", ids), run("decode", stdin=ids)):
        assert (done.exit_code, done.stdout, done.stderr) == (0, "\n", "")


@pytest.mark.parametrize("command", ["topk", "sample"])
def test_nothing_to_go_on_from(command: str, tiny: str) -> None:
    for done in (run(command, "", "-m", tiny), run(command, "-m", tiny, stdin="\n")):
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("Error: the prompt is empty")
    for blank in (" ", " \t "):
        done = run(command, blank, "-m", tiny, "--json")
        assert done.exit_code == 0
        assert json.loads(done.stdout)


@pytest.mark.parametrize("ref", ["", " ", "\n"])
def test_no_model_is_named(ref: str) -> None:
    done = run("vocab-dump", ref)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: unknown model '")


def test_more_candidates_than_tokens_are_all_of_them(tiny: str) -> None:
    done = run("sample", "ab", "-m", tiny, "-k", "100000", "--steps", "2", "--seed", "1", "--json")
    for step in json.loads(done.stdout):
        assert sorted(c["id"] for c in step["candidates"]) == list(range(VOCABULARY))


def test_a_prompt_longer_than_the_context_is_not_cut(tiny: str) -> None:
    for command in (["topk"], ["topk", "--position", "all"], ["sample"]):
        done = run(*command, "x" * 21, "-m", tiny)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("Error: the prompt has 21 tokens; the context of ")
        assert done.stderr.splitlines()[0].endswith(" holds 16")


def test_a_replay_has_its_own_prompt(tiny: str, tmp_path: Path) -> None:
    trace = str(tmp_path / "trace")
    assert run("sample", "ab", "-m", tiny, "--steps", "1", "--trace", trace).exit_code == 0
    done = run("sample", "ab", "-m", tiny, "--replay", trace)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: --replay takes its prompt from the trace")


@pytest.mark.parametrize("pattern", ["[", "(", "*", "a{2,1}", "(?<=a*)b", "\\"])
@pytest.mark.usefixtures("smollm2_folder")
def test_a_broken_regular_expression(pattern: str) -> None:
    done = run("vocab-dump", "smollm2", f"--grep={pattern}")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: --grep: ")


@pytest.mark.usefixtures("smollm2_folder")
def test_half_a_character_alone_is_decoded_to_its_bytes() -> None:
    ids = run("encode", "佽").stdout.split()
    alone = "".join(run("decode", token_id).stdout.rstrip("\n") for token_id in ids)
    assert alone == "<0xE4><0xBD><0xBD>"
    assert run("decode", *ids).stdout == "佽\n"

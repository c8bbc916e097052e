"""Commands as a user types them."""

import json
import os
from pathlib import Path

import pytest

from tests.conftest import run


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
    arguments = ["generate", "Once upon a time", "-n", "12", "--json"]
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

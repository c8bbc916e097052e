"""One text that fails: the run stops there, or goes on with the others, and says so."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import (
    AutoModelForSequenceClassification,
    BartConfig,
    BartForSequenceClassification,
    T5Config,
    T5ForSequenceClassification,
)

from hftool.classification.classify import classify
from hftool.classification.sequence_classifier import ClassifierScorer
from hftool.inputs.tables import TextRow
from tests.conftest import run
from tests.tiny_models import (
    END,
    PAD,
    VOCABULARY,
    load_tiny_classifier,
    save_classifier,
    save_tokenizer,
    transformers_tokenizer,
)

TEXTS = ["good one", "bad <url> one", "", "another", "bad <url> one", "the last"]
CAUSE = f"the text has the token id {VOCABULARY + 3}, but the model's embeddings have only"


def add_token(folder: Path, content: str) -> None:
    """Add a token that the model has no embedding for."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    token = {**tokenizer["added_tokens"][0], "id": VOCABULARY + 3, "content": content}
    tokenizer["added_tokens"].append(token)
    gap = {**token, "special": False}
    for number in range(VOCABULARY - 2, VOCABULARY + 3):  # ids have no gaps
        tokenizer["added_tokens"].append({**gap, "id": number, "content": f"<gap {number}>"})
    tokenizer["added_tokens"].sort(key=lambda added: added["id"])
    path.write_text(json.dumps(tokenizer))
    assert Tokenizer.from_file(str(path)).token_to_id(content) == VOCABULARY + 3


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A classifier of hftool's own class, or of transformers'."""
    folder = save_classifier(
        tmp_path_factory.mktemp(request.param), ("BAD", "GOOD"), architecture=request.param
    )
    add_token(folder, "<url>")
    return folder


def sentiment(folder: Path, *arguments: str, texts: list[str] = TEXTS) -> Any:
    return run("sentiment", "-m", str(folder), *arguments, stdin="\n".join(texts) + "\n")


def test_a_run_stops_at_the_text_that_fails(folder: Path) -> None:
    done = sentiment(folder)
    assert done.exit_code == 1
    assert [line.split("\t")[2] for line in done.stdout.splitlines()] == TEXTS[:1]
    error, hint = done.stderr.splitlines()
    assert error.startswith(f"Error: stdin: line 2: {CAUSE}")
    assert error.endswith("(the text: bad <url> one)")
    assert hint == "Hint: --on-error report or skip goes on with the other texts"
    alone = run("sentiment", "-m", str(folder), "bad <url> one")
    assert alone.stderr.startswith(f"Error: {CAUSE}")
    assert "Hint: its tokenizer.json may be that of another model" in alone.stderr


def test_a_run_reports_the_texts_that_fail(folder: Path, tmp_path: Path) -> None:
    whole = sentiment(folder, "--format", "jsonl", texts=[t for t in TEXTS if "<url>" not in t])
    expected = [json.loads(line) for line in whole.stdout.splitlines()]
    done = sentiment(folder, "--format", "jsonl", "--on-error", "report")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["text"] for record in records] == TEXTS
    failed = [record for record in records if "error" in record]
    assert [(r["label"], r["score"]) for r in failed] == [("", None)] * 2
    assert [r["error"][:15] for r in failed] == ["stdin: line 2: ", "stdin: line 5: "]
    for found, other in zip([r for r in records if "error" not in r], expected, strict=True):
        assert found == pytest.approx(other, abs=1e-5)
    assert done.exit_code == 1
    assert 'Error: 2 texts failed\nHint: see the "error" field in the output\n' in done.stderr

    shown = sentiment(folder, "--on-error", "report", "--format", "table").stdout
    assert shown.count("stdin: line ") == 2
    lines = sentiment(folder, "--on-error", "report").stdout.splitlines()
    assert lines[1].startswith(f"\t\tbad <url> one\terror=stdin: line 2: {CAUSE}")
    shown = sentiment(folder, "--on-error", "report", "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(shown)))
    assert [*rows[0]] == ["text", "label", "score", "error"]
    assert [bool(row["error"]) for row in rows] == [False, True, False, False, True, False]
    target = tmp_path / "out.parquet"
    assert sentiment(folder, "--on-error", "report", "-o", str(target)).exit_code == 1
    table = pyarrow.parquet.read_table(target)
    assert table["error"].to_pylist() == [row["error"] or None for row in rows]


@pytest.mark.parametrize("name", ["text", "json", "csv", "table"])
def test_a_run_leaves_out_the_texts_that_fail(name: str, folder: Path) -> None:
    done = sentiment(folder, "--on-error", "skip", "--format", name, "--batch-size", "1")
    rest = [text for text in TEXTS if "<url>" not in text]
    whole = sentiment(folder, "--format", name, "--batch-size", "1", texts=rest)
    assert (done.exit_code, done.stdout) == (0, whole.stdout)
    assert re.search(r"6 texts in .+ s: .+, 1 empty, 2 failed\n", done.stderr)
    assert "Warning: left out 2 texts that failed\n" in done.stderr


def test_a_check_and_a_summary_know_of_the_texts_that_fail(folder: Path) -> None:
    texts = ["good one", "bad <url> one"]
    label = sentiment(folder, texts=texts[:1]).stdout.split("\t")[0]
    assert sentiment(folder, "--check", label, texts=texts[:1]).exit_code == 0
    done = sentiment(folder, "--check", label, "--on-error", "skip", texts=texts)
    assert (done.exit_code, f"1 of 2 texts are not {label}" in done.stderr) == (3, True)
    done = sentiment(folder, "--summary", "--json", "--on-error", "skip")
    assert sum(entry["count"] for entry in json.loads(done.stdout)) == 4
    assert "left out 2 texts that failed" in done.stderr


def test_a_stopped_run_is_resumed_without_the_text(folder: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out.csv", tmp_path / "whole.csv"
    options = ["--format", "csv", "--batch-size", "1", "-o"]
    assert sentiment(folder, *options, str(out)).exit_code == 1
    assert len((tmp_path / "out.csv.partial").read_text().splitlines()) == 2
    for more in ([], ["and more <url>", "end"]):
        arguments = [*options, str(out), "--on-error", "skip", "--resume"]
        done = sentiment(folder, *arguments, texts=TEXTS + more)
        failed = 3 if more else 2
        assert (done.exit_code, f"left out {failed} texts" in done.stderr) == (0, True)
    rest = [text for text in [*TEXTS, "end"] if "<url>" not in text]
    assert sentiment(folder, *options, str(whole), texts=rest).exit_code == 0
    assert out.read_bytes() == whole.read_bytes()


def test_records_that_cannot_be_read(folder: Path) -> None:
    lines = [
        *('{"text": ', '{"id": 1, "text": "good"}', '{"id": 2, "text": 7}', '{"id": 3}', "[]"),
        *('{"id": 4, "text": "a\\ud83d"}', '{"id": 5, "text": "fine"}'),
    ]
    options = ["--input-format", "jsonl", "--format", "jsonl", "--on-error"]
    done = sentiment(folder, *options, "skip", texts=lines)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1, 5]
    assert "Warning: left out 5 texts that failed" in done.stderr
    records = [
        json.loads(line)
        for line in sentiment(folder, *options, "report", texts=lines).stdout.splitlines()
    ]
    assert [record.get("id") for record in records] == [None, 1, 2, 3, None, None, 5]
    errors = [record.get("error", "").removeprefix("stdin: line ") for record in records]
    assert errors[0].startswith("1: not valid JSON: ")
    assert errors[2:6] == [
        "3: 'text' is a number, not text",
        "4: 'text' is missing",
        "5: the record is a list, not a JSON object",
        "6: half a surrogate pair is not a character",
    ]
    done = sentiment(folder, *options, "stop", texts=lines[1:])
    assert (done.exit_code, len(done.stdout.splitlines())) == (1, 1)
    assert done.stderr.startswith("Error: stdin: line 2: 'text' is a number, not text\nHint: --on")


def test_a_score_that_is_not_a_number(tmp_path: Path) -> None:
    """The embedding of one byte is NaN: only texts that have it fail."""
    save_classifier(tmp_path, ("BAD", "GOOD"))
    weights = load_file(tmp_path / "model.safetensors")
    z = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).token_to_id("z")
    weights["bert.embeddings.word_embeddings.weight"][z] = float("nan")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    texts = [f"text {i}{'z' * (i == 40)}" for i in range(100)]
    done = sentiment(tmp_path, "--on-error", "report", "--format", "jsonl", texts=texts)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    [error] = [record["error"] for record in records if "error" in record]
    assert error == "stdin: line 41: the model's scores are not numbers"
    assert {record["label"] for record in records} == {"", "BAD", "GOOD"} or records[40][
        "label"
    ] == ""


def test_a_text_that_the_tokenizer_cannot_encode(tmp_path: Path) -> None:
    save_classifier(tmp_path, ("BAD", "GOOD"))
    path = tmp_path / "tokenizer.json"
    settings = json.loads(path.read_text())
    words = {"good": 0, "fine": 1, "[CLS]": 260, "[SEP]": 261}  # and none for what is unknown
    settings["model"] = {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}
    settings["pre_tokenizer"] = {"type": "Whitespace"}
    path.write_text(json.dumps(settings))
    done = sentiment(tmp_path, "--on-error", "skip", texts=["good", "unheard of", "fine"])
    assert [line.split("\t")[2] for line in done.stdout.splitlines()] == ["good", "fine"]
    done = sentiment(tmp_path, texts=["good", "unheard of", "fine"])
    assert done.stderr.startswith(f"Error: stdin: line 2: {tmp_path} has no token for “unheard”")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_end_tokens_in_a_text(kind: str, tmp_path: Path) -> None:
    """S17: BART and T5 require equally many of them in each sequence of a batch."""
    torch.manual_seed(5)
    labels: Any = {0: "neg", 1: "neu", 2: "pos"}
    sizes: Any = {"vocab_size": VOCABULARY, "d_model": 32, "id2label": labels}
    ids: Any = {"pad_token_id": PAD, "eos_token_id": END, "decoder_start_token_id": END}
    if kind == "bart":
        layers: Any = {"encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 64}
        heads: Any = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "init_std": 0.5}
        config: Any = BartConfig(**sizes, **ids, **layers, **heads)
        model: Any = BartForSequenceClassification(config)
    else:
        layers = {"num_layers": 1, "num_heads": 2, "d_ff": 32, "d_kv": 16}
        config = T5Config(**sizes, **ids, **layers)
        model = T5ForSequenceClassification(config)
    model.eval().save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    end = "<|end|>"
    texts = [f"fine{end}", f"i love {end} it{end}", f"a {end}{end}{end}", f"longer text{end}"]
    tokenizer = transformers_tokenizer(tmp_path)
    expected = []
    for text in texts:
        with torch.inference_mode():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
        expected.append(torch.softmax(logits, -1).tolist())
    scorer = ClassifierScorer(load_tiny_classifier(tmp_path))
    found = classify(scorer, [TextRow(text, {}) for text in texts])
    for one, scores in zip(found, expected, strict=True):
        assert [*one.scores.values()] == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize(("architecture", "pad"), [("llama", -1), ("gpt2", VOCABULARY + 7)])
def test_a_padding_id_without_an_embedding(architecture: str, pad: int, tmp_path: Path) -> None:
    """S12: the scores are those of one text at a time."""
    save_classifier(tmp_path, ("BAD", "GOOD"), architecture=architecture)
    auto: Any = AutoModelForSequenceClassification
    model = auto.from_pretrained(tmp_path, dtype=torch.float32)
    tokenizer = transformers_tokenizer(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "pad_token_id": pad}))
    texts = ["a", "a longer text", "b", "another text", "the longest of all texts"]
    rows = [TextRow(text, {}) for text in texts]
    for one in classify(ClassifierScorer(load_tiny_classifier(tmp_path)), rows):
        with torch.inference_mode():
            logits = model(tokenizer(one.text, return_tensors="pt")["input_ids"]).logits[0]
        scores = torch.softmax(logits, -1).tolist()
        assert [*one.scores.values()] == pytest.approx(scores, abs=1e-5)

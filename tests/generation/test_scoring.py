"""Scores of texts, words and tokens: those of transformers' own logits, computed by hand here."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.conftest import run
from tests.tiny_models import (
    END,
    PAD,
    VOCABULARY,
    all_logits,
    save_tokenizer,
    transformers_model,
    transformers_tokenizer,
)

LIMIT = 64
NO_SCORE = "there must be a token before the first that is scored"
TEXTS = [
    "the sun rises",
    "a",
    "",
    "大家好 🙂",
    "one two three four five six",
    " in  the\tmiddle ",
    "xyz",
]
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "bos_token_id": None,
    "pad_token_id": PAD,
    "eos_token_id": END,
    "initializer_range": 0.4,
}
HEADS: dict[str, Any] = {"num_attention_heads": 4, "intermediate_size": 48}
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES, **HEADS, max_position_embeddings=LIMIT),
    "learned": GPT2Config(**SIZES, n_head=4, n_positions=LIMIT),
    "window": MistralConfig(**SIZES, **HEADS, sliding_window=8, num_key_value_heads=2),
    "stateful": MambaConfig(**SIZES, state_size=8),
    "dynamic": LlamaConfig(
        **SIZES,
        **HEADS,
        max_position_embeddings=12,
        rope_parameters={"rope_type": "dynamic", "factor": 8.0, "rope_theta": 10000.0},
    ),
}


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("llama", tmp_path_factory.mktemp("llama"))


def saved(name: str, folder: Path) -> Path:
    torch.manual_seed(2)
    auto: Any = AutoModelForCausalLM
    auto.from_config(CONFIGS[name]).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def score(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    done = run("score", "-m", str(folder), *arguments, "--json")
    records: list[dict[str, Any]] = json.loads(done.stdout)
    unscored = sum(record.get("logprob", 0) is None for record in records)
    warning = f"Warning: {unscored} of {len(records)} texts have no score: {NO_SCORE}\n"
    assert (done.exit_code, done.stderr) == (0, warning if unscored else "")
    return records


def logprobs(folder: Path, ids: Sequence[int]) -> list[float]:
    """The natural log-probability of each token but the first, by one pass of transformers."""
    if len(ids) < 2:
        return []
    rows = torch.log_softmax(all_logits(transformers_model(folder), ids[:-1]).double(), -1)
    return [float(row[i]) for row, i in zip(rows, ids[1:], strict=False)]


def ids_of(folder: Path, text: str) -> list[int]:
    ids: list[int] = transformers_tokenizer(folder)(text).input_ids
    return ids


def test_texts(folder: Path) -> None:
    records = score(folder, *TEXTS)
    assert [(r["index"], r["text"]) for r in records] == list(enumerate(TEXTS))
    for record in records:
        expected = logprobs(folder, ids_of(folder, record["text"]))
        assert record["tokens"] == len(expected)
        if not expected:
            assert record["logprob"] is record["perplexity"] is record["bits_per_byte"] is None
            continue
        bits = -sum(expected) / math.log(2)
        assert record["logprob"] == pytest.approx(sum(expected), rel=1e-4)
        assert record["surprisal"] == pytest.approx(bits, rel=1e-4)
        perplexity = math.exp(-sum(expected) / len(expected))
        assert record["perplexity"] == pytest.approx(perplexity, rel=1e-3)
        assert record["bits_per_byte"] == pytest.approx(
            bits / len(record["text"].encode()), rel=1e-4
        )


def test_a_table_counts_in_whole_numbers(llama: Path) -> None:
    done = run("score", "-m", str(llama), "the sun", "", "--format", "table")
    [_, *rows] = [line.split() for line in done.stdout.splitlines()]
    [whole] = json.loads(run("score", "-m", str(llama), "the sun", "--json").stdout)
    assert done.stderr == f"Warning: 1 of 2 texts have no score: {NO_SCORE}\n"
    assert rows[0][0] == str(whole["tokens"])
    assert [float(number) for number in rows[0][1:3]] == pytest.approx(
        [whole["surprisal"], whole["perplexity"]], rel=1e-3
    )


@pytest.mark.parametrize("size", ["1", "2", "64"])
def test_the_batch_size_changes_nothing(llama: Path, size: str) -> None:
    records = score(llama, *TEXTS, "--batch-size", size)
    for ours, theirs in zip(records, score(llama, *TEXTS), strict=True):
        assert ours["tokens"] == theirs["tokens"]
        if ours["tokens"]:
            assert ours["logprob"] == pytest.approx(theirs["logprob"], rel=1e-5)


def test_a_batch_for_each_thread(llama: Path, tmp_path: Path) -> None:
    texts = [f"{i} {'x' * (i % 23)}" for i in range(200)]
    (tmp_path / "t.txt").write_text("\n".join(texts))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        records = score(llama, "-f", str(tmp_path / "t.txt"), "-q")
    finally:
        torch.set_num_threads(threads)
    assert [record["text"] for record in records] == texts
    for record in records[::17]:
        expected = sum(logprobs(llama, ids_of(llama, record["text"])))
        assert record["logprob"] == pytest.approx(expected, rel=1e-4)


def test_what_follows_a_given_text(llama: Path) -> None:
    given, text = "the sun", " rises"
    (record,) = score(llama, "--given", given, text)
    expected = logprobs(llama, ids_of(llama, given + text))[-len(text) :]
    assert record["tokens"] == len(text)
    assert record["logprob"] == pytest.approx(sum(expected), rel=1e-5)
    done = run("topk", "-m", str(llama), given, "--target", text, "--json")
    (whole,) = [c for c in json.loads(done.stdout) if c["token"] == text]
    assert record["logprob"] == pytest.approx(whole["logprob"], rel=1e-5)


def test_an_answer_after_a_chat(llama: Path) -> None:
    (record,) = score(llama, "--system", "be brief", "--given", "who?", "me")
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "who?"}]
    tokenizer = transformers_tokenizer(llama)
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    expected = logprobs(llama, [*prompt, *ids_of(llama, "me")])[-2:]
    assert (record["text"], record["tokens"]) == ("me", 2)
    assert record["logprob"] == pytest.approx(sum(expected), rel=1e-5)
    done = run("score", "-m", str(llama), "--chat", "me")
    assert done.exit_code == 2 and "what the text answers" in done.stderr


def test_a_given_column(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("story,end,n\nthe sun, rises,1\nthe,n,2\n")
    table = ("-f", str(tmp_path / "t.csv"), "--column", "end")
    done = run("score", "-m", str(llama), *table, "--given-column", "story", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(r["story"], r["end"], r["n"]) for r in rows] == [
        ("the sun", " rises", "1"),
        ("the", "n", "2"),
    ]
    for row in rows:
        expected = logprobs(llama, ids_of(llama, row["story"] + row["end"]))[-len(row["end"]) :]
        assert float(row["logprob"]) == pytest.approx(sum(expected), rel=1e-5)
    done = run("score", "-m", str(llama), *table, "--given-column", "x")
    assert done.exit_code == 2 and "the columns are 'story', 'end', 'n'" in done.stderr


def test_answers_to_the_same_question(folder: Path, tmp_path: Path) -> None:
    """What several texts are given is computed once: long enough here, and for three of them."""
    question = "the quick brown fox jumps over"
    pairs = [(question, end) for end in (" me", " the sun", " a")] + [("the sun", " rises")]
    rows = "".join(f"{given},{text}\n" for given, text in pairs)
    (tmp_path / "t.csv").write_text(f"given,text\n{rows}")
    table = ("-f", str(tmp_path / "t.csv"), "--column", "text", "--given-column", "given")
    for more in ((), ("--batch-size", "2"), ("--batch-size", "1")):
        for (given, text), record in zip(pairs, score(folder, *table, "-q", *more), strict=True):
            expected = logprobs(folder, ids_of(folder, given + text))[-record["tokens"] :]
            assert record["tokens"] == len(text)
            assert record["logprob"] == pytest.approx(sum(expected), rel=1e-4)


@pytest.mark.parametrize("stride", [1, 7, 32, 63])
def test_strides(llama: Path, stride: int) -> None:
    """As transformers' documentation computes the perplexity of texts of any length."""
    text = "the quick brown fox " * 9
    ids, total, before = ids_of(llama, text), 0.0, 1
    for begin in range(0, len(ids), stride):
        end = min(begin + LIMIT, len(ids))
        total += sum(logprobs(llama, ids[begin:end])[before - begin - 1 :])
        before = end
        if end == len(ids):
            break
    (record,) = score(llama, text, "--stride", str(stride))
    assert record["tokens"] == len(ids) - 1
    assert record["logprob"] == pytest.approx(total, rel=1e-5)


def test_a_text_longer_than_the_context(llama: Path) -> None:
    long = "x" * (LIMIT + 2)
    assert score(llama, long[:-1])[0]["tokens"] == LIMIT  # the last token is not read
    done = run("score", "-m", str(llama), "a b", long, "c d")
    assert done.exit_code == 1
    assert done.stdout.split("\t")[2:] == ["a b\n"]
    assert f"the text has {LIMIT + 2} tokens; the context holds {LIMIT}" in done.stderr
    done = run("score", "-m", str(llama), "a b", long, "c d", "--on-error", "report", "--json")
    assert done.exit_code == 1
    first, failed, last = json.loads(done.stdout)
    assert "error" in failed and failed["logprob"] is None
    assert first["logprob"] and last["logprob"]


def test_tokens(folder: Path) -> None:
    text = "the sun"
    *tokens, perplexity = score(folder, text, "--by", "token")
    expected = logprobs(folder, ids_of(folder, text))
    assert "".join(t["token"] for t in tokens) == text
    assert tokens[0]["prob"] is None
    for token, logprob in zip(tokens[1:], expected, strict=True):
        assert token["surprisal"] == pytest.approx(-logprob / math.log(2), rel=1e-4)
    mean = -sum(expected) / len(expected)
    assert perplexity["perplexity"] == pytest.approx(math.exp(mean), rel=1e-3)


def test_the_picture_of_one_text_is_that_of_its_tokens(llama: Path, tmp_path: Path) -> None:
    done = run("score", "-m", str(llama), "the sun", "--save", str(tmp_path / "heat.html"))
    assert done.exit_code == 0, done.stderr
    page = (tmp_path / "heat.html").read_text()
    assert all(word in page for word in ("position", "entropy", "perplexity"))


def test_words_are_corrected_for_where_they_end(llama: Path) -> None:
    """Pimentel and Meister (2024): times the probability that the word ends after its last token,
    divided by that it begins after the token before; by minicons' own definition, with what begins
    with a space. (minicons 0.3.39 gives the same for SmolLM2: docs/guides/scores.md.)"""
    text = "one two, three"
    ids = ids_of(llama, text)
    rows = torch.log_softmax(all_logits(transformers_model(llama), ids).double(), -1)
    (space,) = ids_of(llama, " ")
    ends = rows[:, space]  # of the bytes, only the space begins a word
    records = score(llama, "--by", "word", text)
    assert [(r["word"], r["tokens"]) for r in records] == [("one", 2), ("two,", 5), ("three", 6)]
    for record, (start, end) in zip(records, [(1, 3), (3, 8), (8, 14)], strict=True):
        expected = sum(float(rows[i - 1, ids[i]]) for i in range(start, end)) + float(ends[end - 1])
        expected -= float(ends[start - 1]) if start > 1 else 0.0
        assert record["logprob"] == pytest.approx(expected, rel=1e-5)


def test_resume(llama: Path, tmp_path: Path) -> None:
    lines = [f"text {i}" for i in range(20)]
    source, output = tmp_path / "t.txt", tmp_path / "o.csv"
    source.write_text("\n".join(lines[:12]))
    command = ("score", "-m", str(llama), "-f", str(source), "-o", str(output), "--format", "csv")
    assert run(*command).exit_code == 0
    begun = output.read_text()
    source.write_text("\n".join(lines))
    assert run(*command, "--given", "x", "--resume").exit_code == 1
    assert run(*command, "--resume").exit_code == 0
    whole = output.read_text()
    assert whole.startswith(begun)
    rows = list(csv.DictReader(io.StringIO(whole)))
    assert [row["text"] for row in rows] == lines
    assert [row["index"] for row in rows] == [str(i) for i in range(20)]


def test_a_model_that_is_not_causal(tmp_path: Path) -> None:
    torch.manual_seed(2)
    auto: Any = AutoModelForCausalLM
    config = BertConfig(**SIZES, **HEADS, max_position_embeddings=LIMIT)
    auto.from_config(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    done = run("score", "-m", str(tmp_path), "the sun")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "the tokenizer names no mask token" in done.stderr


def test_an_encoder_decoder(tmp_path: Path) -> None:
    """As transformers' loss for labels, which T5's decoder reads after its first token."""
    torch.manual_seed(2)
    sizes: dict[str, Any] = {"d_model": 32, "d_ff": 48, "num_layers": 2, "num_heads": 4, "d_kv": 8}
    make: Any = T5ForConditionalGeneration
    ids: dict[str, Any] = {"eos_token_id": END, "pad_token_id": PAD, "decoder_start_token_id": PAD}
    config = T5Config(vocab_size=VOCABULARY, initializer_factor=9.0, **sizes, **ids)
    model = make(config).eval()
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    pairs = [("the sun", "le soleil"), ("a", "un"), ("one two three", "x")]
    rows = "".join(f"{source},{target}\n" for source, target in pairs)
    (tmp_path / "t.csv").write_text(f"source,text\n{rows}")
    table = ("-f", str(tmp_path / "t.csv"), "--column", "text", "--given-column", "source")
    for size in ("1", "8"):
        records = score(tmp_path, *table, "-q", "--batch-size", size)
        for record, (source, target) in zip(records, pairs, strict=True):
            labels = torch.tensor([ids_of(tmp_path, target)])
            with torch.inference_mode():
                output = model(input_ids=torch.tensor([ids_of(tmp_path, source)]), labels=labels)
            assert record["tokens"] == labels.shape[1]
            expected = -float(output.loss) * labels.shape[1]
            assert record["logprob"] == pytest.approx(expected, rel=1e-4)
    done = run("score", "-m", str(tmp_path), "un")
    assert done.exit_code == 2 and "a text needs its source" in done.stderr


def test_options_that_exclude_each_other(llama: Path, tmp_path: Path) -> None:
    for options in (
        ["--given", "x", "--given-column", "y"],
        ["--by", "word", "--stride", "3"],
        ["a" * 99, "--stride", str(LIMIT)],
        ["--by", "token", "--on-error", "skip"],
        ["--by", "word", "--resume", "-o", str(tmp_path / "x")],
    ):
        done = run("score", "-m", str(llama), "a b", *options)
        assert (done.exit_code, done.stdout) == (2, "")

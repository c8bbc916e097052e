"""Candidate labels, summaries, checks and windows of long texts."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, pipeline

from hftool.classification.classify import classify
from hftool.classification.label_probability import PROMPT, PromptScorer
from hftool.classification.sequence_classifier import ClassifierScorer
from hftool.classification.zero_shot import EntailmentScorer
from hftool.generation.prefix_cache import CachedModel
from hftool.inputs.tables import TextRow
from hftool.models.classifier import Classifier
from hftool.options.labels import LabelScoring
from hftool.tokenization.tokenizer import Tokenizer
from tests.conftest import run
from tests.tiny_models import (
    all_logits,
    load_model,
    load_tiny_classifier,
    save_classifier,
    save_model,
    transformers_model,
    transformers_tokenizer,
)

TEXTS = ["ok", "what a day", "大家好 😀", "ok", ""]


def rows(*texts: str) -> list[TextRow]:
    return [TextRow(text, {"text": text}) for text in texts]


@pytest.mark.parametrize("scoring", ["sum", "mean"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
def test_scores_are_those_of_the_whole_continuations(
    architecture: str, scoring: LabelScoring, tmp_path: Path
) -> None:
    folder = save_model(tmp_path, architecture)
    reference, tokenizer = transformers_model(folder), transformers_tokenizer(folder)
    labels = ["good", "bad", "so-so"]
    scorer = PromptScorer(load_model(folder), labels, "T: {text}\n({labels}) L: ", scoring)
    for classification in classify(scorer, rows(*TEXTS[:4])):
        prompt = f"T: {classification.text}\n(good, bad, so-so) L:"
        sums = []
        for label in labels:
            before = tokenizer(prompt)["input_ids"]
            ids = tokenizer(f"{prompt} {label}")["input_ids"]
            logprobs = torch.log_softmax(all_logits(reference, ids), dim=-1)
            own = [float(logprobs[i - 1, ids[i]]) for i in range(len(before), len(ids))]
            sums.append(sum(own) / (len(own) if scoring == "mean" else 1))
        expected = torch.softmax(torch.tensor(sums), dim=-1).tolist()
        assert list(classification.scores.values()) == pytest.approx(expected, abs=1e-4)
        assert classification.label == labels[expected.index(max(expected))]


def test_what_labels_share_is_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    language_model = load_model(save_model(tmp_path))
    computed: list[list[int]] = []
    forward = CachedModel._forward

    def counted(self: CachedModel, ids: list[int], count: int) -> torch.Tensor:
        computed.append(list(ids))
        return forward(self, ids, count)

    monkeypatch.setattr(CachedModel, "_forward", counted)
    scorer = PromptScorer(language_model, ["good", "goat", "bad"], "{text} is")
    [_] = classify(scorer, rows("this text"))
    prompt, *others = computed
    assert len(prompt) == len("this text is")
    # " ", "g", "o" for two labels, and all but the last byte of each.
    assert [len(ids) for ids in others] == [1] * (len(" goo") + len("a") + len("ba"))


def test_a_text_that_does_not_fit_the_context_is_truncated(tmp_path: Path) -> None:
    scorer = PromptScorer(load_model(save_model(tmp_path, context=64)), ["good", "bad"], PROMPT)
    [long, same, short] = classify(scorer, rows("ab" * 500, "ab" * 400, "ab"))
    assert long.scores == pytest.approx(same.scores, abs=1e-5)
    assert long.scores != short.scores
    assert scorer.truncated_texts == 2


@pytest.mark.usefixtures("smollm2_folder")
def test_the_default_language_model() -> None:
    result = run(
        *("sentiment", "--labels", "negative, positive", "--dtype", "float32"),
        *("--all-scores", "--json"),
        *("a wonderful, moving film", "a dull waste of time"),
    )
    assert result.exit_code == 0, result.stderr
    records = json.loads(result.stdout)
    assert [record["label"] for record in records] == ["positive", "negative"]
    assert sum(records[0]["scores"].values()) == pytest.approx(1)


def test_entailment_as_in_the_zero_shot_pipeline(tmp_path: Path) -> None:
    names = ("contradiction", "neutral", "entailment")
    folder = save_classifier(tmp_path, names, type_vocab_size=2)
    settings = folder / "tokenizer_config.json"
    names_of_bert = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | names_of_bert))
    tokenizer = transformers_tokenizer(folder)
    theirs = pipeline(
        "zero-shot-classification",
        model=AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32),
        tokenizer=tokenizer,
        device="cpu",
    )
    labels = ["joy", "anger", "fear"]
    texts = ["what a day", "ok", "大家好", "x" * 100]
    expected: Any = theirs(texts, labels, hypothesis_template="It is {}.", multi_label=False)
    scorer = EntailmentScorer(load_tiny_classifier(folder), labels, "It is {label}.")
    for classification, one in zip(classify(scorer, rows(*texts)), expected, strict=True):
        by_label = dict(zip(one["labels"], one["scores"], strict=True))
        assert classification.scores == pytest.approx(by_label, abs=1e-4)
    assert scorer.truncated_texts == 1


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (["--labels", "a,b,a"], 2, "--labels: 'a' is listed twice"),
        (["--labels", "a,,b"], 2, "--labels: an empty label in 'a,,b'"),
        (["--labels", "a"], 2, "--labels needs at least two labels"),
        (["--labels", ""], 2, "--labels: an empty label"),
        (["--labels", "a,b", "--long", "chunk"], 2, "--long chunk"),
        (["--prompt-template", "{text}"], 2, "--prompt-template needs --labels"),
        (["--labels", "a,b"], 1, "has fixed labels: BAD, GOOD"),
        (["--check", "UGLY"], 2, "--check: 'UGLY' is not one of the labels: BAD, GOOD"),
        (["--summary", "--resume", "-o", "x"], 2, "--resume excludes --summary"),
    ],
)
def test_wrong_usage(arguments: list[str], status: int, error: str, folder: Path) -> None:
    result = run("sentiment", "-m", str(folder), "x", *arguments)
    assert (result.exit_code, result.stdout) == (status, "")
    assert error in result.stderr.splitlines()[0]


def test_a_language_model_is_not_a_classifier(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    result = run("sentiment", "-m", str(folder), "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is not a text classifier" in result.stderr
    result = run("sentiment", "-m", str(folder), "x", "--labels", "a,b", "--prompt-template", "no")
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("bert"), ("BAD", "GOOD"), max_length=32)


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Classifier:
    return load_tiny_classifier(folder)


def test_windows_overlap_and_their_scores_are_averaged_by_tokens(tiny: Classifier) -> None:
    text = "".join(chr(97 + i % 26) for i in range(100))
    [classification] = classify(ClassifierScorer(tiny, long="chunk"), rows(text))
    length, shared = 30, 7  # without [CLS] and [SEP]; a quarter
    starts = [0]
    while starts[-1] + length < len(text):
        starts.append(starts[-1] + length - shared)
    windows = [text[start : start + length] for start in starts]
    assert all(a[-shared:] == b[:shared] for a, b in pairwise(windows))
    alone = [j.scores["GOOD"] for j in classify(ClassifierScorer(tiny), rows(*windows))]
    weights = [len(window) + 2 for window in windows]
    mean = sum(w * p for w, p in zip(weights, alone, strict=True)) / sum(weights)
    assert classification.scores["GOOD"] == pytest.approx(mean, abs=1e-5)


def test_a_text_of_megabytes_is_tokenized_in_pieces(
    tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    encode_windows = Tokenizer.encode_windows

    def counted(self: Tokenizer, texts: list[str], *arguments: Any) -> list[list[Any]]:
        lengths.append(sum(map(len, texts)))
        return encode_windows(self, texts, *arguments)

    monkeypatch.setattr(Tokenizer, "encode_windows", counted)
    texts = ["short", "word " * 500_000, "last"]
    encoded = ClassifierScorer(tiny, long="chunk").encode(texts)
    short, long, last = (text.sequences for text in encoded)
    assert sum(lengths) == sum(map(len, texts))
    assert max(lengths) < 1_200_000
    assert (len(short), len(long) > 1000, len(last)) == (1, True, 1)


def test_windows_change_no_text_that_fits(tiny: Classifier) -> None:
    whole = list(classify(ClassifierScorer(tiny), rows(*TEXTS)))
    assert list(classify(ClassifierScorer(tiny, long="chunk"), rows(*TEXTS))) == whole


@pytest.mark.parametrize("long", ["truncate", "chunk"])
def test_a_text_of_megabytes_and_nul(long: str, folder: Path) -> None:
    result = run(
        *("sentiment", "-m", str(folder), "--long", long, "--format", "jsonl"),
        stdin="\0\n" + "some words " * 100_000 + "\n\0x\0\n",
    )
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [len(r["text"]) for r in records] == [1, 1_100_000, 3]
    assert all(record["label"] for record in records)
    assert ("truncated 1 text " in result.stderr) == (long == "truncate")


def test_regression_scores_are_the_logits(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, ("stars",), problem_type="regression")
    theirs = pipeline(
        "text-classification",
        model=AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32),
        tokenizer=transformers_tokenizer(folder),
        device="cpu",
    )
    expected: Any = theirs(TEXTS[:3])
    found = list(classify(ClassifierScorer(load_tiny_classifier(folder)), rows(*TEXTS[:3])))
    assert [j.score for j in found] == pytest.approx([e["score"] for e in expected], abs=1e-4)


def test_a_duplicate_is_not_scored_again(tiny: Classifier) -> None:
    seen: list[int] = []

    class Counting(ClassifierScorer):
        def scores(self, encoded: Any) -> list[list[float]]:
            seen.append(len(encoded))
            return super().scores(encoded)

    found = list(classify(Counting(tiny), rows(*["a", "b", "a", " "] * 2000)))
    assert sum(seen) == 2
    assert len(found) == 8000
    assert {(j.text, j.score) for j in found if j.text == "a"} == {("a", found[0].score)}


def test_threshold_and_check(folder: Path) -> None:
    sentiment = ("sentiment", "-m", str(folder), "--format", "jsonl")
    texts = ["a", "what a day", "", "zzz"]
    records = [json.loads(each) for each in run(*sentiment, *texts).stdout.splitlines()]
    scores = sorted(r["score"] for r in records if r["label"])
    result = run(*sentiment, "--threshold", str(scores[1]), *texts)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [r["label"] == "UNCERTAIN" for r in found] == [
        r["score"] is not None and r["score"] < scores[1] for r in records
    ]
    label = records[0]["label"]
    other = {"BAD": "GOOD", "GOOD": "BAD"}[label]
    assert run(*sentiment, "--check", label, "a", "").exit_code == 0
    failed = run(*sentiment, "--check", other, "a", "", "a")
    assert failed.exit_code == 3
    assert failed.stderr == f"Error: 2 of 2 texts are not {other}\n"
    assert len(failed.stdout.splitlines()) == 3


def test_a_check_that_fails_leaves_the_whole_file(folder: Path, tmp_path: Path) -> None:
    [record] = json.loads(run("sentiment", "-m", str(folder), "--json", "a").stdout)
    other = {"BAD": "GOOD", "GOOD": "BAD"}[record["label"]]
    arguments = ("sentiment", "-m", str(folder), "a", "--check", other)
    assert run(*arguments, "-o", str(tmp_path / "out")).exit_code == 3
    assert len((tmp_path / "out").read_text().splitlines()) == 1


def test_summary_counts_what_the_records_say(folder: Path) -> None:
    texts = [f"{i} {'ab' * (i % 9)}" for i in range(200)] + [""]
    sentiment = ("sentiment", "-m", str(folder))
    lines = run(*sentiment, "--format", "jsonl", *texts).stdout.splitlines()
    records = [json.loads(each) for each in lines]
    summary = json.loads(run(*sentiment, "--summary", "--json", *texts).stdout)
    assert [s["label"] for s in summary] == ["BAD", "GOOD", ""]
    for s in summary:
        scores = [r["score"] for r in records if r["label"] == s["label"]]
        assert (s["count"], s["share"]) == (len(scores), len(scores) / 201)
        if s["label"] and scores:
            assert s["mean_score"] == pytest.approx(sum(scores) / len(scores))
            tenths = [sum(int(x * 10) == i for x in scores) for i in range(10)]
            assert s["histogram"] == tenths
    assert run(*sentiment, "--summary", "--format", "table", *texts).stdout.count("\n") == 4

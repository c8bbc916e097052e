"""Labels for texts, against transformers' own pipeline."""

import json
import os
import re
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    CamembertConfig,
    ConvBertConfig,
    ElectraConfig,
    FNetConfig,
    FunnelConfig,
    MobileBertConfig,
    NystromformerConfig,
    RobertaConfig,
    XLNetConfig,
    pipeline,
)

from hftool.classification.batched_logits import WINDOW
from hftool.classification.classify import Classification, classify
from hftool.classification.sequence_classifier import ClassifierScorer
from hftool.errors import HftoolError
from hftool.inputs.tables import TextRow
from hftool.models.classifier import Classifier
from hftool.models.load import load_classifier
from hftool.options.model import ClassifierOptions
from tests.conftest import run
from tests.tiny_models import (
    CLS,
    PAD,
    SEP,
    load_tiny_classifier,
    save_classifier,
    save_tokenizer,
    transformers_tokenizer,
)

SENTENCES = [
    "I love programming!",
    "I hate it.",
    "ok",
    "A masterpiece from beginning to end, moving and funny.",
    "Two hours of my life that I will never get back.",
    "😀",
    "😡😡😡 never again",
    "这部电影很好看",
    "糟糕透了，浪费时间",
    "Это лучший фильм года",
    "naïve café, jalapeño & co.",
    "not bad at all",
    "The plot is thin;   the spaces   are   wide.",
    "\tTabs and trailing blanks  ",
    "x",
    "<b>markup</b> &amp; [CLS] tokens [SEP] in the text",
    "ALL CAPITALS, VERY ANGRY!!!",
    "1234567890",
    "It was fine, I guess, although the ending dragged on and on without much of a point.",
    "an unforgettable film",
]
TEXTS = [*SENTENCES, *(f"{a} {b}" for a, b in zip(SENTENCES, SENTENCES[7:] * 2, strict=False))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("bert"), ("BAD", "SO-SO", "GOOD"))


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Classifier:
    return load_tiny_classifier(folder)


def by_pipeline(folder: Path, texts: Sequence[str]) -> list[dict[str, float]]:
    """Return all scores of each text, computed one text at a time, long texts truncated."""
    classify = pipeline(
        "text-classification",
        model=AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32),
        tokenizer=transformers_tokenizer(folder),
        top_k=None,
        device="cpu",
    )
    results: Any = classify(list(texts), truncation=True, batch_size=1)
    return [{row["label"]: row["score"] for row in rows} for rows in results]


def classified(
    classifier: Classifier, texts: Iterable[str], **options: Any
) -> Iterator[Classification]:
    rows = (TextRow(text, {"text": text}) for text in texts)
    return classify(ClassifierScorer(classifier, **options), rows)


def assert_close(
    found: Sequence[Classification], expected: Sequence[dict[str, float]], tolerance: float
) -> None:
    assert len(found) == len(expected)
    for classification, scores in zip(found, expected, strict=True):
        assert classification.scores == pytest.approx(scores, abs=tolerance), classification.text
        best = max(scores, key=scores.__getitem__)
        assert classification.label == best
        assert classification.score == classification.scores[best]


def test_embedded_model_equals_the_pipeline(minilm: Classifier, minilm_folder: Path) -> None:
    assert len(TEXTS) == 40
    found = list(classified(minilm, TEXTS))
    assert [j.text for j in found] == TEXTS
    assert list(found[0].scores) == ["NEGATIVE", "POSITIVE"]
    assert_close(found, by_pipeline(minilm_folder, TEXTS), 1e-4)
    assert [found[0].label, found[1].label] == ["POSITIVE", "NEGATIVE"]


def test_embedded_model_truncates_long_texts_like_the_pipeline(
    minilm: Classifier, minilm_folder: Path
) -> None:
    long = ["wonderful " * 600 + "awful " * 600, "short"]
    assert_close(list(classified(minilm, long)), by_pipeline(minilm_folder, long), 1e-4)


def test_command_in_float32(minilm_folder: Path) -> None:
    arguments = ("sentiment", "--dtype", "float32", "--device", "cpu", "--all-scores")
    result = run(*arguments, "--format", "jsonl", stdin="\n".join(TEXTS[:10]) + "\n")
    assert result.exit_code == 0, result.stderr
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [r["text"] for r in records] == TEXTS[:10]
    found = [Classification(**record) for record in records]
    assert_close(found, by_pipeline(minilm_folder, TEXTS[:10]), 1e-4)


def test_tiny_classifier_equals_the_pipeline(folder: Path, tiny: Classifier) -> None:
    expected = by_pipeline(folder, TEXTS)
    assert len({max(scores, key=scores.__getitem__) for scores in expected}) > 1
    assert_close(list(classified(tiny, TEXTS)), expected, 1e-4)


@pytest.mark.parametrize("config", [ElectraConfig, RobertaConfig, CamembertConfig])
def test_relatives_of_bert_equal_transformers(config: Any, tmp_path: Path) -> None:
    """Their last layer computes only the first token."""
    sizes = {"vocab_size": 300, "hidden_size": 32, "embedding_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 130}
    torch.manual_seed(3)
    auto: Any = AutoModelForSequenceClassification
    auto.from_config(config(**sizes, **heads)).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, framed=True)
    assert_close(
        list(classified(load_tiny_classifier(tmp_path), SENTENCES)),
        by_pipeline(tmp_path, SENTENCES),
        1e-4,
    )


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (ConvBertConfig, {"embedding_size": 32, "intermediate_size": 64}),
        (FNetConfig, {"intermediate_size": 64}),
        (FunnelConfig, {"block_sizes": [1, 1], "d_inner": 64, "d_head": 8}),
        (MobileBertConfig, {"embedding_size": 16, "intra_bottleneck_size": 16}),
        (NystromformerConfig, {"segment_means_seq_len": 64, "intermediate_size": 64}),
        (XLNetConfig, {"d_inner": 64, "d_head": 8}),
    ],
)
def test_models_that_see_padding_get_none(
    config: Any, sizes: dict[str, Any], tmp_path: Path
) -> None:
    sizes |= {"vocab_size": 300, "hidden_size": 32, "num_attention_heads": 4, "pad_token_id": PAD}
    layers = {} if config is FunnelConfig else {"num_hidden_layers": 2}
    torch.manual_seed(3)
    auto: Any = AutoModelForSequenceClassification
    model = auto.from_config(config(**sizes, **layers))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.25)
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path, framed=True)
    texts = [text[:50] for text in SENTENCES]
    assert_close(
        list(classified(load_tiny_classifier(tmp_path), texts)), by_pipeline(tmp_path, texts), 1e-4
    )


def test_positions_that_begin_after_the_padding(tmp_path: Path) -> None:
    """A RoBERTa of 130 positions sees 128 tokens where the padding token's id is 1."""
    sizes: Any = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = RobertaConfig(vocab_size=300, max_position_embeddings=130, pad_token_id=1, **sizes)
    auto: Any = AutoModelForSequenceClassification
    auto.from_config(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, framed=True)
    classifier = load_tiny_classifier(tmp_path)
    assert classifier.max_length == 128
    assert len(list(classified(classifier, ["x" * 500]))) == 1


def test_batches_on_all_cores(minilm: Classifier, minilm_folder: Path) -> None:
    """With more than two batches per core, each core computes one at a time."""
    texts = [f"{i}. {text}" for i, text in enumerate(TEXTS * 2)]
    threads = torch.get_num_threads()
    found = list(classified(minilm, texts, batch_size=3))
    assert_close(found, by_pipeline(minilm_folder, texts), 1e-4)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_quantized_labels(bits: Any, minilm: Classifier, minilm_folder: Path) -> None:
    options = ClassifierOptions(model=str(minilm_folder), quantize=bits, device="cpu")
    rounded = list(classified(load_classifier(options), SENTENCES))
    exact = list(classified(minilm, SENTENCES))
    sure = [(a, b) for a, b in zip(rounded, exact, strict=True) if b.scores[b.label] > 0.7]
    assert len(sure) > 10
    assert all(a.label == b.label for a, b in sure)
    assert rounded != exact


def test_multi_label_scores_are_independent(tmp_path: Path) -> None:
    folder = save_classifier(
        tmp_path, ("joy", "anger", "fear"), problem_type="multi_label_classification"
    )
    classifier = load_tiny_classifier(folder)
    assert classifier.activation == "sigmoid"
    found = list(classified(classifier, TEXTS[:8]))
    for one, scores in zip(found, by_pipeline(folder, TEXTS[:8]), strict=True):
        assert one.scores == pytest.approx(scores, abs=1e-4)
        sure = [label for label, score in scores.items() if score >= 0.5]  # the best ones first
        assert one.labels == tuple(sure)
        assert one.label == (", ".join(sure) or "UNCERTAIN")
        assert one.score == max(one.scores.values())
    assert len({one.labels for one in found}) > 1
    assert all(abs(sum(j.scores.values()) - 1) > 1e-3 for j in found)
    ids = classifier.tokenizer.encode(TEXTS[0], special=True).ids
    with torch.inference_mode():
        logits = classifier.model(input_ids=torch.tensor([ids])).logits[0]
    assert list(found[0].scores.values()) == pytest.approx((1 / (1 + (-logits).exp())).tolist())


def test_labels_of_the_same_name(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, ("A", "B", "A"))
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([transformers_tokenizer(folder)("some text")["input_ids"]])
    expected = torch.softmax(model(ids).logits[0], dim=-1).tolist()
    [found] = classified(load_tiny_classifier(folder), ["some text"])
    assert list(found.scores) == ["A_0", "B", "A_2"]
    assert list(found.scores.values()) == pytest.approx(expected, abs=1e-5)


def test_single_label_scores_by_sigmoid(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, ("TOXIC",))
    found = list(classified(load_tiny_classifier(folder), TEXTS[:5]))
    assert_close(found, by_pipeline(folder, TEXTS[:5]), 1e-4)
    assert {j.label for j in found} == {"TOXIC"}


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("pad_token", [True, False])
def test_classifiers_that_look_at_the_last_token(
    architecture: str, pad_token: bool, tmp_path: Path
) -> None:
    folder = save_classifier(tmp_path, architecture=architecture, pad_token=pad_token)
    texts = [text[:20] for text in TEXTS[:12]]
    found = list(classified(load_tiny_classifier(folder), texts))
    assert_close(found, by_pipeline(folder, texts), 1e-4)


def test_long_texts_are_truncated_and_counted(folder: Path, tiny: Classifier) -> None:
    assert tiny.max_length == 64
    ids = tiny.tokenizer.encode("ab" * 100, special=True).ids
    assert (ids[0], ids[-1]) == (CLS, SEP)
    with torch.inference_mode():
        logits = tiny.model(input_ids=torch.tensor([[*ids[:63], SEP]])).logits[0]
    expected = torch.softmax(logits, dim=-1).tolist()
    result = run(
        *("sentiment", "-m", str(folder), "--all-scores", "--json"),
        *("ab" * 100, "x" * 62, "x" * 63, "short"),
    )
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert list(found[0]["scores"].values()) == pytest.approx(expected, abs=1e-5)
    assert found[0]["text"] == "ab" * 100
    assert result.stderr == "Warning: truncated 2 texts to the model's limit\n"


def test_a_closing_token_that_is_text_is_not_kept(tmp_path: Path) -> None:
    classifier = load_tiny_classifier(save_classifier(tmp_path, architecture="gpt2", max_length=16))
    [cut, short] = classified(classifier, ["abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnop"])
    assert cut.scores == pytest.approx(short.scores, abs=1e-6)


def test_texts_that_fit_are_not_warned_about(folder: Path) -> None:
    assert run("sentiment", "-m", str(folder), "x" * 62).stderr == ""


def test_empty_lines_keep_their_position(folder: Path) -> None:
    result = run("sentiment", "-m", str(folder), "--format", "jsonl", stdin="\na\n\n\nb\n\n")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [r["text"] for r in records] == ["", "a", "", "", "b", ""]
    empty: dict[str, Any] = {"text": "", "label": "", "score": None}
    assert [r for r in records if not r["text"]] == [empty] * 4
    assert all(r["label"] for r in records if r["text"])
    lines = run("sentiment", "-m", str(folder), stdin="a\n\nb\n").stdout.split("\n")
    assert [line.split("\t")[0] == "" for line in lines] == [False, True, False, True]


def test_no_text_gives_no_record(folder: Path) -> None:
    result = run("sentiment", "-m", str(folder), "--json", stdin="")
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])


def test_order_is_kept_over_many_texts(tiny: Classifier) -> None:
    texts = [f"{number * 7919 % 5003} " * (1 + number % 5) for number in range(5000)]
    assert len(texts) > 2 * WINDOW
    found = list(classified(tiny, texts))
    assert [j.text for j in found] == texts
    for i in range(0, 5000, 97):
        [alone] = classified(tiny, [texts[i]])
        assert found[i].scores == pytest.approx(alone.scores, abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_batch_size_changes_no_score(batch_size: int, tiny: Classifier) -> None:
    texts = [*TEXTS, "", "ab" * 100]
    automatic = list(classified(tiny, texts))
    for one, other in zip(classified(tiny, texts, batch_size=batch_size), automatic, strict=True):
        assert (one.text, one.label) == (other.text, other.label)
        assert one.scores == pytest.approx(other.scores, abs=1e-5)


def test_batch_size_option_of_the_embedded_model(minilm: Classifier) -> None:
    alone = {j.text: j for j in classified(minilm, TEXTS, batch_size=1)}
    options = ("--dtype", "float32", "--batch-size", "7", "--all-scores", "--json")
    result = run("sentiment", *options, *TEXTS)
    for record in json.loads(result.stdout):
        assert record["scores"] == pytest.approx(alone[record["text"]].scores, abs=1e-5)


def test_source_that_fails_after_some_texts(tiny: Classifier) -> None:
    def texts() -> Iterator[str]:
        yield from "abc"
        raise HftoolError("the source broke")

    found: list[str] = []
    with pytest.raises(HftoolError, match="the source broke"):
        found.extend(classification.text for classification in classified(tiny, texts()))
    assert found == ["a", "b", "c"]


@contextmanager
def sentiment_process(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "hftool", "sentiment", "-m", str(folder), "--format", "jsonl"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def answer(process: "subprocess.Popen[bytes]", line: str) -> dict[str, Any]:
    """Write a line, and return its record, which must arrive before more is written."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line.encode() + b"\n")
    process.stdin.flush()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        assert selector.select(timeout=120), "no answer to the line"
    record: dict[str, Any] = json.loads(process.stdout.readline())
    return record


def rest(stream: IO[bytes] | None) -> str:
    assert stream is not None
    return stream.read().decode()


def test_slow_source_is_answered_line_by_line(folder: Path) -> None:
    with sentiment_process(folder) as process:
        for line in ("one", "", "zwei", "三"):
            assert answer(process, line)["text"] == line
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=60) == 0
        assert rest(process.stdout) == ""
        *_, last = rest(process.stderr).splitlines()
        assert re.fullmatch(r"4 texts in .+ s: \d .+, 1 empty", last)


def test_interrupt_while_waiting_for_a_line(folder: Path) -> None:
    with sentiment_process(folder) as process:
        answer(process, "one")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert rest(process.stdout) == rest(process.stderr) == ""

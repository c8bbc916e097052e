"""What a classifier's files say about its labels and inputs, against transformers' own pipeline."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from transformers import XLNetConfig, XLNetForSequenceClassification, pipeline

from hftool.classification.classify import Classification, classify
from hftool.classification.label_probability import PROMPT, PromptScorer
from hftool.classification.scorers import load_scorer
from hftool.errors import HftoolError, UsageError
from hftool.inputs.tables import TextRow
from hftool.options.labels import LabelOptions
from hftool.options.model import ClassifierOptions, LoadOptions
from hftool.tokenization.tokenizer import Tokenizer
from tests.conftest import run
from tests.tiny_models import PAD, VOCABULARY, save_classifier, save_model, save_tokenizer

TEXTS = ["what a day", "ok", "x" * 30 + "end", "abc [SEP] def"]


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def classified(folder: Path, *texts: str, **settings: Any) -> list[Classification]:
    load = ClassifierOptions(model=str(folder), dtype="float32", device="cpu")
    scorer = load_scorer(load, LabelOptions())
    return list(classify(scorer, [TextRow(text, {}) for text in texts], **settings))


def expected(folder: Path, *texts: str) -> list[list[float]]:
    """The pipeline's scores, in the order of the labels."""
    classifier: Any = pipeline("text-classification", str(folder), device="cpu")
    names = [*classifier.model.config.id2label.values()]
    found = [classifier(text, top_k=None, truncation=True) for text in texts]
    return [
        [next(x["score"] for x in of_text if x["label"] == name) for name in names]
        for of_text in found
    ]


def require_equal(folder: Path) -> None:
    found = [[*c.scores.values()] for c in classified(folder, *TEXTS)]
    for ours, theirs in zip(found, expected(folder, *TEXTS), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("numbers", [(1, 2, 3), (0, 2, 3), (0, 1, 3)])
def test_labels_that_do_not_count_from_0_are_refused(
    numbers: tuple[int, ...], tmp_path: Path
) -> None:
    folder = save_classifier(tmp_path, ("a", "b", "c"))
    edit(folder / "config.json", id2label={str(i): f"{i} stars" for i in numbers}, label2id={})
    listed = ", ".join(map(str, numbers))
    with pytest.raises(HftoolError, match=f"has the numbers {listed}, but .* labels are 0 to 2"):
        classified(folder, "text")


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("a", "a", "a_0"), ("a_0_0", "a_1", "a_0")),
        (("a", "a", "b"), ("a_0", "a_1", "b")),
        (("", "x", None), ("LABEL_0", "x", "LABEL_2")),
    ],
)
def test_every_label_has_a_name_and_a_score(
    names: tuple[str | None, ...], labels: tuple[str, ...], tmp_path: Path
) -> None:
    folder = save_classifier(tmp_path, ("p", "q", "r"))
    numbered = [[*c.scores.values()] for c in classified(folder, *TEXTS)]
    edit(folder / "config.json", id2label=dict(enumerate(names)), label2id={})
    found = classified(folder, *TEXTS)
    assert {tuple(c.scores) for c in found} == {labels}
    assert [[*c.scores.values()] for c in found] == numbered
    assert all(sum(c.scores.values()) == pytest.approx(1) for c in found)


def test_a_label_called_as_the_threshold_says(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, ("UNCERTAIN", "GOOD"))
    assert len(classified(folder, "text")) == 1
    with pytest.raises(UsageError, match="one of the labels is UNCERTAIN"):
        classified(folder, "text", threshold=0.5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_truncation_side(side: str, tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, max_length=16)
    edit(folder / "tokenizer_config.json", truncation_side=side)
    require_equal(folder)
    ends = classified(folder, "a" * 200_000 + "the very end of it all")
    same = ends[0].scores == pytest.approx(
        classified(folder, "b" * 30 + "the very end of it all")[0].scores
    )
    assert same == (side == "left")


@pytest.mark.parametrize("named", [True, False])
def test_type_ids_are_given_as_the_tokenizer_names_them(named: bool, tmp_path: Path) -> None:
    sizes: Any = {
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "n_layer": 2,
        "n_head": 4,
        "d_inner": 48,
        "num_labels": 3,
    }
    config = XLNetConfig(pad_token_id=PAD, initializer_range=0.5, **sizes)
    XLNetForSequenceClassification(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, framed=True, model_max_length=64)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    for part in tokenizer["post_processor"]["single"]:  # XLNet's own [CLS] has the type 2
        if part.get("SpecialToken", {}).get("id") == "[CLS]":
            part["SpecialToken"]["type_id"] = 2
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    names = ["input_ids", *["token_type_ids"] * named, "attention_mask"]
    edit(tmp_path / "tokenizer_config.json", model_input_names=names)
    require_equal(tmp_path)


def test_texts_without_tokens_get_no_label(tmp_path: Path, notes: pytest.LogCaptureFixture) -> None:
    for architecture, framed in (("bert", True), ("gpt2", False)):
        folder = save_classifier(tmp_path / architecture, architecture=architecture)
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "z"}, "content": ""}
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        notes.clear()
        found = classified(folder, "ok", "zzz", "ok", "z", "zzz")
        assert [c.label == "" for c in found] == [False, True, False, True, True], framed
        assert [c.scores == {} for c in found] == [False, True, False, True, True]
        assert "3 texts have no tokens for this model, and no label" in notes.messages


def test_texts_in_words_that_the_model_does_not_know(
    minilm_folder: Path, notes: pytest.LogCaptureFixture
) -> None:
    known = ["A wonderful film, and great fun.", "It is 5 o'clock", "Great 😡", "", "Das ist gut"]
    unknown = ["😡😡😡", "👎", "😍 😍 😍 ok", "👎"]
    classified(minilm_folder, *known)
    assert notes.messages == []
    classified(minilm_folder, *known, *unknown)
    assert any(
        message.startswith("4 of 9 texts are mostly words this model does not know")
        and "multilingual" in message
        for message in notes.messages
    )
    shown = run("sentiment", "-m", str(minilm_folder), "👎", "-q")
    assert shown.stderr == ""


GERMAN = [
    "Das Essen war furchtbar, und die Bedienung liess uns eine Stunde warten.",
    "Leider gar nicht zu empfehlen.",
    "Sehr gutes Produkt, jederzeit wieder!",
    "Die Lieferung kam rechtzeitig, aber die Verpackung war zerrissen.",
]
RUSSIAN = ["Еда была ужасной, обслуживание медленным.", "Замечательный фильм, всем советую."]
ENGLISH = [
    "Battery drains within two hours and the device overheats.",
    "omg sooo good lol, thx 4 the quick shipping",
    "Absolutely gorgeous cinematography by Villeneuve and Deakins, ngl this slaps.",
]


@pytest.mark.parametrize(
    ("texts", "warning"),
    [
        (ENGLISH, ""),
        (GERMAN[1:2], ""),  # too few words to tell
        (GERMAN, "only 35 % of the words of these texts are in this model's vocabulary"),
        (RUSSIAN * 3, "only 0 % of the words of these texts are in this model's vocabulary"),
        ([*ENGLISH, " ".join(GERMAN)], "1 of 4 texts are mostly words this model does not know"),
    ],
)
def test_texts_in_another_language_with_the_models_letters(
    texts: list[str], warning: str, minilm_folder: Path, notes: pytest.LogCaptureFixture
) -> None:
    classified(minilm_folder, *texts)
    assert [note[: len(warning)] for note in notes.messages] == ([warning] if warning else [])


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("Good films, 2 unbelievably dull ones!", (4, 5)),  # un ##bel ##ie ##va ##bly
        ("😡 12 ... don't", (2, 3)),  # [UNK]; don, t
        ("", (0, 0)),
    ],
)
def test_known_words_by_hand(text: str, known: tuple[int, int], minilm_folder: Path) -> None:
    tokenizer = Tokenizer(minilm_folder, "minilm")
    assert tokenizer.known_words(tokenizer.encode(text, special=True)) == known


def test_bytes_of_characters_are_not_known_words(
    smollm2: Any, notes: pytest.LogCaptureFixture
) -> None:
    scorer = PromptScorer(smollm2, ["good", "bad"], PROMPT)
    texts = ("끔찍한 영화였다", "ok 끔찍한 영화", "Das Essen war furchtbar", "good 👍", "")
    assert [t.is_unknown for t in scorer.encode(texts)] == [True, True, False, False, False]


def test_labels_that_begin_with_others_are_noted(
    tmp_path: Path, notes: pytest.LogCaptureFixture
) -> None:
    from hftool.models.load import load_language_model

    model = load_language_model(LoadOptions(model=str(save_model(tmp_path)), device="cpu"))
    PromptScorer(model, ["happy", "sad"], PROMPT, "sum")
    assert notes.messages == []
    PromptScorer(model, ["1", "2", "10", "happy", "happy and excited"], PROMPT, "sum")
    assert "'10' with '1', 'happy and excited' with 'happy'" in notes.text
    assert "can never win (try --label-scoring mean)" in notes.text
    notes.clear()
    PromptScorer(model, ["1", "10"], PROMPT)
    assert notes.records[0].levelno == logging.WARNING


def test_a_longer_label_can_win(tmp_path: Path) -> None:
    model = str(save_model(tmp_path))
    command = ("sentiment", "-m", model, "--labels", "a,ab", "--all-scores", "--json", *TEXTS)
    won = {}
    for scoring in ("sum", "mean"):
        done = run(*command, "--label-scoring", scoring)
        won[scoring] = {record["label"] for record in json.loads(done.stdout)}
    assert won["sum"] == {"a"}
    assert "ab" in won["mean"]

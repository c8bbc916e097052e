"""`sentiment --gold`: figures worked out by hand."""

import json
from pathlib import Path

import pytest

from hftool.classification.classify import UNCERTAIN, Classification
from hftool.classification.evaluation import evaluate
from hftool.classification.intervals import wilson
from hftool.errors import HftoolError, UsageError
from tests.conftest import run

LABELS = ("a", "b", "c")
# The right label, the given one, and how many texts.
COUNTS = [
    *(("a", "a", 3), ("a", "b", 1), ("b", "b", 2), ("b", "a", 1), ("b", "c", 1)),
    *(("c", "c", 1), ("c", UNCERTAIN, 1)),
]


def classification(
    gold: object, label: str, scores: dict[str, float] | None = None, text: str = "text"
) -> Classification:
    if scores is None:
        scores = {name: 0.8 if name == label else 0.1 for name in LABELS}
    return Classification(text, label, max(scores.values()), scores, {"gold": gold})


def test_figures_by_hand() -> None:
    rows = [classification(gold, label) for gold, label, n in COUNTS for _ in range(n)]
    rows += [classification(value, "a") for value in (None, "", " ", float("nan"))]
    found = evaluate(rows, LABELS, "gold")
    assert (found.texts, found.correct, found.accuracy, found.no_gold) == (10, 6, 0.6, 4)
    assert [x.label for x in found.labels] == [*LABELS]
    assert [(x.support, x.predicted) for x in found.labels] == [(4, 4), (4, 3), (2, 2)]
    assert [x.precision for x in found.labels] == pytest.approx([3 / 4, 2 / 3, 1 / 2])
    assert [x.recall for x in found.labels] == pytest.approx([3 / 4, 2 / 4, 1 / 2])
    assert [x.f1 for x in found.labels] == pytest.approx([3 / 4, 4 / 7, 1 / 2])
    assert found.macro_f1 == pytest.approx((3 / 4 + 4 / 7 + 1 / 2) / 3)
    assert found.confusion == {
        "a": {"a": 3, "b": 1, "c": 0, UNCERTAIN: 0},
        "b": {"a": 1, "b": 2, "c": 1, UNCERTAIN: 0},
        "c": {"a": 0, "b": 0, "c": 1, UNCERTAIN: 1},
    }
    assert found.labels[0].recall_interval == wilson(3, 4)
    assert found.mistakes is None


def test_a_label_that_nobody_has_or_gets() -> None:
    found = evaluate([classification("a", "b")], LABELS, "gold")
    a, b, c = found.labels
    assert (a.precision, a.recall, a.f1) == (None, 0.0, 0.0)
    assert (b.precision, b.recall, b.f1) == (0.0, None, 0.0)
    assert evaluate([classification("b", "b")], LABELS, "gold").macro_f1 == 1  # of b alone
    assert (c.precision, c.recall, c.f1, c.best_threshold, c.best_f1) == (None, None, 0, None, None)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe (1998), Statistics in Medicine 17, table I: the score method
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_the_best_threshold() -> None:
    scored = [(0.9, "a"), (0.8, "b"), (0.7, "a"), (0.2, "a"), (0.2, "a"), (0.1, "b")]
    rows = [classification(gold, "a", {"a": s, "b": 1 - s, "c": 0.0}) for s, gold in scored]
    a, b, _ = evaluate(rows, LABELS, "gold").labels
    # From 0.2 on five texts get a, four of them by right, of the four that have it.
    assert a.best_threshold == 0.2
    assert a.best_f1 == pytest.approx(2 * 4 / (4 + 5))
    # 0.9, 0.8, 0.8, 0.3, 0.2, 0.1: the first one has it, and one of those below.
    assert b.best_threshold == 0.9
    assert b.best_f1 == pytest.approx(2 / 3)


def test_calibration_error() -> None:
    tops = [(0.95, "a"), (0.91, "b"), (0.95, "a"), (0.99, "a"), (0.55, "b"), (1.0, "a")]
    rows = [classification(gold, "a", {"a": s, "b": 1 - s, "c": 0.0}) for s, gold in tops]
    found = evaluate(rows, LABELS, "gold")
    used = {b.low: b for b in found.calibration if b.count}
    assert [(b.count, b.accuracy) for b in used.values()] == [(1, 0.0), (5, 0.8)]
    assert used[0.9].mean_score == pytest.approx((0.95 + 0.91 + 0.95 + 0.99 + 1.0) / 5)
    assert found.calibration_error == pytest.approx((1 * 0.55 + 5 * abs(0.96 - 0.8)) / 6)


def test_no_calibration_of_what_is_no_probability() -> None:
    found = evaluate([classification("a", "a", {"a": 3.7, "b": -1.0, "c": 0.0})], LABELS, "gold")
    assert (found.calibration, found.calibration_error) == ((), None)


def test_the_worst_mistakes_come_first() -> None:
    rows = [
        classification("b", "a", {"a": 0.5 + i / 10_000, "b": 0.3, "c": 0.1}, str(i))
        for i in range(3000)
    ]
    found = evaluate(reversed(rows), LABELS, "gold", mistakes=2)
    assert [(m.text, m.gold, m.label, m.gold_score) for m in found.mistakes or ()] == [
        ("2999", "b", "a", 0.3),
        ("2998", "b", "a", 0.3),
    ]


@pytest.mark.parametrize(
    "values", [("A", "b", " C "), (0, 1, 2), ("0", "1", "2"), (0.0, 1.0, 2.0), ("0.0", "1.0", "2")]
)
def test_names_and_numbers_of_labels(values: tuple[object, ...]) -> None:
    rows = [classification(gold, label) for gold, label in zip(values, LABELS, strict=True)]
    assert evaluate(rows, LABELS, "gold").accuracy == 1


@pytest.mark.parametrize("values", [("a", "d"), ("a", 1), (0, 3), ("negative",), (-1,), (True,)])
def test_what_is_not_a_label(values: tuple[object, ...]) -> None:
    with pytest.raises(UsageError, match=f"'{values[-1]}' is not one of the labels: a, b, c"):
        evaluate([classification(gold, "a") for gold in values], LABELS, "gold")


def test_a_column_that_is_missing_or_empty() -> None:
    with pytest.raises(UsageError, match="no column 'truth'; there are 'gold'"):
        evaluate((classification("a", "a") for _ in iter(int, 1)), LABELS, "truth")
    with pytest.raises(HftoolError, match="no row has a label in the column 'gold'"):
        evaluate([classification(None, "a")], LABELS, "gold")
    with pytest.raises(UsageError, match="--gold needs a table"):
        evaluate([Classification("text", "a", 1.0, {"a": 1.0})], LABELS, "gold")


TABLE = "text,id,truth\nI love it,1,POSITIVE\nI hate it,2,negative\nAwful,3,positive\nGood,4,\n"


def test_from_the_command_line(minilm_folder: Path, tmp_path: Path) -> None:
    reviews, picture = tmp_path / "reviews.csv", tmp_path / "picture.svg"
    reviews.write_text(TABLE)
    command = ("sentiment", "-f", str(reviews), "--gold", "truth")
    done = run(*command, "--mistakes", "3", "--save", str(picture), "--json")
    [found] = json.loads(done.stdout)
    assert (found["texts"], found["correct"], found["no_gold"]) == (3, 2, 1)
    assert found["confusion"]["POSITIVE"] == {"NEGATIVE": 1, "POSITIVE": 1}
    assert [(m["text"], m["gold"]) for m in found["mistakes"]] == [("Awful", "POSITIVE")]
    assert "macro-F1" in picture.read_text()
    table = run(*command, "--mistakes", "3", "--format", "table").stdout
    assert "accuracy 0.6667 (0.2077 to 0.9385 at 95 %): 2 of 3 texts" in table
    assert "1 row without a right label left out" in table
    assert table.splitlines()[-1].split() == ["POSITIVE", "NEGATIVE", table.split()[-2], "Awful"]
    rows = run(*command, "--format", "csv").stdout.splitlines()
    assert [row.split(",")[0] for row in rows] == ["label", "NEGATIVE", "POSITIVE"]


def test_status_3_below_the_least_accuracy(minilm_folder: Path, tmp_path: Path) -> None:
    reviews = tmp_path / "reviews.csv"
    reviews.write_text(TABLE)
    command = ("sentiment", "-f", str(reviews), "--gold", "truth", "--min-accuracy")
    low = run(*command, "0.9")
    assert low.exit_code == 3
    assert low.stdout.startswith("accuracy\t0.6667\n")
    assert "texts\t3\n" in low.stdout
    assert low.stderr.splitlines()[-1] == (
        "Error: the accuracy is 0.6667, less than 0.9 (95 % interval: 0.2077 to 0.9385)"
    )
    assert run(*command, "0.6").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mistakes", "3"], "--mistakes needs --gold"),
        (["--min-accuracy", "0.5"], "--min-accuracy needs --gold"),
        (["--gold", "x", "--summary"], "--gold excludes --summary"),
        (["--gold", "x", "--resume", "-o", "x"], "--resume excludes --summary, --check, --gold"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    done = run("sentiment", "text", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr

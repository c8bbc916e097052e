"""Views of `sentiment`: the input's columns, then the label and its scores; and summaries."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hftool.output.view import Row, View, escaped, line, number, plain
from hftool.output.views.input_columns import InputColumns, InputShape

if TYPE_CHECKING:
    from hftool.classification.classify import Classification
    from hftool.classification.evaluation import Evaluation
    from hftool.classification.summary import LabelSummary


def classifications_view(
    given: InputShape,
    labels: Sequence[str],
    *,
    all_scores: bool,
    multi_label: bool = False,
    errors: bool = False,
    bom: bool = False,
) -> View:
    """Return the view of `sentiment`'s records.

    Args:
        given: the table that the texts are from.
        all_scores: whether the records have the score of each label: in `scores`, and in csv, tsv
            and Parquet in a column for each.
        multi_label: whether json and jsonl have the `labels` of each text.
        errors: whether a text that failed has a record, with the cause in `error`.
        bom: whether csv begins with a byte-order mark.
    """
    scores = tuple(f"score_{label}" for label in labels) if all_scores else ()
    results = ("label", "score", *scores, *("error",) * errors)
    reserved = (*("labels",) * multi_label, *("scores",) * all_scores)
    inputs = InputColumns(given, results, reserved=reserved)

    def record(c: "Classification") -> Row:
        scores = {"scores": c.scores} if all_scores else {}
        labels = {} if c.labels is None else {"labels": c.labels}
        error = {"error": c.error} if c.error is not None else {}
        given = inputs.named(c.columns)
        return {**given, "label": c.label, "score": c.score, **labels, **scores, **error}

    def rows(c: "Classification") -> list[Row]:
        by_label = {f"score_{label}": score for label, score in c.scores.items()}
        more = {**(by_label if all_scores else {}), **({"error": c.error} if errors else {})}
        return [inputs.beside(c.columns, {"label": c.label, "score": c.score, **more})]

    def text(c: "Classification") -> str:
        scores = [f"{escaped(label)}={number(score)}" for label, score in c.scores.items()]
        more = scores if all_scores else []
        error = [] if c.error is None else [f"error={escaped(c.error)}"]
        score = "" if c.score is None else number(c.score)
        return line(escaped(c.label), score, escaped(c.text), *more, *error)

    def table(records: Iterable["Classification"], console: Any) -> Iterator[str]:
        from hftool.output.tables.classification import classifications

        return classifications(labels, all_scores, records, console)

    rounded = ("score", *scores)
    return inputs.view(bom=bom, rounded=rounded, text=text, record=record, rows=rows, table=table)


def _summary_text(summary: "LabelSummary") -> str:
    s = summary
    histogram = " ".join(map(str, s.histogram))
    mean = "" if s.mean_score is None else number(s.mean_score)
    return line(escaped(s.label), s.count, number(s.share), mean, histogram)


def _summary_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import classification

    return classification.summary(records, console)


SUMMARY = View(
    columns=("label", "count", "share", "mean_score", "histogram"),
    rounded=("share", "mean_score"),
    text=_summary_text,
    table=_summary_table,
)


def _short(value: float | None) -> str | float | None:
    return number(value) if isinstance(value, float) else value


def _evaluation_text(evaluation: "Evaluation") -> str:
    e = evaluation
    micro = ("micro_f1",) if e.micro_f1 is not None else ()
    totals = ("accuracy", "macro_f1", *micro, "calibration_error", "texts", "correct", "no_gold")
    lines = [line(name, _short(getattr(e, name))) for name in totals]
    lines += [
        line(name, escaped(label.label), _short(getattr(label, name)))
        for label in e.labels
        for name in ("precision", "recall", "f1")
    ]
    lines += [
        line("mistake", _short(m.score), escaped(m.label), escaped(m.gold), escaped(m.text))
        for m in e.mistakes or ()
    ]
    return "".join(lines)


def _evaluation_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import classification

    return classification.evaluation(records, console)


EVALUATION = View(
    columns=(
        *("label", "support", "predicted", "precision", "precision_interval", "recall"),
        *("recall_interval", "f1", "best_threshold", "best_f1"),
    ),
    text=_evaluation_text,
    rows=lambda evaluation: plain(evaluation.labels),
    table=_evaluation_table,
)

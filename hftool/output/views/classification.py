"""How `sentiment` shows its records: the input's columns, then the label and its scores."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hftool.inputs import tables as inputs
from hftool.inputs.tables import TextTable
from hftool.output.view import Row, View, escaped, line

if TYPE_CHECKING:
    from hftool.classification.classify import Classification
    from hftool.classification.summary import LabelSummary

JUDGED = ("label", "score", "scores")


def names_in_records(names: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """What the input's columns are called in a record: as they are, but `input_NAME` where a
    judgement has a column of that name."""
    ours = {*JUDGED, *(f"score_{label}" for label in labels)}
    found: dict[str, str] = {}
    for name in names:
        new = name
        while new in ours or (new != name and new in names):
            new = f"input_{new}"
        found[name] = new
    return found


def text_in_record(
    rows: TextTable, labels: Sequence[str]
) -> Callable[[inputs.TextRow], Mapping[str, str]]:
    """What a row shares with its record: the text, under the name of its column there."""
    column = names_in_records(rows.names, labels).get(rows.column, rows.column)
    return lambda row: {column: row.text}


def classifications_view(rows: TextTable, labels: Sequence[str], *, all_scores: bool) -> View:
    """With `all_scores` each label has a column of its own instead of one for all of them."""
    names = names_in_records(rows.names, labels)

    def record(judgement: "Classification") -> Row:
        given = judgement.columns
        known = names if given.keys() <= names.keys() else names_in_records([*given], labels)
        carried = {known[name]: value for name, value in given.items()}
        found = {"label": judgement.label, "score": judgement.score, "scores": judgement.scores}
        return {**carried, **found}

    def row(judgement: "Classification") -> Row:
        scores = {f"score_{label}": score for label, score in judgement.scores.items()}
        return {**record(judgement), **scores}

    def text(judgement: "Classification") -> str:
        j = judgement
        scores = [f"{escaped(label)}={score}" for label, score in j.scores.items()]
        return line(escaped(j.label), j.score, escaped(j.text), *(scores if all_scores else ()))

    def schema(group: Sequence[Row]) -> Any:
        from hftool.output.parquet import judged_schema

        return judged_schema(group, names, rows.schema, labels, all_scores=all_scores)

    def table(records: Iterable["Classification"], console: Any) -> Iterator[str]:
        from hftool.output.tables.classification import classifications

        return classifications(tuple(labels), all_scores, records, console)

    scores = tuple(f"score_{label}" for label in labels) if all_scores else ("scores",)
    return View(
        columns=(*names.values(), "label", "score", *scores),
        text=text,
        record=record,
        rows=lambda judgement: [row(judgement)],
        table=table,
        schema=schema,
    )


def _summary_text(summary: "LabelSummary") -> str:
    s = summary
    histogram = " ".join(map(str, s.histogram))
    return line(escaped(s.label), s.count, s.share, s.mean_score, histogram)


def _summary_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import classification

    return classification.summary(records, console)


SUMMARY = View(
    columns=("label", "count", "share", "mean_score", "histogram"),
    text=_summary_text,
    table=_summary_table,
)

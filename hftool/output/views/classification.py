"""Views of `sentiment`: the input's columns, then the label and its scores; and summaries."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hftool.output.view import Row, View, escaped, line

if TYPE_CHECKING:
    from hftool.classification.classify import Classification
    from hftool.classification.summary import LabelSummary

RESULTS = ("label", "score", "scores")  # the names that a classification adds to the input's


def names_in_records(names: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Return the names of the input's columns in the records, by those in the input.

    They stay the same, but one that a classification needs for itself becomes `input_NAME`.
    """
    reserved = {*RESULTS, *(f"score_{label}" for label in labels)}
    renamed: dict[str, str] = {}
    for name in names:
        new = name
        while new in reserved or (new != name and new in names):
            new = f"input_{new}"
        renamed[name] = new
    return renamed


def classifications_view(
    names: Sequence[str], schema: Any, labels: Sequence[str], *, all_scores: bool
) -> View:
    """Return the view of `sentiment`'s records.

    Args:
        names: the columns of the input, in order.
        schema: the input's schema (`pyarrow.Schema`) if it was Parquet, else None.
        all_scores: whether each label's score has its own column, instead of one for all.
    """
    new_names = names_in_records(names, labels)

    def record(classification: "Classification") -> Row:
        columns = classification.columns
        # In JSON Lines a record may have columns that the first one lacks.
        known = columns.keys() <= new_names.keys()
        by_name = new_names if known else names_in_records([*columns], labels)
        return {
            **{by_name[name]: value for name, value in columns.items()},
            "label": classification.label,
            "score": classification.score,
            "scores": classification.scores,
        }

    def row(classification: "Classification") -> Row:
        scores = {f"score_{label}": score for label, score in classification.scores.items()}
        return {**record(classification), **scores}

    def text(classification: "Classification") -> str:
        c = classification
        scores = [f"{escaped(label)}={score}" for label, score in c.scores.items()]
        return line(escaped(c.label), c.score, escaped(c.text), *(scores if all_scores else ()))

    def output_schema(rows: Sequence[Row]) -> Any:
        from hftool.output.parquet import classification_schema

        return classification_schema(rows, new_names, schema, labels, all_scores=all_scores)

    def table(records: Iterable["Classification"], console: Any) -> Iterator[str]:
        from hftool.output.tables.classification import classifications

        return classifications(labels, all_scores, records, console)

    scores = tuple(f"score_{label}" for label in labels) if all_scores else ("scores",)
    return View(
        columns=(*new_names.values(), "label", "score", *scores),
        text=text,
        record=record,
        rows=lambda classification: [row(classification)],
        table=table,
        schema=output_schema,
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

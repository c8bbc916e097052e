"""The views of `score`: the input's columns, then how probable the text is; words; tokens."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hftool.output.view import Row, View, escaped, line
from hftool.output.views.classification import names_in_records
from hftool.output.views.tokens import next_token_view

if TYPE_CHECKING:
    from hftool.generation.scoring import TextScore, WordScore

WORD_COLUMNS = ("word", "tokens", "logprob", "surprisal")
RESULTS = ("tokens", "logprob", "surprisal", "perplexity", "bits_per_byte")


def scores_view(names: Sequence[str], schema: Any, *, errors: bool = False) -> View:
    """Return the view of the scores of texts.

    Args:
        names: the columns of the input, in order.
        schema: the input's schema (`pyarrow.Schema`) if it was Parquet, else None.
        errors: whether a text that failed has a record, with the cause in `error`.
    """
    results = (*RESULTS, *("error",) * errors)
    reserved = {"index", *results}
    new_names = names_in_records(names, reserved)

    def inputs(score: "TextScore") -> Row:
        # In JSON Lines a record may have columns that the first one lacks.
        known = score.columns.keys() <= new_names.keys()
        by_name = new_names if known else names_in_records([*score.columns], reserved)
        return {by_name[name]: value for name, value in score.columns.items()}

    def record(score: "TextScore") -> Row:
        values = {name: getattr(score, name) for name in RESULTS}
        error = {} if score.error is None else {"error": score.error}
        return {"index": score.index, **inputs(score), **values, **error}

    def row(score: "TextScore") -> Row:
        return {**record(score), **({"error": score.error} if errors else {})}

    def text(score: "TextScore") -> str:
        error = [] if score.error is None else [f"error={escaped(score.error)}"]
        return line(score.surprisal, score.perplexity, escaped(score.text), *error)

    def table(records: Iterable["TextScore"], console: Any) -> Iterator[str]:
        from hftool.output.tables.score import scores

        return scores(records, console)

    def output_schema(rows: Sequence[Row]) -> Any:
        from hftool.output.parquet import classification_schema

        return classification_schema(rows, new_names, schema, ("index", *results))

    return View(
        columns=("index", *new_names.values(), *results),
        text=text,
        record=record,
        rows=lambda score: [row(score)],
        table=table,
        schema=output_schema,
    )


def parts_view(by: str, *, numbered: bool) -> View:
    """Return the view of the scores of words or tokens.

    Args:
        numbered: whether records have the index of their text.
    """
    if by == "token":
        return next_token_view(
            scored=True, sampled=False, models=False, texts=numbered, targets=False
        )
    columns = (*("index",) * numbered, *WORD_COLUMNS)
    return View(columns=columns, text=_word_text, token_columns=("word",))


def _word_text(score: "WordScore") -> str:
    index = [] if score.index is None else [score.index]
    return line(*index, score.surprisal, escaped(score.word))

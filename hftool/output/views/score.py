"""The views of `score`: the input's columns, then how probable the text is; words; tokens."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from hftool.output.view import Row, View, escaped, line, number
from hftool.output.views.input_columns import InputColumns, InputShape
from hftool.output.views.tokens import next_token_view

if TYPE_CHECKING:
    from hftool.generation.scoring import TextScore, WordScore

WORD_COLUMNS = ("word", "tokens", "logprob", "surprisal")
RESULTS = ("index", "tokens", "logprob", "surprisal", "perplexity", "bits_per_byte")


def scores_view(given: InputShape, *, errors: bool = False, bom: bool = False) -> View:
    """Return the view of the scores of texts.

    Args:
        given: the table that the texts are from.
        errors: whether a text that failed has a record, with the cause in `error`.
        bom: whether csv begins with a byte-order mark.
    """
    results = (*RESULTS, *("error",) * errors)
    inputs = InputColumns(given, results)

    def record(score: "TextScore") -> Row:
        values = {name: getattr(score, name) for name in RESULTS}
        error = {} if score.error is None else {"error": score.error}
        return {"index": values.pop("index"), **inputs.named(score.columns), **values, **error}

    def rows(score: "TextScore") -> list[Row]:
        values = {name: getattr(score, name) for name in results}
        return [inputs.beside(score.columns, values)]

    def text(score: "TextScore") -> str:
        error = [] if score.error is None else [f"error={escaped(score.error)}"]
        values = (score.surprisal, score.perplexity)
        numbers = ("" if value is None else number(value) for value in values)
        return line(*numbers, escaped(score.text), *error)

    def table(records: Iterable["TextScore"], console: Any) -> Iterator[str]:
        from hftool.output.tables.score import scores

        return scores(records, console)

    return View(
        columns=inputs.columns,
        header=inputs.header,
        nulls=given.nulls,
        bom=bom,
        text=text,
        record=record,
        rows=rows,
        table=table,
        schema=inputs.schema,
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
    return line(*index, number(score.surprisal), escaped(score.word))

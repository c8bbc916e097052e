"""The views of `score`: the input's columns, then how probable the text is; words; tokens."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from hftool.output.view import Row, View, escaped, line, number, plain
from hftool.output.views.input_columns import InputColumns, InputShape

if TYPE_CHECKING:
    from hftool.generation.comparison import ModelComparison
    from hftool.generation.scored_tokens import Perplexity, ScoredToken
    from hftool.generation.scoring import TextScore, WordScore

TOKEN_COLUMNS = ("position", "id", "token", "bytes", "prob", "rank", "surprisal", "entropy")
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

    return inputs.view(bom=bom, text=text, record=record, rows=rows, table=table)


def _comparison_text(comparison: "ModelComparison") -> str:
    values = plain(comparison)
    shown = {name: number(v) if isinstance(v, float) else v for name, v in values.items()}
    return "".join(line(name, value) for name, value in shown.items())


def _comparison_table(records: Iterable["ModelComparison"], console: Any) -> Iterator[str]:
    from hftool.output.tables.score import comparison

    return comparison(records, console)


COMPARISON = View(
    columns=(
        *("model", "precision", "against", "against_precision", "texts", "tokens", "divergence"),
        *("divergence_error", "divergence_quantile_99", "same_best", "same_best_error"),
        *("perplexity", "perplexity_error", "against_perplexity", "against_perplexity_error"),
        *("perplexity_difference", "perplexity_difference_error"),
    ),
    text=_comparison_text,
    table=_comparison_table,
)


def parts_view(by: str, *, numbered: bool) -> View:
    """Return the view of the scores of words or tokens.

    Args:
        numbered: whether records have the index of their text.
    """
    index = ("index",) * numbered
    if by == "token":
        return View(
            columns=(*index, *TOKEN_COLUMNS),
            text=_token_text,
            rows=lambda record: [plain(record)] if record.kind == "token" else [],
            table=_token_table,
            page=_token_page,
        )
    return View(columns=(*index, *WORD_COLUMNS), text=_word_text, token_columns=("word",))


def _token_text(record: "ScoredToken | Perplexity") -> str:
    index = [] if record.index is None else [record.index]
    if record.kind == "perplexity":
        return line(*index, "perplexity", record.perplexity)
    s = record
    return line(*index, s.position, s.id, s.prob, s.rank, s.surprisal, s.entropy, escaped(s.token))


def _token_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import score

    return score.scored(records, console)


def _token_page(records: list[Any]) -> str:
    from hftool.output.pages import heatmap

    return heatmap.scored(records)


def _word_text(score: "WordScore") -> str:
    index = [] if score.index is None else [score.index]
    return line(*index, number(score.surprisal), escaped(score.word))

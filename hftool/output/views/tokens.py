"""Views of tokens: vocabularies, encodings, next tokens."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from hftool.options.encode import EncodeMode
from hftool.output.view import Row, View, escaped, line, marked, plain

if TYPE_CHECKING:
    from hftool.generation.candidates import Candidate
    from hftool.tokenization.difference import TokenizerDifference
    from hftool.tokenization.explain import Explanation
    from hftool.tokenization.records import ComparedTotal, Encoded
    from hftool.tokenization.vocabulary import VocabularyStats


def _statistics_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import tokens

    return tokens.statistics(records, console)


def _encoded_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import tokens

    return tokens.encoded(records, console)


def _compared_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import tokens

    return tokens.compared(records, console)


def _compared_counts_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import tokens

    return tokens.compared_counts(records, console)


def _explanation_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables.explanation import explanations

    return explanations(records, console)


def _explanation_page(records: list[Any]) -> str:
    from hftool.output.pages.explanation import explanation_page

    return explanation_page(records)


def _text_field_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import tokens

    return tokens.text_field(records, console)


def _changed_text_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import tokens

    return tokens.changed_text(records, console)


def _candidates_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import tokens

    return tokens.candidates(records, console)


def _positions_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import tokens

    return tokens.positions(records, console)


def _candidates_page(records: list[Any]) -> str:
    from hftool.output.pages.sliders import slider_page

    return slider_page(records)


def _candidates_compared_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import tokens

    return tokens.candidates_compared(records, console)


def _encoded_page(records: list[Any]) -> str:
    from hftool.output.pages import heatmap

    return heatmap.encoded(records)


ENTRY_COLUMNS = ("id", "token", "text", "bytes", "kind")


def vocabulary_view(*, raw: bool) -> View:
    """Return the view of a vocabulary's entries; with `raw`, lines of text are not escaped."""
    shown = _unchanged if raw else escaped
    return View(
        columns=ENTRY_COLUMNS,
        text=lambda entry: f"{entry.id}:{shown(entry.text)}\n",
        token_columns=("text",),
        drop=("bytes", "token"),
        live=False,
        lines_per_write=1024,
    )


AUDIT = View(
    columns=("problem", *ENTRY_COLUMNS, "cause", "same_as"),
    text=lambda f: line(
        f.problem, f"{f.id}:{escaped(f.text)}", f.cause if f.same_as is None else f.same_as
    ),
    token_columns=("text",),
    drop=("bytes", "token"),
    live=False,
)


def difference_view(*, raw: bool) -> View:
    """Return the view of what only one of two tokenizers has; `raw` as for `vocabulary_view`."""
    shown = _unchanged if raw else escaped
    return View(
        columns=("part", "side", "place", "token", "text", "bytes", "kind", "score"),
        text=lambda d: line(d.part, d.side, escaped(_place(d)), shown(d.text)),
        rows=lambda d: [{**plain(d), "place": _place(d)}],
        table_columns=("part", "side", "place", "text"),
        token_columns=("text",),
        live=False,
        lines_per_write=1024,
    )


def _place(difference: "TokenizerDifference") -> str:
    """Return where a difference is: a name, a line of a template, a rank or an id."""
    places = (difference.name, difference.line, difference.rank, difference.id)
    return ":".join(str(place) for place in places if place is not None)


def _unchanged(text: str) -> str:
    return text


def _statistics_rows(stats: "VocabularyStats") -> Iterator[Row]:
    """Yield a row for each number or text: {"of": "kinds", "name": "byte", "value": 256}."""
    for of, value in plain(stats).items():
        if isinstance(value, dict):
            yield from ({"of": of, "name": name, "value": v} for name, v in value.items())
        elif isinstance(value, list):
            yield from ({"of": of, "name": str(i), "value": v} for i, v in enumerate(value, 1))
        else:
            yield {"of": of, "name": "", "value": value}


STATISTICS = View(
    columns=("of", "name", "value"),
    text=lambda stats: "".join(
        line(row["of"], row["name"], escaped(str(row["value"]))) for row in _statistics_rows(stats)
    ),
    rows=_statistics_rows,
    table=_statistics_table,
)


def _encoded_rows(encoded: "Encoded") -> Iterator[Row]:
    rows = zip(encoded.ids, encoded.tokens, encoded.pieces, encoded.offsets, strict=True)
    for index, (token_id, token, piece, (start, end)) in enumerate(rows):
        yield {
            "index": index,
            "id": token_id,
            "token": token,
            "piece": piece,
            "start": start,
            "end": end,
        }


ENCODED = View(
    columns=("index", "id", "token", "piece", "start", "end"),
    text=lambda encoded: " ".join(map(str, encoded.ids)) + "\n",
    rows=_encoded_rows,
    table=_encoded_table,
    page=_encoded_page,
    live=False,
)

COUNTS = View(
    columns=("count", "text"),
    text=lambda counted: f"{counted.count}\n",
    live=False,
)

COMPARED = View(
    columns=("model", "count", "bytes_per_token", "ids", "pieces"),
    text=lambda c: (
        _total_text(c)
        if _is_total(c)
        else line(c.model, c.count, c.bytes_per_token, " ".join(map(str, c.ids)))
    ),
    rows=lambda c: [] if _is_total(c) else [plain(c)],
    table=_compared_table,
)

COMPARED_COUNTS = View(
    columns=("model", "count", "bytes_per_token", "unknown", "text"),
    text=lambda c: (
        _total_text(c) if _is_total(c) else line(c.model, c.count, c.bytes_per_token, c.unknown)
    ),
    rows=lambda c: [] if _is_total(c) else [plain(c)],
    table=_compared_counts_table,
)


def _is_total(record: Any) -> bool:
    from hftool.tokenization.records import ComparedTotal

    return isinstance(record, ComparedTotal)


def _total_text(total: "ComparedTotal") -> str:
    return line("total", total.model, total.count, total.bytes_per_token, total.unknown)


def _explanation_text(explanation: "Explanation") -> str:
    """Return a line for what the normalizer gives, for each part and for each step."""
    lines = [line("normalized", escaped(explanation.normalized))]
    for part in explanation.parts:
        lines.append(line("added" if part.added else "part", escaped(part.text)))
        for step in part.steps:
            if step.rank is not None:
                merge = (step.rank, step.left, step.right, " ".join(step.tokens or ()))
                lines.append(line("merge", *map(_cell, merge)))
            elif step.rest is not None:
                lines.append(line("match", escaped(step.token), escaped(step.rest)))
            elif step.score is not None:
                lines.append(line("score", escaped(step.token), step.score))
        lines.append(line("tokens", *map(_cell, part.tokens)))
    return "".join(lines)


def _cell(value: Any) -> Any:
    return escaped(value) if isinstance(value, str) else value


def _explanation_rows(explanation: "Explanation") -> Iterator[Row]:
    for i, part in enumerate(explanation.parts):
        for step in part.steps:
            yield {"part": i, "text": part.text, **plain(step)}


EXPLANATION = View(
    columns=("part", "text", "token", "left", "right", "rank", "rest", "score", "tokens"),
    text=_explanation_text,
    rows=_explanation_rows,
    table=_explanation_table,
    page=_explanation_page,
)

RENDERED = View(
    columns=("text",),
    text=lambda rendered: rendered.text + "\n",
    table=_text_field_table,
)

RENDERED_DIFF = View(
    columns=("change", "text"),
    text=lambda diff: "".join(marked(part.change, part.text) for part in diff.parts) + "\n",
    rows=lambda diff: plain(diff.parts),
    table=_changed_text_table,
)

ROUND_TRIPS = View(
    columns=("same", "differs_at", "text", "decoded"),
    text=lambda r: "same\n" if r.same else f"differs at character {r.differs_at}\n",
)


def _with_failures(view: View) -> View:
    """Return a view that also takes texts that were not encoded: an empty line as text, an error
    in JSON."""

    def table(records: Iterable[Any], console: Any) -> Iterator[str]:
        from hftool.output.tables.base import plain_table

        return (view.table or plain_table(view))(filter(_is_encoded, records), console)

    def failure_rows(record: Any) -> list[Row]:
        return [plain(record)] if "text" in view.columns else []

    return replace(
        view,
        text=lambda record: view.text(record) if _is_encoded(record) else "\n",
        rows=lambda record: view.rows(record) if _is_encoded(record) else failure_rows(record),
        table=table,
        page=None if view.page is None else partial(_page_without_failures, view.page),
    )


def _is_encoded(record: Any) -> bool:
    from hftool.tokenization.records import FailedText

    return not isinstance(record, FailedText)


def _page_without_failures(page: Callable[[list[Any]], str], records: list[Any]) -> str:
    return page(list(filter(_is_encoded, records)))


ENCODE_VIEWS: Mapping[EncodeMode, View] = {
    "tokens": _with_failures(ENCODED),
    "count": _with_failures(COUNTS),
    "template": RENDERED,
    "diff": RENDERED_DIFF,
    "roundtrip": _with_failures(ROUND_TRIPS),
    "compare": _with_failures(COMPARED),
    "compare_counts": _with_failures(COMPARED_COUNTS),
    "explain": _with_failures(EXPLANATION),
}

DECODED = View(
    columns=("ids", "text"),
    text=lambda decoded: decoded.text + "\n",
    table=_text_field_table,
)

CANDIDATE_COLUMNS = ("position", "rank", "id", "token", "prob", "logprob", "cumulative", "entropy")


def next_token_view(
    *, everywhere: bool, sampled: bool, models: bool, texts: bool, targets: bool
) -> View:
    """Return the view of `topk`'s candidates.

    Args:
        everywhere: whether they are of all positions.
        sampled: whether they have a probability after the filters.
        models: whether there are several models.
        texts: whether there are several texts.
        targets: whether they may be of a continuation.
    """
    columns = list(CANDIDATE_COLUMNS)
    if sampled:
        columns.insert(columns.index("prob") + 1, "sampled_prob")
        columns.append("sampled_entropy")
    if everywhere:
        columns.insert(1, "after")
    return View(
        columns=(*("index",) * texts, *("model",) * models, *columns, *("target",) * targets),
        text=_candidate_text,
        table=(
            _positions_table
            if everywhere
            else _candidates_compared_table
            if models
            else _candidates_table
        ),
        page=None if everywhere else _candidates_page,
    )


def _candidate_text(c: "Candidate") -> str:
    source = [value for value in (c.index, c.model) if value is not None]
    position = () if c.after is None else (c.position,)
    sampled = () if c.sampled_prob is None else (c.sampled_prob,)
    return line(*source, *position, c.rank, c.id, c.prob, *sampled, escaped(c.token))

"""Views of what `encode` and `decode` compute."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from hftool.options.encode import EncodeMode
from hftool.output.view import Row, View, escaped, line, marked, plain

if TYPE_CHECKING:
    from hftool.tokenization.explain import Explanation
    from hftool.tokenization.records import ComparedTotal, Encoded


def _encoded_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import encode

    return encode.encoded(records, console)


def _compared_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import encode

    return encode.compared(records, console)


def _compared_counts_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import encode

    return encode.compared_counts(records, console)


def _explanation_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables.explanation import explanations

    return explanations(records, console)


def _explanation_page(records: list[Any]) -> str:
    from hftool.output.pages.explanation import explanation_page

    return explanation_page(records)


def _text_field_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import encode

    return encode.text_field(records, console)


def _changed_text_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import encode

    return encode.changed_text(records, console)


def _encoded_page(records: list[Any]) -> str:
    from hftool.output.pages import heatmap

    return heatmap.encoded(records)


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
            yield {"text": explanation.text, "part": i, "part_text": part.text, **plain(step)}


EXPLANATION = View(
    columns=(
        *("text", "part", "part_text", "token"),
        *("left", "right", "rank", "rest", "score", "tokens"),
    ),
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

"""Views of vocabularies: their entries, statistics, defects and differences."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from hftool.output.view import Row, View, escaped, line, plain

if TYPE_CHECKING:
    from hftool.tokenization.difference import TokenizerDifference
    from hftool.tokenization.vocabulary import VocabularyStats


def _statistics_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import vocabulary

    return vocabulary.statistics(records, console)


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

"""The records of a CSV or TSV file."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hftool.arrow import pyarrow
from hftool.errors import HftoolError
from hftool.inputs.columns import TEXT, unique_names
from hftool.inputs.delimited import (
    Layout,
    Row,
    fits,
    is_blank,
    is_footer,
    read_rows,
    recognise,
    separator_line,
)
from hftool.inputs.json_records import begins_with_record
from hftool.inputs.other_kinds import PRINTED, text_kind
from hftool.inputs.records import NumberedRecords, Records, Shape
from hftool.inputs.texts import LineSource, require_data_lines
from hftool.options.inputs import TableInputOptions
from hftool.tsv import NULL

log = logging.getLogger("hftool")


def delimited_records(
    file: Path | None, options: TableInputOptions, *, tsv: bool, source: LineSource | None = None
) -> Records:
    """Return the records of a CSV or TSV file, after its dialect and header are recognised.

    Args:
        tsv: whether its name says that tabs separate the cells.
        source: its lines, if some of them have been looked at.

    Raises:
        HftoolError: the file can't be read, or a row of its first lines is not valid.
    """
    source = source or LineSource(file, options)
    head, complete = source.head(least=2)
    require_data_lines(head, source.name)
    if options.header is None:
        _require_table(head, source.name)
    lines = iter(source)
    before = 0
    if head and (delimiter := separator_line(head[0])):
        next(lines)
        head, before = head[1:], 1
        options = replace(options, delimiter=options.delimiter or delimiter)
    layout = recognise(head, options, complete=complete, tsv=tsv, name=source.name)
    rows = ((n + before, row) for n, row in read_rows(lines, layout.dialect, source.name))
    header = header_of(layout)
    names = unique_names(header)
    escaped = layout.dialect.quoting == "escapes"
    nulls = {"tsv": NULL} if escaped else {}
    if options.null is not None:
        nulls = {"csv": options.null, "tsv": options.null}
    shape = Shape(
        header,
        names,
        lambda: pyarrow().schema([(name, pyarrow().string()) for name in names]),
        nulls=nulls,
        encoding=source.encoding,
        marked=source.marked,
        recognised=layout.named and options.header is None,
    )
    return Records(shape, _records_under_header(rows, layout, names, options.null, source.name))


def _require_table(head: Sequence[str], name: str) -> None:
    """Raise where lines are of another kind than CSV, or have a rule below the header.

    Raises:
        HftoolError: with what they are.
    """
    if begins_with_record(head):
        raise HftoolError(f"{name} looks like JSON, not like CSV", "--input-format jsonl reads it")
    kind = text_kind(head)
    if kind is None and head[1:] and re.fullmatch(r"\s*-{3,}\s*", head[1]):
        kind = PRINTED
    if kind is not None:
        raise HftoolError(
            f"{name} looks like {kind}, not like CSV",
            "save it as CSV (psql --csv, mysql --batch, sqlite3 -csv); --header reads it all the"
            " same",
        )


def header_of(layout: Layout) -> tuple[str, ...]:
    """Return the names of the columns; those without names are numbered, but a single one holds the
    texts."""
    if layout.named:
        return layout.header
    width = len(layout.header)
    return (TEXT,) if width == 1 else tuple(f"column_{i}" for i in range(1, width + 1))


def _records_under_header(
    rows: Iterator[tuple[int, Row]],
    layout: Layout,
    names: Sequence[str],
    null: str | None,
    source: str,
) -> NumberedRecords:
    """Yield the records in numbered rows of cells, after those before the header and the header."""
    width, below = len(names), layout.below
    skip = layout.skipped + layout.named + below
    for number, cells in rows:
        if is_footer(cells, width) or (is_blank(cells) and (width > 1 or skip)):
            continue
        if skip:
            skip -= 1
            if skip >= layout.named + below:
                log.info("line %d of %s is before the header: '%s'", number, source, cells[0])
            elif skip < below:
                log.info("line %d of %s has more names, as survey tools write", number, source)
            continue
        if not fits(cells, width):
            cause = f"expected {width} cell{'s' * (width != 1)} as in the header, got {len(cells)}"
            way = "a cell with a delimiter in it must be quoted; --delimiter names another one"
            yield number, HftoolError(cause, way)
            continue
        if layout.named and width > 1 and cells == [*layout.header]:
            log.warning("line %d of %s is the header again; -f can be repeated", number, source)
        if null is not None:
            cells = [None if cell == null else cell for cell in cells]
        yield number, dict(zip(names, cells, strict=False))

"""Write records to stdout or to a file, in the chosen format."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hftool.atomic_files import STDOUT, atomic_file, write_error, write_errors
from hftool.options.output import OutputOptions, PictureOptions, TableOptions
from hftool.output.formats import FORMATS, HEADED, format_name, records_only
from hftool.output.view import View, has_failed
from hftool.terminal import is_terminal, visible

if TYPE_CHECKING:
    from hftool.output.resume import Partial


def write(
    events: Iterable[Any], view: View, options: OutputOptions, partial: "Partial | None" = None
) -> None:
    """Write events to `partial` if there is one, else to the file of `--output`, which appears
    when it is complete, else to stdout; and export them to the file of `--save`.

    With `--on-error skip`, records that failed are left out.

    Raises:
        HftoolError: the file can't be written.
    """
    name = format_name(options, view)
    if isinstance(options, PictureOptions) and options.save is not None:
        from hftool.output.export import exported

        events = exported(events, view, options.save)
    skips = isinstance(options, TableOptions) and options.on_error == "skip"
    if partial is not None:
        header = next(FORMATS[name]([], view)) if name in HEADED else ""
        partial.append(header, _texts_of_records(events, view, name, skips=skips))
        return
    if skips:
        events = (event for event in events if not has_failed(event))
    if name == "parquet":
        from hftool.output.parquet import write_parquet

        write_parquet((row for event in events for row in view.rows(event)), view, options.output)
        return
    terminal = options.output is None and is_terminal(sys.stdout)
    to_file = options.output and atomic_file(options.output, private=view.private)
    with to_file or nullcontext(sys.stdout) as stream:
        if name == "table":
            from hftool.output.tables.base import LISTED, plain_table, table_console

            console = table_console(options.color, terminal)
            table = view.table or plain_table(view, LISTED if terminal else None)
            chunks = table(events, console)
        else:
            chunks = FORMATS[name](events, view)
            chunks = map(visible, chunks) if terminal else chunks
        if view.lines_per_write > 1:
            chunks = _joined(chunks, view.lines_per_write)
        _write_chunks(chunks, stream, view.live, options.output or STDOUT)


def _texts_of_records(
    events: Iterable[Any], view: View, name: str, *, skips: bool
) -> Iterator[tuple[str, bool]]:
    """Yield the text of each record in a format, without a header, and whether it failed; with
    `skips` no text if it did."""
    for record in records_only(events):
        failed = has_failed(record)
        lines = [] if skips and failed else FORMATS[name]([record], view)
        yield "".join(islice(lines, name in HEADED, None)), failed


def _write_chunks(chunks: Iterable[str], stream: TextIO, live: bool, name: Path) -> None:
    for chunk in chunks:  # outside `try`: making a chunk may raise OSError for other reasons
        try:
            stream.write(chunk)
            if live:
                stream.flush()
        except OSError as error:
            raise write_error(name, error) from error


def _joined(chunks: Iterable[str], count: int) -> Iterator[str]:
    rest = iter(chunks)
    while some := list(islice(rest, count)):
        yield "".join(some)


def flush_stdout() -> None:
    """Pass on what was written to stdout so far, before the command waits for more input."""
    if sys.stdout is not None:
        with write_errors(STDOUT):
            sys.stdout.flush()

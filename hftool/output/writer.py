"""Write records to stdout or to a file, in the chosen format."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hftool.atomic_files import STDOUT, atomic_file, write_error
from hftool.errors import UsageError
from hftool.options.output import OutputOptions, PictureOptions
from hftool.output.formats import FORMATS, HEADED
from hftool.output.view import View
from hftool.terminal import is_terminal, visible

if TYPE_CHECKING:
    from hftool.output.resume import Partial


def format_name(options: OutputOptions, view: View) -> str:
    """The format asked for, else the view's own, else the one for where records go.

    Raises:
        UsageError: two formats were asked for.
    """
    if options.json and options.format not in (None, "json"):
        raise UsageError(f"--json and --format {options.format} exclude each other")
    terminal = options.output is None and is_terminal(sys.stdout)
    suffix = options.output.suffix.lower() if options.output else ""
    named = "json" if options.json else options.format or options.by_suffix.get(suffix)
    return named or view.default or ("table" if terminal else "text")


def write(
    events: Iterable[Any], view: View, options: OutputOptions, partial: "Partial | None" = None
) -> None:
    """Write events to stdout, or whole to the file of `--output`, or to its partial file; and a
    picture of them.

    Raises:
        UsageError: two formats were asked for.
    """
    name = format_name(options, view)
    if isinstance(options, PictureOptions) and options.save is not None:
        from hftool.output.export import saved

        events = saved(events, view, options.save)
    if partial is not None:
        partial.append(FORMATS[name](events, view), view.columns if name in HEADED else None)
        return
    if name == "parquet":
        from hftool.output.parquet import write_parquet

        write_parquet((row for event in events for row in view.rows(event)), view, options.output)
        return
    terminal = options.output is None and is_terminal(sys.stdout)
    to_file = options.output and atomic_file(options.output, private=view.private)
    with to_file or nullcontext(sys.stdout) as stream:
        if name == "table":
            from hftool.output.tables.base import plain_table, table_console

            console = table_console(options.color, terminal)
            chunks = (view.table or plain_table(view))(events, console)
        else:
            chunks = FORMATS[name](events, view)
            chunks = map(visible, chunks) if terminal else chunks
        if view.at_once > 1:
            chunks = _joined(chunks, view.at_once)
        _write_chunks(chunks, stream, view.live, options.output or STDOUT)


def _write_chunks(chunks: Iterable[str], stream: TextIO, live: bool, name: Path) -> None:
    for chunk in chunks:  # what makes them may raise an OSError of its own
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

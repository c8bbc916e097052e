"""The table of `score`."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from hftool.output.tables.base import rendered
from hftool.output.view import number
from hftool.terminal import one_line

if TYPE_CHECKING:
    from hftool.generation.scoring import TextScore

HEADER = ("tokens", "surprisal", "perplexity", "text")
WIDTHS = (6, 10, 11)


def scores(records: Iterable["TextScore"], console: Console) -> Iterator[str]:
    """Render a line for each text as soon as it is scored."""
    head = "  ".join(name.rjust(width) for name, width in zip(HEADER, WIDTHS, strict=False))
    yield rendered(console, Text(f"{head}  {HEADER[-1]}", "dim"))
    for score in records:
        values = (score.tokens, score.surprisal, score.perplexity)
        cells = ("-" if value is None else number(value) for value in values)
        shown = "  ".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=True))
        text = Text(f"{shown}  {one_line(score.text)}")
        if score.error is not None:
            text.append(f"  {one_line(score.error)}", "red")
        yield rendered(console, text)

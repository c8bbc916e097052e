"""Texts in the colours of their tokens."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.containers import Lines
from rich.text import Text

from hftool.output.tables.base import shown
from hftool.output.token_spans import Span

# These differ on light and on dark backgrounds; without colours, bars separate the tokens.
TOKEN_STYLES = ("black on cyan", "black on yellow", "black on green", "black on magenta")


def token_style(index: int) -> str:
    """Return the colours of the token at an index."""
    return TOKEN_STYLES[index % len(TOKEN_STYLES)]


def colored_pieces(parts: Iterable[str], console: Console) -> Text:
    """Return parts of a text in alternating colours, or on a console without colours with a bar
    after each."""
    return colored_spans((Span(part, range(i, i + 1)) for i, part in enumerate(parts)), console)


class _TokenText(Text):
    """A text whose lines break at its tokens' `edges`, and inside a token only if it is longer than
    a line."""

    def __init__(self) -> None:
        super().__init__(overflow="fold")
        self.edges: list[int] = []

    def wrap(self, console: Console, width: int, **settings: Any) -> Lines:
        """Return the text's lines; rich calls this to render it."""
        plain, used, breaks = self.plain, 0, []
        for start, end in pairwise((0, *self.edges)):
            needed = cell_len(plain[start:end])
            if used and used + needed > width:
                breaks.append(start)
                used = 0
            used += needed
        lines = Lines()
        for line in self.divide(breaks):
            lines.extend(line.wrap(console, width, **settings))
        return lines


def colored_spans(spans: Iterable[Span], console: Console) -> Text:
    """Do the same as `colored_pieces` for spans.

    A span has the colours of its first token, underlined if several tokens share it; a span
    without tokens has no colour.
    """
    text = _TokenText()
    for span in spans:
        style = token_style(span.tokens[0]) if span.tokens else ""
        text.append(shown(span.text), f"underline {style}" if len(span.tokens) > 1 else style)
        text.append("" if console.color_system else "|")
        text.edges.append(len(text))
    return text

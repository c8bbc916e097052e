"""Shade generated text by how probable the model found it."""

import sys
from collections.abc import Iterable, Iterator

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from rich.text import Text

from hftool.errors import UsageError
from hftool.generation.records import Piece
from hftool.options.output import OutputOptions
from hftool.output.tables.base import HEAT, rendered, table_console
from hftool.terminal import is_terminal, visible

LEAST_PROBS = (0.8, 0.5, 0.2, 0.05)  # of each shade; the last one is for what is below


def require_colors(options: OutputOptions) -> None:
    """Check that the output will have the colours that `--show-probs` needs.

    Raises:
        UsageError: it won't.
    """
    terminal = options.output is None and is_terminal(sys.stdout)
    is_table = options.format == "table" or (terminal and not options.format and not options.json)
    if not is_table or table_console(options.color, terminal).color_system is None:
        raise UsageError(
            "--show-probs needs a terminal with colours",
            "elsewhere add: --format table --color always",
        )


def shade(prob: float | None) -> str:
    """Return the style of a text that has this probability; None is a text without one."""
    return "" if prob is None else HEAT[sum(prob < least for least in LEAST_PROBS)]


def shaded(piece: Piece, console: Console) -> str:
    """Return a piece's text in its shade."""
    text = visible(piece.text)
    if piece.prob is None or console.color_system is None:
        return text
    style = Style.parse(shade(piece.prob))
    lines = (style.render(line, color_system=ColorSystem.EIGHT_BIT) for line in text.split("\n"))
    return "\n".join(lines)


def legend(console: Console) -> str:
    """Return a line that explains the shades."""
    names = [*(f"≥ {least:g}" for least in LEAST_PROBS), "less"]
    line = Text("probability ", "dim")
    for name, style in zip(names, HEAT, strict=True):
        line.append(" ")
        line.append(f" {name} ", style)
    return rendered(console, line)


def shaded_text(pieces: Iterable[Piece]) -> Text:
    """Return pieces as a text, each in its shade."""
    return Text.assemble(*((visible(p.text), shade(p.prob)) for p in pieces))


def pieces_of(texts: Iterable[tuple[str, float]]) -> Iterator[Piece]:
    """Yield what each text adds to the one before, with the probability of the tokens that it took.

    Args:
        texts: the text after each token, and the probability of the token.
    """
    before, prob = "", 1.0
    for text, token_prob in texts:
        prob *= token_prob
        if len(text) > len(before):
            yield Piece(text[len(before) :], prob)
            before, prob = text, 1.0

"""Show the answers of a chat on a terminal."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style

from hftool.generation.records import Piece
from hftool.output.tables.shading import legend, shaded
from hftool.prompting.reasoning import DEFAULT
from hftool.terminal import visible

if TYPE_CHECKING:
    from hftool.chat.turns import Turn


def texts(text_of: Callable[[Any], str], events: Iterable[Any], console: Console) -> Iterator[str]:
    """Show texts, as in the text format; pieces with a probability are shaded by it, and what a
    model thinks is dim.

    Args:
        text_of: returns the text of a record, with a line break.
    """
    pieces_shown = explained = False
    for event in events:
        if isinstance(event, Piece):
            yield _styled(event, console)
            explained |= event.prob is not None
        else:
            yield "\n" if pieces_shown else _thought(event, console) + visible(text_of(event))
        pieces_shown = isinstance(event, Piece)
    if explained:
        yield legend(console)


def turns(events: Iterable["Piece | Turn"], console: Console) -> Iterator[str]:
    """Show the model's answers, as `texts` does. The user has seen the other messages already.

    As in the text format, an answer whose pieces have been shown is only ended.
    """
    pieces_shown = shades = explained = False
    for event in events:
        if isinstance(event, Piece):
            yield _styled(event, console)
            shades |= event.prob is not None
            pieces_shown = True
            continue
        if event.role == "assistant":
            if not pieces_shown:
                yield _thought(event, console) + visible(event.content)
            yield "\n"
            if shades and not explained:
                yield legend(console)
                explained = True
        pieces_shown = False


def _styled(piece: Piece, console: Console) -> str:
    if piece.prob is not None:
        return shaded(piece, console)
    dim = piece.is_reasoning and console.color_system is not None
    style = Style(dim=True) if dim else Style.null()
    return style.render(visible(piece.text), color_system=ColorSystem.STANDARD)


def _thought(record: Any, console: Console) -> str:
    """Return what a model thought before its answer, as its pieces would be shown."""
    thought = getattr(record, "reasoning", None)
    if thought is None:
        return ""
    text = f"{DEFAULT.opening}\n{thought}\n{DEFAULT.closing}\n\n"
    return _styled(Piece(text, is_reasoning=True), console)

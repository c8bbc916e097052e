"""Show the answers of a chat on a terminal."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style

from hftool.generation.records import Piece
from hftool.output.reasoning import ReasoningSplitter
from hftool.output.tables.shading import legend, shaded
from hftool.terminal import visible

if TYPE_CHECKING:
    from hftool.chat.conversation import Turn


def texts(text_of: Callable[[Any], str], events: Iterable[Any], console: Console) -> Iterator[str]:
    """Show texts, as in the text format; pieces with a probability are shaded by it.

    Args:
        text_of: returns the text of a record, with a line break.
    """
    pieces_shown = explained = False
    for event in events:
        if isinstance(event, Piece):
            yield shaded(event, console)
            explained |= event.prob is not None
        else:
            yield "\n" if pieces_shown else visible(text_of(event))
        pieces_shown = isinstance(event, Piece)
    if explained:
        yield legend(console)


def turns(
    opened: Callable[[], bool], events: Iterable["Piece | Turn"], console: Console
) -> Iterator[str]:
    """Show the model's answers, their reasoning dim. The user has seen the other messages already.

    As in the text format, an answer whose pieces have been shown is only ended.

    Args:
        opened: returns whether the prompt opens the reasoning of the next answer.
    """

    def styled(parts: Iterable[tuple[str, bool]], prob: float | None = None) -> Iterator[str]:
        for part, is_reasoning in parts:
            if prob is not None:
                yield shaded(Piece(part, prob), console)
                continue
            dim = is_reasoning and console.color_system is not None
            style = Style(dim=True) if dim else Style.null()
            yield style.render(visible(part), color_system=ColorSystem.STANDARD)

    splitter, pieces_shown = None, False
    shades = explained = False
    for event in events:
        splitter = splitter or ReasoningSplitter(opened())
        if isinstance(event, Piece):
            yield from styled(splitter.parts(event.text), event.prob)
            shades |= event.prob is not None
            pieces_shown = True
            continue
        if event.role == "assistant":
            if not pieces_shown:
                yield from styled(splitter.parts(event.content))
            yield from styled(splitter.rest())
            yield "\n"
            if shades and not explained:
                yield legend(console)
                explained = True
        splitter, pieces_shown = None, False

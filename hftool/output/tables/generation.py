"""Show the answers of a chat on a terminal."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style

from hftool.generation.records import Piece
from hftool.output.reasoning import ReasoningSplitter
from hftool.terminal import visible

if TYPE_CHECKING:
    from hftool.chat.conversation import Turn


def turns(
    opened: Callable[[], bool], events: Iterable["Piece | Turn"], console: Console
) -> Iterator[str]:
    """Show the model's answers, their reasoning dim. The user has seen the other messages already.

    As in the text format, an answer whose pieces have been shown is only ended.

    Args:
        opened: returns whether the prompt opens the reasoning of the next answer.
    """

    def styled(parts: Iterable[tuple[str, bool]]) -> Iterator[str]:
        for part, is_reasoning in parts:
            dim = is_reasoning and console.color_system is not None
            style = Style(dim=True) if dim else Style.null()
            yield style.render(visible(part), color_system=ColorSystem.STANDARD)

    splitter, pieces_shown = None, False
    for event in events:
        splitter = splitter or ReasoningSplitter(opened())
        if isinstance(event, Piece):
            yield from styled(splitter.parts(event.text))
            pieces_shown = True
            continue
        if event.role == "assistant":
            if not pieces_shown:
                yield from styled(splitter.parts(event.content))
            yield from styled(splitter.rest())
            yield "\n"
        splitter, pieces_shown = None, False

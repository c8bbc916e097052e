"""Tables of generated text."""

from collections.abc import Iterable, Iterator
from typing import Any

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style

from hftool.output.reasoning import ReasoningSplitter
from hftool.terminal import visible


def texts(events: Iterable[Any], console: Console) -> Iterator[str]:
    """Texts as they come; a record ends the line."""
    for event in events:
        yield visible(event) if isinstance(event, str) else "\n"


def turns(inside_thought: bool, events: Iterable[Any], console: Console) -> Iterator[str]:
    """The model's side of a chat, its reasoning dim; what the person typed is there already."""
    thoughts = ReasoningSplitter(inside_thought)

    def shown(parts: Iterable[tuple[str, bool]]) -> Iterator[str]:
        for part, thought in parts:
            style = Style(dim=True) if thought and console.color_system else Style.null()
            yield style.render(visible(part), color_system=ColorSystem.STANDARD)

    for event in events:
        if isinstance(event, str):
            yield from shown(thoughts.parts(event))
        elif event.role == "assistant":
            yield from shown(thoughts.rest())
            yield "\n"
            thoughts = ReasoningSplitter(inside_thought)

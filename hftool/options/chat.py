"""Options of `chat`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from hftool.errors import UsageError
from hftool.options.generation import Overflow
from hftool.options.output import ShowProbsOption
from hftool.options.shared import option


@dataclass(frozen=True)
class ChatOptions:
    """The conversation: how it begins, where it is kept, and where an answer ends.

    Raises:
        UsageError: a stop text is empty.
    """

    system: Annotated[
        str | None, option("--system", "-s", metavar="TEXT", help="System message.")
    ] = None
    system_file: Annotated[
        Path | None,
        option("--system-file", metavar="FILE", help="Read the system message from FILE."),
    ] = None
    load_from: Annotated[
        Path | None,
        option("--load", "--messages", metavar="FILE", help="Continue the chat in FILE (JSON)."),
    ] = None
    save_to: Annotated[
        Path | None, option("--save", metavar="FILE", help="Save the chat after every turn (JSON).")
    ] = None
    overflow: Annotated[
        Overflow,
        option("--overflow", help="When the context is full: drop the oldest turns, or stop."),
    ] = "drop"
    stop: Annotated[
        list[str] | None,
        option("--stop", metavar="TEXT", help="End an answer before TEXT (repeatable)."),
    ] = None
    show_probs: ShowProbsOption = False

    def __post_init__(self) -> None:
        if "" in (self.stop or ()):
            raise UsageError("a stop text is empty")

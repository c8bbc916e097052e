"""Options of `tree`."""

import functools
from dataclasses import dataclass
from typing import Annotated

from hftool.errors import UsageError
from hftool.options.shared import option

_tree = functools.partial(option, panel="Tree", common=True)


@dataclass(frozen=True)
class TreeOptions:
    """How far a tree of continuations grows.

    Raises:
        UsageError: the text that ends a path is empty.
    """

    depth: Annotated[
        int, _tree("--depth", metavar="N", min=1, help="Maximum number of tokens per path.")
    ] = 4
    branch: Annotated[
        int,
        _tree("--branch", metavar="K", min=1, help="Maximum number of continuations per token."),
    ] = 3
    cover: Annotated[
        float | None,
        _tree(
            "--cover",
            metavar="P",
            min=0,
            max=1,
            help="Show only the most probable paths, until they add up to P.",
        ),
    ] = None
    until: Annotated[
        str | None,
        _tree(
            "--until",
            metavar="TEXT",
            help="End a path with TEXT, and add up the paths to the same text.",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.until == "":
            raise UsageError("--until: the text is empty")

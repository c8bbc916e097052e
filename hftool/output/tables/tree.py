"""A tree of continuations, drawn for a terminal."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hftool.output.tables.base import bar, barred, cell, counted, rendered, shown
from hftool.output.view import number
from hftool.terminal import visible

if TYPE_CHECKING:
    from hftool.generation.tree_nodes import TreeNode, TreeText

WIDTH = 11  # of a number, with the space before it
BAR_WIDTH = 12
LEAST_TOKEN_WIDTH = 14
MOST_TOKEN_WIDTH = 30
END = " ■"  # after a token that ends a path before its maximum length


def drawn(
    prompt: str, depth: int, records: Iterable["TreeNode | TreeText"], console: Console
) -> Iterator[str]:
    """Draw a line for each node with its probability, that of its path, and a bar for the latter;
    then the sum of the paths, and the texts that they end with."""
    yield rendered(console, Text(visible(prompt), "dim"))
    texts: list[TreeText] = []
    layout: _Layout | None = None
    last: TreeNode | None = None
    paths, left_out = 0, 0.0
    for record in records:
        if record.kind == "text":
            texts.append(record)
            continue
        if layout is None:
            layout = _Layout(console, depth, sampled=record.sampled_prob is not None)
            yield layout.header()
        paths += last is not None and record.depth <= last.depth
        last = record if record.left_out is None else None
        left_out += 0.0 if record.left_out is None else record.weight
        yield layout.line(record)
    paths_and_sum = f"{counted(paths, 'path')} with probability {number(max(0.0, 1 - left_out))}"
    note = f"{paths_and_sum}; {number(left_out)} is left out"
    yield rendered(console, Text(note, "dim"))
    if texts:
        yield rendered(console, Text(), _texts(texts, console))


class _Layout:
    """The columns of a drawn tree, as many as the console has room for."""

    def __init__(self, console: Console, depth: int, *, sampled: bool) -> None:
        self._console = console
        self._names = ["prob", *["sampled"] * sampled, "path"]
        needed = depth + LEAST_TOKEN_WIDTH
        self._bar_width = BAR_WIDTH if console.width - self._numbers - BAR_WIDTH > needed else 0
        if console.width - self._numbers < needed:
            self._names = self._names[-1:]
        room = console.width - self._numbers - self._bar_width - bool(self._bar_width)
        self._width = min(room, 3 * depth + MOST_TOKEN_WIDTH)
        self._wide = 3 * depth + LEAST_TOKEN_WIDTH <= self._width
        self._most = max(1, self._width - LEAST_TOKEN_WIDTH) // (3 if self._wide else 1)

    @property
    def _numbers(self) -> int:
        return WIDTH * len(self._names)

    def header(self) -> str:
        """Return the names of the columns."""
        names = "".join(name.rjust(WIDTH) for name in self._names)
        return rendered(self._console, Text(" " * self._width + names, "dim"))

    def line(self, node: "TreeNode") -> str:
        """Return the line of a node."""
        text = Text(self._guides(node), "dim")
        if node.left_out is None:
            token = Text(shown(node.token or ""), "bold")
            token.append(END if node.ended else "", "dim")
        else:
            token = Text(f"({node.left_out:,} others)", "dim")
        token.truncate(max(1, self._width - cell_len(text.plain)), overflow="ellipsis")
        text.append_text(token)
        text.pad_right(self._width - text.cell_len)
        values = {"prob": node.prob, "sampled": node.sampled_prob, "path": node.weight}
        style = "" if node.left_out is None else "dim"
        for name in self._names:
            text.append(number(values[name] or 0.0).rjust(WIDTH), style)
        text.append(" " + bar(node.weight, self._bar_width), "green" if not style else "dim")
        return rendered(self._console, text)

    def _guides(self, node: "TreeNode") -> str:
        """Return the lines that lead to a node. Something is left out after every path, and is the
        last thing there, so that a line goes on beside all that follows a node."""
        last = node.left_out is not None
        before = min(node.depth, self._most) - 1
        if self._wide:
            return "│  " * before + ("└─ " if last else "├─ ")
        return "│" * before + ("└ " if last else "├ ")


def _texts(texts: list["TreeText"], console: Console) -> Table:
    sampled = any(text.sampled_prob is not None for text in texts)
    names = ("text", "paths", "prob", *("sampled",) * sampled)
    rows = [
        (
            *(Text(shown(t.text), "bold"), cell(t.paths), cell(t.prob)),
            *((cell(t.sampled_prob),) * sampled),
        )
        for t in texts
    ]
    return barred(console, names, rows, [t.weight for t in texts], "green")

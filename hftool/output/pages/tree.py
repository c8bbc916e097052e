"""A tree of continuations as an HTML page that unfolds."""

from collections.abc import Iterable, Iterator
from html import escape
from typing import TYPE_CHECKING

from hftool.output.pages.page import render
from hftool.output.tables.base import counted, shown
from hftool.output.view import number
from hftool.terminal import visible

if TYPE_CHECKING:
    from hftool.generation.tree_nodes import TreeNode, TreeText

OPEN_DEPTH = 2  # nodes up to this depth are unfolded at first


def tree_page(prompt: str, records: Iterable["TreeNode | TreeText"]) -> str:
    """Return a page with the nodes of a tree, each of which shows and hides what follows it."""
    nodes: list[TreeNode] = []
    texts: list[TreeText] = []
    for record in records:
        texts.append(record) if record.kind == "text" else nodes.append(record)
    left_out = sum(node.weight for node in nodes if node.left_out is not None)
    return render(
        "tree",
        prompt=visible(prompt),
        tree="".join(_nodes(nodes)),
        left_out=number(left_out),
        texts="".join(_texts(texts)),
    )


def _nodes(nodes: list["TreeNode"]) -> Iterator[str]:
    """Yield the HTML of nodes, each of which comes before those that follow it."""
    for i, node in enumerate(nodes):
        if i + 1 < len(nodes) and nodes[i + 1].depth > node.depth:
            opened = " open" if node.depth <= OPEN_DEPTH else ""
            yield f"<details{opened}><summary>{_content(node)}</summary>\n<div>\n"
            continue
        kind = "rest" if node.left_out is not None else "end" if node.ended else ""
        yield f'<div class="leaf {kind}">{_content(node)}</div>\n'
        after = nodes[i + 1].depth if i + 1 < len(nodes) else 1
        yield "</div></details>\n" * (node.depth - after)


def _content(node: "TreeNode") -> str:
    if node.left_out is not None:
        name = f"<span>{counted(node.left_out, 'other token')}</span>"
    else:
        name = f"<b>{escape(shown(node.token or ''))}</b>"
    prob = node.prob if node.sampled_prob is None else node.sampled_prob
    numbers = f"{number(prob)} · {number(node.weight)}"
    return f'<i style="--p:{node.weight:.1%}"></i>{name}<small>{numbers}</small>'


def _texts(texts: list["TreeText"]) -> Iterator[str]:
    """Yield a table of the texts that paths end with."""
    if texts:
        yield "<table>\n"
        for text in texts:
            paths = counted(text.paths, "path")
            cells = f"<td>{number(text.weight)}</td><td>{paths}</td>"
            yield f"<tr><td><code>{escape(visible(text.text))}</code></td>{cells}</tr>\n"
        yield "</table>\n"

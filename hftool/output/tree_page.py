"""A tree of continuations as an HTML page that unfolds."""

from collections.abc import Iterable, Iterator
from html import escape
from typing import TYPE_CHECKING

from hftool.output.tables.base import counted, shown
from hftool.output.view import number
from hftool.terminal import visible

if TYPE_CHECKING:
    from hftool.generation.tree_nodes import TreeNode, TreeText

OPEN_DEPTH = 2  # nodes up to this depth are unfolded at first
PAGE = """\
<!DOCTYPE html>
<html>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>hftool</title>
<style>
:root { color-scheme: light dark; --bar: rgb(60 170 60 / .55); --line: rgb(128 128 128 / .4) }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
code, summary, .leaf { font: 15px/1.7 ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace }
code { white-space: pre-wrap; overflow-wrap: anywhere }
details > :not(summary) { margin-left: .45em; padding-left: .9em;
  border-left: 1px solid var(--line) }
summary, .leaf { display: flex; gap: .6em; align-items: baseline; cursor: pointer }
summary::before { content: "▸"; width: 1em; flex: none }
details[open] > summary::before { content: "▾" }
summary::-webkit-details-marker { display: none }
.leaf { cursor: default }
.leaf::before { content: ""; width: 1em; flex: none }
.leaf.end::before { content: "■"; font-size: .7em; width: 1.43em }
b { overflow-wrap: anywhere; min-width: 2ch }
i { flex: none; width: 5em; height: .7em; border-radius: 3px; align-self: center;
  background: linear-gradient(90deg, var(--bar) var(--p), rgb(128 128 128 / .15) var(--p)) }
small { color: GrayText; flex: none; font-size: 13px }
p, .rest { color: GrayText }
td { padding: .1em 1em .1em 0; vertical-align: top }
td:not(:first-child) { text-align: right; white-space: nowrap }
summary:hover, .leaf:hover { background: rgb(128 128 128 / .12) }
</style>
</head>
<body>
<p><code>PROMPT</code></p>
<p><button id="all">Unfold all</button> <button id="none">Fold all</button>
the probability after the token before, and of the whole path</p>
TREE<p>SUM</p>
TEXTS<script>
for (const [id, open] of [["all", true], ["none", false]])
  document.getElementById(id).onclick = () =>
    document.querySelectorAll("details").forEach(node => node.open = open);
</script>
</body>
</html>
"""


def tree_page(prompt: str, records: Iterable["TreeNode | TreeText"]) -> str:
    """Return a page with the nodes of a tree, each of which shows and hides what follows it."""
    nodes: list[TreeNode] = []
    texts: list[TreeText] = []
    for record in records:
        texts.append(record) if record.kind == "text" else nodes.append(record)
    left_out = sum(node.weight for node in nodes if node.left_out is not None)
    parts = {
        "PROMPT": escape(visible(prompt)),
        "TREE": "".join(_nodes(nodes)),
        "SUM": f"{number(left_out)} of the probability is left out",
        "TEXTS": "".join(_texts(texts)),
    }
    before, *rest = PAGE.split("PROMPT")
    page = before + parts["PROMPT"] + rest[0]
    for name in ("TREE", "SUM", "TEXTS"):
        head, _, tail = page.rpartition(name)
        page = head + parts[name] + tail
    return page


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

"""The view of `tree`."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from hftool.output.view import Row, View, escaped, line, plain

if TYPE_CHECKING:
    from hftool.generation.tree_nodes import TreeNode, TreeText

COLUMNS = ("depth", "path", "id", "token", "text", "prob", "path_prob", "ended", "left_out")
SAMPLED = ("sampled_prob", "sampled_path_prob")


def tree_view(prompt: str, *, depth: int, sampled: bool) -> View:
    """Return the view of the nodes of a tree.

    Args:
        prompt: the text that the tree continues.
        depth: the maximum number of tokens per path.
        sampled: whether nodes have a probability after the filters.
    """

    def table(records: Iterable[Any], console: Any) -> Iterator[str]:
        from hftool.output.tables.tree import drawn

        return drawn(prompt, depth, records, console)

    def page(records: list[Any]) -> str:
        from hftool.output.pages.tree import tree_page

        return tree_page(prompt, records)

    return View(
        columns=(*COLUMNS, *SAMPLED * sampled),
        text=_text,
        rows=_rows,
        table=table,
        page=page,
        token_columns=("token", "text"),
    )


def _text(record: "TreeNode | TreeText") -> str:
    sampled = record.sampled_prob
    after = () if sampled is None else (sampled,)
    if record.kind == "text":
        return line("text", record.paths, record.prob, *after, escaped(record.text))
    of_path = () if sampled is None else (record.sampled_path_prob,)
    text = f"{record.left_out} left out" if record.text is None else escaped(record.text)
    return line(record.depth, record.id, record.prob, record.path_prob, *after, *of_path, text)


def _rows(record: "TreeNode | TreeText") -> list[Row]:
    if record.kind == "text":
        return []
    row = plain(record)
    return [{**row, "path": " ".join(map(str, row["path"]))}]

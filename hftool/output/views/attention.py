"""The view of `topk --attention`."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hftool.output.view import Row, View, escaped, line, plain

if TYPE_CHECKING:
    from hftool.generation.attention import AttentionMap, HeadAttention

COLUMNS = ("attention", "layer", "head", "position", "token", "to", "to_token", "weight")


def attention_view(model: str, maps: Sequence["AttentionMap"], k: int) -> View:
    """Return the view of what heads look at: in csv and tsv a row for each token that they see.

    Args:
        model: the name of the model.
        maps: all weights, for the page.
        k: how many tokens text and tables show.
    """
    keys: dict[str, tuple[str, ...]] = {each.kind: each.keys for each in maps}

    def best(head: "HeadAttention") -> list[tuple[float, int]]:
        weights = ((weight, i) for i, weight in enumerate(head.weights))
        return sorted(weights, key=lambda pair: (-pair[0], pair[1]))[:k]

    def text(head: "HeadAttention") -> str:
        pairs = ((i, weight, escaped(keys[head.attention][i])) for weight, i in best(head))
        cells = (cell for pair in pairs for cell in pair)
        return line(head.attention, head.layer, head.head, *cells)

    def rows(head: "HeadAttention") -> Iterator[Row]:
        row = plain(head)
        for i, weight in enumerate(row.pop("weights")):
            yield {**row, "to": i, "to_token": keys[head.attention][i], "weight": weight}

    def table(records: Iterable[Any], console: Any) -> Iterator[str]:
        from hftool.output.tables.attention import mean_attention

        return mean_attention(records, keys, k, console)

    def page(_: list[Any]) -> str:
        from hftool.output.pages.attention import attention_page

        return attention_page(model, maps)

    return View(columns=COLUMNS, text=text, rows=rows, table=table, page=page)

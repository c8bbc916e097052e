"""The view of `topk --layers`."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from hftool.output.view import Row, View, escaped, line, plain

if TYPE_CHECKING:
    from hftool.generation.layers import Layer

SOURCE = ("index", "model", "mask")
COLUMNS = (
    *("layer", "position", "rank", "id", "token", "prob"),
    *("answer_id", "answer", "answer_prob", "answer_rank", "entropy"),
)


def layers_view(*, models: bool, texts: bool) -> View:
    """Return the view of what each layer would predict: in csv and tsv a row for each candidate.

    Args:
        models: whether there are several models.
        texts: whether there are several texts.
    """
    return View(
        columns=(*("index",) * texts, *("model",) * models, *COLUMNS, "mask"),
        text=_text,
        rows=_rows,
        table=_table,
    )


def _text(layer: "Layer") -> str:
    source = [getattr(layer, name) for name in SOURCE if getattr(layer, name) is not None]
    best = (escaped(candidate.token) for candidate in layer.candidates)
    return line(*source, layer.layer, layer.answer_prob, layer.answer_rank, *best)


def _rows(layer: "Layer") -> Iterator[Row]:
    row = plain(layer)
    for rank, candidate in enumerate(row.pop("candidates"), 1):
        yield {**row, "rank": rank, **candidate}


def _table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables.layers import layers

    return layers(records, console)

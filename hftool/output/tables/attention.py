"""The table of what the heads of each layer look at, on average."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from hftool.output.tables.base import NO_BREAK, barred, cell, rendered, shown
from hftool.output.view import number

if TYPE_CHECKING:
    from hftool.generation.attention import HeadAttention


def mean_attention(
    records: Iterable["HeadAttention"],
    keys: Mapping[str, Sequence[str]],
    k: int,
    console: Console,
) -> Iterator[str]:
    """Render a row for each layer with the `k` tokens of the largest mean weight over its heads.

    Args:
        keys: the tokens that are looked at, by the kind of attention.
    """
    for kind, of_kind in groupby(records, key=lambda record: record.attention):
        rows = []
        for layer, of_layer in groupby(of_kind, key=lambda record: record.layer):
            heads = list(of_layer)
            means = [sum(at) / len(heads) for at in zip(*(h.weights for h in heads), strict=True)]
            best = sorted(range(len(means)), key=lambda i: (-means[i], i))[:k]
            tokens = Text("  ").join(_weighed(keys[kind][i], means[i]) for i in best)
            rows.append((cell(layer), tokens))
        title = "tokens, by the mean weight of the heads"
        table = barred(console, ("layer", title), rows, [], "")
        yield rendered(console, table).replace(NO_BREAK, " ")
        note = f"{kind} attention of {shown(heads[0].token)}, position {heads[0].position}"
        yield rendered(console, Text(note, "dim"))


def _weighed(token: str, weight: float) -> Text:
    """Return a token and its weight, which are not put on two lines."""
    return Text.assemble((shown(token), "bold"), f"{NO_BREAK}{number(weight)}")

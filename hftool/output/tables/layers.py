"""The table of what each layer would predict."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from hftool.output.tables.base import barred, cell, rendered, shown
from hftool.terminal import one_line

if TYPE_CHECKING:
    from hftool.generation.layers import Layer

BEST_WIDTH = 36  # of the best tokens of a layer, as many as fit


def layers(records: Iterable["Layer"], console: Console) -> Iterator[str]:
    """Render a row for each layer, with a bar for the probability of the answer."""
    for (_, model, _, _), group in groupby(
        records, key=lambda r: (r.index, r.model, r.mask, r.answer_id)
    ):
        rows = list(group)
        if model is not None:
            yield rendered(console, Text(one_line(model), "dim"))
        names = ("layer", "best tokens", "prob", "rank")
        cells = [(cell(r.layer), _best(r), cell(r.answer_prob), cell(r.answer_rank)) for r in rows]
        shares = [r.answer_prob for r in rows]
        last = rows[-1]
        place = "after" if last.mask is None else "mask at"
        note = f"prob and rank are those of {shown(last.answer)}, {place} position {last.position}"
        yield rendered(console, barred(console, names, cells, shares, "green"), Text(note, "dim"))


def _best(layer: "Layer") -> Text:
    """Return the most probable tokens of a layer, as many as fit; the answer is green."""
    best = Text()
    for candidate in layer.candidates:
        style = "bold green" if candidate.id == layer.answer_id else ""
        token = Text(shown(candidate.token), style)
        if best and best.cell_len + token.cell_len + 2 > BEST_WIDTH:
            break
        best.append("  " if best else "").append_text(token)
    return best

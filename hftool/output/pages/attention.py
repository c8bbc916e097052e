"""A page of attention: the heads of all layers, and lines between the tokens that they connect."""

import base64
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hftool.errors import HftoolError
from hftool.output.pages.page import render
from hftool.output.tables.base import shown
from hftool.output.view import number

if TYPE_CHECKING:
    import torch

    from hftool.generation.attention import AttentionMap

MOST_BYTES = 3_600_000  # compressed; as base64 they are a third more, and the page is below 5 MB
STEPS = 255  # a weight is one byte
FLOORS = (0.0, 0.01, 0.02, 0.04, 0.08, 0.15)  # weights below are left out if the page gets too big
TITLES = {
    "self": "self-attention",
    "encoder": "encoder",
    "decoder": "decoder",
    "cross": "cross-attention: text to source",
}


def attention_page(name: str, maps: Sequence["AttentionMap"]) -> str:
    """Return a page that needs no other files, of less than 5 MB.

    Args:
        name: that of the model.

    Raises:
        HftoolError: the text is too long for such a page.
    """
    data, floor = _compressed(maps)
    content = {
        "maps": [
            {
                "title": TITLES[each.kind],
                "queries": [shown(token) for token in each.queries],
                "keys": [shown(token) for token in each.keys],
                "layers": list(each.layers),
                "heads": [len(weights) for weights in each.layers.values()],
                "position": each.position,
            }
            for each in maps
        ],
        "floor": f"Weights below {number(floor)} are left out. " if floor else "",
        "data": base64.b64encode(data).decode("ascii"),
    }
    return render("attention", name=name, content=content)


def _compressed(maps: Sequence["AttentionMap"]) -> tuple[bytes, float]:
    """Return all weights as bytes, compressed, and the weight below which they had to be left out.

    Raises:
        HftoolError: they take too much in any case.
    """
    for floor in FLOORS:
        packer = zlib.compressobj(6)
        parts = [
            packer.compress(_bytes(weights, floor))
            for each in maps
            for weights in each.layers.values()
        ]
        data = b"".join([*parts, packer.flush()])
        if len(data) <= MOST_BYTES:
            return data, floor
    tokens = max(len(each.keys) for each in maps)
    raise HftoolError(
        f"the attention between {tokens} tokens makes a page of more than 5 MB",
        "shorten the text: `hftool encode --max-tokens N` shows where it would be cut",
    )


def _bytes(weights: "torch.Tensor", floor: float) -> bytes:
    steps: Any = (weights.clamp(0, 1) * STEPS).round()
    steps[weights < floor] = 0
    data: bytes = steps.byte().numpy().tobytes()
    return data

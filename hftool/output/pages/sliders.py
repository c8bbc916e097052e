"""An HTML page of next-token probabilities that sliders change."""

from collections.abc import Iterable
from typing import Any

from hftool.generation.records import Distribution
from hftool.output.pages.page import render
from hftool.output.tables.base import shown
from hftool.terminal import one_line, visible

SHOWN = 40  # tokens
NEVER = -1e6  # in the place of the logarithm of 0, which JSON does not have


def slider_page(records: Iterable[Any]) -> str:
    """Return a page with a table for each distribution, and sliders for the four filters that most
    programs have. A fragment such as `#temperature=0.5&top-k=3` sets them."""
    contents = [_content(record) for record in records if isinstance(record, Distribution)]
    return render("sliders", distributions=contents, shown=SHOWN)


def _content(d: Distribution) -> dict[str, object]:
    mask = "" if d.mask is None else f"mask at position {d.position}"
    return {
        "title": " ".join(filter(None, (one_line(d.model or ""), mask))),
        "prompt": visible(d.prompt),
        "ids": d.ids,
        "tokens": [shown(token) for token in d.tokens],
        "logprobs": [_number(logprob) for logprob in d.logprobs],
        "others": d.others,
        "rest": [_number(rest) for rest in d.rest],
        "entropy": d.entropy,
        "settings": d.settings,
    }


def _number(value: float) -> float:
    return round(max(value, NEVER), 6)

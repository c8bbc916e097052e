"""An HTML page that plays how the tokens of a text came about, step by step."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from hftool.output.pages.page import render
from hftool.terminal import visible

if TYPE_CHECKING:
    from hftool.tokenization.explain import ExplainedPart, Explanation


Frame = dict[str, object]
Shown = list[tuple[str, bool] | tuple[str, bool, int]]
"""The tokens of a part, whether the step has made each, and at the end its id."""


def explanation_page(records: Iterable["Explanation"]) -> str:
    """Return a page whose frames are the text, the normalized text, its parts, and each step."""
    frames = [frame for record in records for frame in _frames(record)]
    return render("explanation", frames=frames)


def _frames(record: "Explanation") -> Iterator[Frame]:
    yield _frame("The text", [[(record.text, False)]])
    yield _frame("After the normalizer", [[(record.normalized, False)]])
    parts: list[Shown] = [[(part.text, False)] for part in record.parts]
    yield _frame("After the splitter", parts)
    for i, part in enumerate(record.parts):
        for title, shown in _steps(part):
            parts[i] = shown
            yield _frame(f"{record.model}: {title}", parts)
        parts[i] = [(token, False) for token in part.tokens]
    final = (zip(part.tokens, part.ids, strict=True) for part in record.parts)
    yield _frame("The tokens", [[(token, False, i) for token, i in part] for part in final])


def _steps(part: "ExplainedPart") -> Iterator[tuple[str, Shown]]:
    if part.steps and part.start:
        yield "the symbols of a part", [(symbol, False) for symbol in part.start]
    made: Shown = []
    for step in part.steps:
        if step.tokens is not None:  # a merge
            title = f"merge {step.rank}: {step.left} + {step.right}"
            yield title, [(token, token == step.token) for token in step.tokens]
            continue
        made.append((step.token, True))
        rest = [(step.rest, False)] if step.rest else []
        score = "" if step.score is None else f", score {step.score:.4g}"
        yield f"{step.token}{score}", [*made, *rest]


def _frame(title: str, parts: list[Shown]) -> Frame:
    return {
        "title": visible(title),
        "parts": [[(visible(token), *marks) for token, *marks in part] for part in parts],
    }

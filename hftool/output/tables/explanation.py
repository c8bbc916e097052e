"""Tables of how the tokens of texts came about."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from hftool.output.tables.base import barred, rendered, shown
from hftool.output.view import number
from hftool.terminal import one_line

if TYPE_CHECKING:
    from hftool.tokenization.explain import ExplainedPart, ExplainedStep, Explanation

NEW = "bold yellow"
STEPS = {"BPE": "merge", "WordPiece": "longest match", "Unigram": "best path"}

_Row = tuple[Text, Text, Text]


def explanations(records: Iterable["Explanation"], console: Console) -> Iterator[str]:
    """Render a table for each text: of each part what the splitter gives, a row for each step, and
    the tokens with their ids. What a step has made is yellow."""
    for record in records:
        if record.normalized != record.text:
            yield rendered(console, Text(f"normalized: {one_line(record.normalized)}", "dim"))
        rows = [row for part in record.parts for row in _rows(part)]
        names = ("part", STEPS.get(record.model, ""), "tokens")
        yield rendered(console, barred(console, names, rows, [], ""))


def _rows(part: "ExplainedPart") -> Iterator[_Row]:
    name = Text(shown(part.text), "bold")
    if part.start and part.steps:
        yield name, Text("symbols", "dim"), _joined(part.start)
        name = Text()
    made: list[str] = []
    for step in part.steps:
        made.append(step.token)
        yield name, _step(step), _tokens(step, made)
        name = Text()
    ids = zip(part.tokens, part.ids, strict=True)
    tokens = (Text.assemble((shown(token), "green"), (f" {i}", "dim")) for token, i in ids)
    yield name, Text("an added token" if part.added else "ids", "dim"), Text("  ").join(tokens)


def _step(step: "ExplainedStep") -> Text:
    if step.rank is not None:
        pair = f"{shown(step.left or '')} + {shown(step.right or '')}"
        return Text.assemble((f"{step.rank}: ", "dim"), pair)
    score = () if step.score is None else ((f" {number(step.score)}", "dim"),)
    return Text.assemble(shown(step.token), *score)


def _tokens(step: "ExplainedStep", made: Sequence[str]) -> Text:
    """Return what a part is after a step."""
    if step.tokens is not None:
        return _joined(step.tokens, new=step.token)
    rest = [Text(shown(step.rest), "dim")] if step.rest else []
    return Text(" ").join([_joined(made, new=step.token), *rest])


def _joined(tokens: Sequence[str], new: str | None = None) -> Text:
    return Text(" ").join(Text(shown(t), NEW if t == new else "") for t in tokens)

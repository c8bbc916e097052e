"""What a person sees of `sentiment`."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from hftool.output.tables.base import bar, barred, cell, rendered
from hftool.terminal import one_line

if TYPE_CHECKING:
    from hftool.classification.classify import Classification
    from hftool.classification.summary import LabelSummary

STYLES = {"POSITIVE": "green", "NEGATIVE": "red", "UNCERTAIN": "yellow"}
LEAST_WIDTH = 12  # of the label
BAR_WIDTH = 8
LEVELS = " ▁▂▃▄▅▆▇█"


def classifications(
    labels: Sequence[str], all_scores: bool, records: Iterable["Classification"], console: Console
) -> Iterator[str]:
    """Aligned lines, each as soon as it is known; with `all_scores` the other labels under it."""
    width = max([LEAST_WIDTH, *(cell_len(one_line(label)) + 2 for label in labels)])
    for judgement in records:
        text = _judged(judgement.label, judgement.score, width, "bold")
        text.append(one_line(judgement.text), "default")
        yield rendered(console, text)
        if all_scores:
            others = sorted(judgement.scores.items(), key=lambda item: -item[1])
            for label, score in others:
                if label != judgement.label:
                    yield rendered(console, _judged(label, score, width, "dim"))


def _judged(label: str, score: float | None, width: int, style: str) -> Text:
    name = Text(one_line(label), STYLES.get(label, style) if style == "bold" else style)
    name.pad_right(width - name.cell_len)
    name.append("" if score is None else f"{score:.4f}".rjust(6), "default")
    name.pad_right(width + 7 - name.cell_len)
    name.append(f"{bar(score or 0.0, BAR_WIDTH):<{BAR_WIDTH}}  ", "dim")
    return name


def summary(records: Iterable["LabelSummary"], console: Console) -> Iterator[str]:
    """A row a label: how many texts got it, how sure, and how the scores lie between 0 and 1."""
    found = list(records)
    rows = [
        (
            Text(one_line(s.label) or "(empty)", STYLES.get(s.label, "bold")),
            *(cell(s.count), Text(f"{s.share:.1%}", justify="right"), cell(s.mean_score)),
            Text(_levels(s.histogram)),
        )
        for s in found
    ]
    names = ("label", "texts", "share", "mean score", "0 scores 1")
    yield rendered(console, barred(console, names, rows, [s.share for s in found], "green"))


def _levels(histogram: Sequence[int]) -> str:
    """Counts as columns of eighths, the highest one full; what is there at all is seen."""
    most = max(histogram) or 1
    return "".join(LEVELS[max(count > 0, round(8 * count / most))] for count in histogram)

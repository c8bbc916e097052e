"""Tables of classifications and of their summaries."""

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
LEAST_WIDTH = 12  # of the column of labels
BAR_WIDTH = 8
LEVELS = " ▁▂▃▄▅▆▇█"
BIN_WIDTH = 2  # characters of a tenth of the scores
SCORES = "0      scores      1"  # as wide as the histogram below it


def classifications(
    labels: Sequence[str], all_scores: bool, records: Iterable["Classification"], console: Console
) -> Iterator[str]:
    """Render a line for each text, and with `all_scores` one for each other label under it."""
    width = max([LEAST_WIDTH, *(cell_len(one_line(label)) + 2 for label in labels)])
    for classification in records:
        text = _labelled(classification.label, classification.score, width, "bold")
        text.append(one_line(classification.text), "default")
        yield rendered(console, text)
        if all_scores:
            best_first = sorted(classification.scores.items(), key=lambda item: -item[1])
            for label, score in best_first:
                if label != classification.label:
                    yield rendered(console, _labelled(label, score, width, "dim"))


def _labelled(label: str, score: float | None, width: int, style: str) -> Text:
    """Return a label, its score, and a bar for it."""
    text = Text(one_line(label), STYLES.get(label, style) if style == "bold" else style)
    text.pad_right(width - text.cell_len)
    text.append("" if score is None else f"{score:.4f}".rjust(6), "default")
    text.pad_right(width + 7 - text.cell_len)
    text.append(f"{bar(score or 0.0, BAR_WIDTH):<{BAR_WIDTH}}  ", "dim")
    return text


def summary(records: Iterable["LabelSummary"], console: Console) -> Iterator[str]:
    """Render a row for each label: how many texts got it, their mean score, and the histogram of
    their scores."""
    summaries = list(records)
    styles = [STYLES.get(s.label, "cyan") for s in summaries]
    rows = [
        (
            Text(one_line(s.label) or "(empty)", f"bold {style}"),
            *(cell(s.count), Text(f"{s.share:.1%}", justify="right"), cell(s.mean_score)),
            Text(_levels(s.histogram), style),
        )
        for s, style in zip(summaries, styles, strict=True)
    ]
    names = ("label", "texts", "share", "mean score", SCORES)
    shares = [s.share for s in summaries]
    yield rendered(console, barred(console, names, rows, shares, styles, drop=(SCORES,)))


def _levels(histogram: Sequence[int]) -> str:
    """Return counts as columns of up to eight eighths, relative to the highest: a count above 0
    has at least one, and 0 is a dot."""
    most = max(histogram) or 1
    levels = (LEVELS[max(1, round(8 * count / most))] if count else "·" for count in histogram)
    return "".join(level * BIN_WIDTH for level in levels)

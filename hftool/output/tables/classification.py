"""Tables of classifications and of their summaries."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.text import Text

from hftool.output.tables.base import bar, barred, cell, counted, fits, rendered, right
from hftool.output.view import number
from hftool.terminal import one_line

if TYPE_CHECKING:
    from hftool.classification.classify import Classification
    from hftool.classification.evaluation import Evaluation
    from hftool.classification.summary import LabelSummary

STYLES = {"POSITIVE": "green", "NEGATIVE": "red", "UNCERTAIN": "yellow"}
LEAST_WIDTH = 12  # of the column of labels
BAR_WIDTH = 8
FREQUENT = 10  # mistakes to list where the matrix of labels is too wide
LEVELS = " ▁▂▃▄▅▆▇█"
BIN_WIDTH = 2  # characters of a tenth of the scores
SCORES = "0      scores      1"  # as wide as the histogram below it


def classifications(
    labels: Sequence[str], all_scores: bool, records: Iterable["Classification"], console: Console
) -> Iterator[str]:
    """Render a line for each text, and under it the error of one that failed, and with `all_scores`
    one for each other label."""
    width = max([LEAST_WIDTH, *(cell_len(one_line(label)) + 2 for label in labels)])
    for classification in records:
        text = _labelled(classification.label, classification.score, width, "bold")
        text.append(one_line(classification.text), "default")
        yield rendered(console, text)
        if classification.error is not None:
            yield rendered(console, Text(one_line(classification.error), "red"))
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


def evaluation(records: Iterable["Evaluation"], console: Console) -> Iterator[str]:
    """Render the accuracy, then tables by label, of right and given labels, by score, and of the
    worst mistakes."""
    for e in records:
        low, high = e.accuracy_interval
        lines = [
            f"accuracy {number(e.accuracy)} ({number(low)} to {number(high)} at 95 %):"
            f" {e.correct:,} of {counted(e.texts, 'text')}",
            f"macro-F1 {number(e.macro_f1)}",
        ]
        if e.micro_f1 is not None:
            lines[0] += " exactly right"
            lines.append(f"micro-F1 {number(e.micro_f1)}")
        if e.calibration_error is not None:
            lines.append(f"calibration error {number(e.calibration_error)}")
        if e.no_gold:
            lines.append(f"{counted(e.no_gold, 'row')} without a right label left out")
        yield rendered(console, Text("\n".join(lines)), Text())
        yield rendered(console, _by_label(e, console))
        if e.confusion:
            yield rendered(console, Text(), _confusion(e, console))
        if e.calibration:
            yield rendered(console, Text(), _calibration(e, console))
        if e.mistakes:
            yield rendered(console, Text(), _mistakes(e, console))


def _by_label(e: "Evaluation", console: Console) -> RenderableType:
    names = (
        *("label", "texts", "given", "precision", "at 95 %", "recall", "at 95 % ", "F1"),
        *("best F1", "from score"),
    )
    rows = [
        (
            *(_name(x.label), cell(x.support), cell(x.predicted), cell(x.precision)),
            *(_interval(x.precision_interval), cell(x.recall), _interval(x.recall_interval)),
            *(cell(x.f1), cell(x.best_f1), cell(x.best_threshold)),
        )
        for x in e.labels
    ]
    drop = ("at 95 % ", "at 95 %", "best F1", "from score", "given")
    return barred(console, names, rows, [], "", drop=drop)


def _interval(interval: tuple[float, float] | None) -> Text:
    return Text() if interval is None else right(f"{interval[0]:.3f}–{interval[1]:.3f}")


def _name(label: str) -> Text:
    return Text(one_line(label) or "(empty)", STYLES.get(label, "bold"))


def _confusion(e: "Evaluation", console: Console) -> RenderableType:
    """Return the matrix of right and given labels, or if that is too wide the frequent mistakes."""
    given = [*next(iter(e.confusion.values()))]
    names = ["right \\ given", *(one_line(label) or "(empty)" for label in given)]
    rows = [
        (_name(label), *(_count(counts[x], x == label) for x in given))
        for label, counts in e.confusion.items()
    ]
    if fits(console, names, rows):
        return barred(console, names, rows, [], "")
    pairs = [(n, label, x) for label, counts in e.confusion.items() for x, n in counts.items()]
    worst = sorted((p for p in pairs if p[0] and p[1] != p[2]), key=lambda p: -p[0])[:FREQUENT]
    listed = [(_name(label), _name(x), right(f"{n:,}")) for n, label, x in worst]
    return barred(console, ("right", "given", "texts"), listed, [], "")


def _count(count: int, is_right: bool) -> Text:
    return Text(f"{count:,}", "bold" if is_right else "" if count else "dim", justify="right")


def _calibration(e: "Evaluation", console: Console) -> RenderableType:
    bins = [b for b in e.calibration if b.count]
    rows = [
        (right(f"{b.low:.1f}–{b.high:.1f}"), cell(b.count), cell(b.mean_score), cell(b.accuracy))
        for b in bins
    ]
    names = ("score", "texts", "mean score", "accuracy")
    return barred(console, names, rows, [b.accuracy or 0.0 for b in bins], "green")


def _mistakes(e: "Evaluation", console: Console) -> RenderableType:
    rows = [
        (_name(m.gold), _name(m.label), cell(m.score), Text(one_line(m.text)))
        for m in e.mistakes or ()
    ]
    return barred(console, ("right", "given", "score", "text"), rows, [], "")

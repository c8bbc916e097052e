"""The parts that all tables are made of: consoles, cells, columns and bars."""

import io
import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, zip_longest
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from hftool.options.output import Color
from hftool.output.formats import records_only
from hftool.output.view import Row, View, number
from hftool.terminal import one_line

BLOCK = 200  # rows to measure and to render together
LISTED = 40  # rows of a long listing that a terminal shows
BAR_SHARE = 3  # a bar takes at most 1/3 of the width
LEAST_BAR_WIDTH = 6
LEAST_CONSOLE_WIDTH = 20
GAP = 2
FOLDED_WIDTH = 12  # a column of texts is folded down to this width to make others fit
# Unusual spaces, soft hyphen, joiners, variation selectors, tags.
_INVISIBLE = re.compile(
    "[\u00a0\u00ad\u034f\u180e\u2000-\u200d\u202f\u205f-\u2064\u3000\ufe00-\ufe0f\ufeff"
    "\U000e0000-\U000e01ef]"
)
# From expected to surprising; with its own foreground, each can be read on light and on dark.
HEAT = ("default", "black on #ffe3c2", "black on #ffc48a", "black on #ff9a52", "white on #d9480f")
NO_BREAK = "\u00a0"  # between what belongs on one line; the rendered text has a space there
EIGHTHS = " ▏▎▍▌▋▊▉█"


def table_console(color: Color, terminal: bool) -> Console:
    """Return a console that renders to text, as wide as the terminal."""
    supported = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    colored = color == "always" or (color == "auto" and supported)
    return Console(
        file=io.StringIO(),
        force_terminal=colored,
        no_color=not colored,
        color_system="256" if colored else None,
        width=max(LEAST_CONSOLE_WIDTH, shutil.get_terminal_size((80, 24)).columns),
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )


def rendered(console: Console, *parts: RenderableType) -> str:
    """Render parts to text, without trailing spaces.

    A line that cannot be as narrow as the console is longer, rather than cut off.
    """
    with console.capture() as capture:
        for part in parts:
            console.print(part, crop=False)
    lines = capture.get().split("\n")
    return "\n".join(line.rstrip(" ") for line in lines)


def cell(value: Any) -> Text:
    """Return a value for a table, with visible control characters and short numbers."""
    if value is None:
        return Text("")
    if isinstance(value, float):
        return right(number(value))
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int):
        return right(str(value))
    return Text(one_line(str(value)))


def right(number: str) -> Text:
    """Return a number that is text already, such as "542 MB", for a column of numbers."""
    return Text(number, justify="right")


def counted(count: int, noun: str) -> str:
    """Format a number of things: "1 token", "2 tokens"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def entropies(record: Any) -> str:
    """Return the entropy of a record's distribution, and what the sampling filters make of it; an
    empty text if it has none."""
    before, after = record.entropy, record.sampled_entropy
    if before is None:
        return ""
    changed = after is not None and number(after) != number(before)
    return (
        f"entropy {number(before)} bits" + changed * f", {number(after or 0.0)} after the filters"
    )


def bar(share: float, width: int) -> str:
    """Return a bar that fills `share` (0 to 1) of `width` characters, in steps of an eighth."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (EIGHTHS[rest] if rest else "")


def new_table(**settings: Any) -> Table:
    """Return an empty table in hftool's style: no frame, a dim header."""
    return Table(box=None, header_style="dim", pad_edge=False, padding=(0, GAP, 0, 0), **settings)


def shown(token: str) -> str:
    """Return a token's text for a table.

    Spaces are visible, characters without a width are escaped, and a combining mark that belongs
    to the character before the token is on a dotted circle.
    """
    text = _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", one_line(token))
    if unicodedata.category(text[:1] or " ").startswith("M"):
        text = "◌" + text
    return text.replace(" ", "␣")


def barred(
    console: Console,
    columns: Sequence[str],
    rows: Sequence[Sequence[Text]],
    shares: Sequence[float],
    style: str | Sequence[str],
    row_styles: Sequence[str] = (),
    drop: Sequence[str] = (),
) -> Table:
    """Return a table with a bar for each row's share (0 to 1), if the console is wide enough.

    `style` is that of all bars, or of each.

    If the columns alone don't fit, those in `drop` are left out, in this order.
    """
    columns, rows = fitted(console, columns, rows, drop)
    plain_rows = _filled(columns, rows, row_styles)
    width = min(console.width // BAR_SHARE, console.width - console.measure(plain_rows).maximum - 3)
    if width < LEAST_BAR_WIDTH or not shares:
        return plain_rows
    styles = [style] * len(shares) if isinstance(style, str) else style
    bars = [Text(bar(share, width), one) for share, one in zip(shares, styles, strict=True)]
    return _filled([*columns, ""], [[*r, b] for r, b in zip(rows, bars, strict=True)], row_styles)


def fitted(
    console: Console,
    columns: Sequence[str],
    rows: Sequence[Sequence[Text]],
    drop: Sequence[str],
) -> tuple[Sequence[str], Sequence[Sequence[Text]]]:
    """Leave out the columns in `drop`, in this order, until the table fits."""
    for name in drop:
        if fits(console, columns, rows):
            break
        others = [i for i, column in enumerate(columns) if column != name]
        columns = [columns[i] for i in others]
        rows = [[row[i] for i in others] for row in rows]
    return columns, rows


def fits(console: Console, columns: Sequence[str], rows: Sequence[Sequence[Text]]) -> bool:
    """Return whether a table fits the console; its texts can be folded, its numbers can't."""
    width = GAP * (len(columns) - 1)
    for i, name in enumerate(columns):
        widest = max(len(name), *(row[i].cell_len for row in rows), 0)
        width += widest if _is_number(rows, i) else min(widest, FOLDED_WIDTH)
    return width <= console.width


def _is_number(rows: Sequence[Sequence[Text]], column: int) -> bool:
    """Return whether a column holds nothing but numbers."""
    cells = [row[column] for row in rows if row[column].plain]
    return bool(cells) and all(text.justify == "right" for text in cells)


def _filled(
    columns: Sequence[str],
    rows: Sequence[Sequence[Text]],
    row_styles: Sequence[str],
    widths: Sequence[int] | None = None,
    *,
    fixed: bool = False,
) -> Table:
    """Return a table whose columns of numbers are never narrower than their numbers.

    Args:
        widths: of the columns, if they are known from more rows than these.
        fixed: whether columns of texts have these widths as well; otherwise they are folded.
    """
    widths = widths or _widths(columns, rows)
    table = new_table()
    for i, name in enumerate(columns):
        numbers = _is_number(rows, i)
        table.add_column(
            name,
            width=widths[i] if fixed else None,
            min_width=widths[i] if numbers else None,
            justify="right" if numbers else "left",
            no_wrap=numbers,
            overflow="fold",
        )
    for row, style in zip_longest(rows, row_styles, fillvalue=""):
        table.add_row(*row, style=str(style))
    return table


def _widths(columns: Sequence[str], rows: Sequence[Sequence[Text]]) -> list[int]:
    """Return the width that each column needs for its name and its cells."""
    return [max(len(n), *(row[i].cell_len for row in rows), 0) for i, n in enumerate(columns)]


def plain_table(
    view: View, most: int | None = None
) -> Callable[[Iterable[Any], Console], Iterator[str]]:
    """Return a function that renders a view's rows, block by block.

    The first block decides which columns fit. Its columns may have to be wider in a later one, but
    are never narrower there.

    Args:
        most: how many rows to show; a line below them then reports how many there are. None: all.
    """

    def lines(events: Iterable[Any], console: Console) -> Iterator[str]:
        rows = (row for record in records_only(events) for row in view.rows(record))
        listed = rows if most is None else islice(rows, most)
        names: Sequence[str] = view.table_columns or view.columns
        widths: list[int] = []
        while block := list(islice(listed, BLOCK)):
            cells: Sequence[Sequence[Text]]
            cells = [[_cell_of(view, name, row) for name in names] for row in block]
            if first := not widths:
                names, cells = fitted(console, names, cells, view.drop)
            needed = _widths(names, cells)
            widths = [max(pair) for pair in zip(widths, needed, strict=True)] if widths else needed
            fixed = sum(widths) + GAP * (len(widths) - 1) <= console.width
            table = _filled(names, cells, (), widths, fixed=fixed)
            table.show_header = first
            yield rendered(console, table)
        if most is not None and (more := sum(1 for _ in rows)):
            note = f"{most} of {most + more:,} rows. To see them all, add: | less, or: -o FILE"
            yield rendered(console, Text(note, "dim"))

    return lines


def _cell_of(view: View, name: str, row: Row) -> Text:
    value = row.get(name)
    return Text(shown(value)) if value and name in view.token_columns else cell(value)

"""Export what a terminal shows to SVG and HTML, with rich."""

import html
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from hftool.atomic_files import atomic_file
from hftool.generation.records import Distribution
from hftool.output.formats import records_only
from hftool.output.tables.base import plain_table, table_console
from hftool.output.view import View

LEAST_WIDTH = 40
FONTS = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
THEME = TerminalTheme(
    background=(36, 38, 41),
    foreground=(214, 216, 218),
    normal=[
        *((16, 17, 18), (222, 100, 92), (124, 190, 104), (222, 184, 82)),
        *((104, 154, 218), (190, 134, 200), (92, 182, 196), (214, 216, 218)),
    ],
)
# rich's own format, without the font that it loads from the web, and without a clip path for each
# line, which cuts off dots and accents. Some viewers remove spaces that are not to be preserved.
SVG = f"""\
<svg viewBox="0 0 {{width}} {{height}}" xmlns="http://www.w3.org/2000/svg" xml:space="preserve">
<style>
.{{unique_id}}-matrix {{{{ font: {{char_height}}px/{{line_height}}px {FONTS} }}}}
.{{unique_id}}-title {{{{ font: bold 18px sans-serif }}}}
{{styles}}
</style>
<defs>
<clipPath id="{{unique_id}}-clip-terminal">
<rect x="0" y="0" width="{{terminal_width}}" height="{{terminal_height}}"/>
</clipPath>
</defs>
{{chrome}}
<g transform="translate({{terminal_x}}, {{terminal_y}})"
 clip-path="url(#{{unique_id}}-clip-terminal)">
{{backgrounds}}
<g class="{{unique_id}}-matrix">{{matrix}}</g>
</g>
</svg>
"""
HTML = f"""\
<!DOCTYPE html>
<html>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>hftool</title>
<style>
body {{{{ color: {{foreground}}; background: {{background}}; margin: 1.5em }}}}
pre {{{{ font: 15px/1.35 {FONTS}; tab-size: 8 }}}}
b.w {{{{ display: inline-block; font-weight: inherit }}}}
{{stylesheet}}
</style>
</head>
<body>
<pre>{{code}}</pre>
</body>
</html>
"""
_SVG_TEXT = re.compile(
    r'<text class="([^"]*)" x="([^"]*)" y="([^"]*)" textLength="[^"]*" clip-path="[^"]*">'
    r"([^<]*)</text>"
)
CELL_WIDTH, DESCENT, BAR_HEIGHT = 12.2, 5.9, 22.4  # in the units of rich's format
LEFT_BLOCKS, LOWER_BLOCKS = "▏▎▍▌▋▊▉█", "▁▂▃▄▅▆▇"  # from one eighth of a cell on
_BLOCKS = re.compile(f"█*[{LEFT_BLOCKS}]|[{LOWER_BLOCKS}]")
# Cells of a table have places of their own, whatever the width of the font.
_APART = re.compile(f"({_BLOCKS.pattern}|\xa0{{2,}})")
_MAYBE_WIDE = re.compile(r"[^\x00-\u10ff]+")  # from U+1100 (Hangul) on


def exported(events: Iterable[Any], view: View, path: Path) -> Iterator[Any]:
    """Yield the same events, and after the last one write them to a file: as the view's page if it
    has one and the file is HTML, else as a terminal would show them.

    Raises:
        HftoolError: the file can't be written.
    """
    seen = []
    for event in events:
        seen.append(event)
        if not isinstance(event, Distribution):
            yield event
    if path.suffix == ".svg":
        document = svg(_recorded(seen, view))
    elif view.page is not None:
        document = view.page(list(records_only(seen)))
    else:
        document = _html(_recorded(seen, view))
    with atomic_file(path) as file:
        file.write(document)


def _recorded(events: list[Any], view: View) -> Console:
    """Return a console that recorded the view's table, as wide as its longest line."""
    table = view.table or plain_table(view)
    rendered = "".join(table(events, table_console("always", terminal=True)))
    text = Text.from_ansi(rendered.rstrip("\n"))
    text.expand_tabs(8)
    width = max(LEAST_WIDTH, *map(cell_len, text.plain.split("\n")))
    console = Console(record=True, file=io.StringIO(), width=width, color_system="256")
    console.print(text)
    return console


def svg(console: Console) -> str:
    """Return what a console recorded as SVG.

    rich sets each text as wide as its number of characters; here it gets the number of cells that
    it takes on a terminal. Bars become rectangles: fonts leave seams between block characters.
    """
    document = console.export_svg(title="hftool", theme=THEME, code_format=SVG)
    return _SVG_TEXT.sub(lambda match: "".join(_svg_parts(*match.groups())), document)


def _svg_parts(style: str, left: str, baseline: str, escaped: str) -> Iterator[str]:
    """Yield a line's text of one style as texts and rectangles."""
    cells = 0
    for part in _APART.split(html.unescape(escaped)):
        x = float(left) + cells * CELL_WIDTH
        cells += cell_len(part)
        if _BLOCKS.fullmatch(part):
            width, height = float(len(part)), 1.0
            if part in LOWER_BLOCKS:
                height = (LOWER_BLOCKS.index(part) + 1) / 8
            else:
                width += (LEFT_BLOCKS.index(part[-1]) + 1) / 8 - 1
            bottom = float(baseline) + DESCENT
            yield (
                f'<rect class="{style}" x="{x:g}" y="{bottom - height * BAR_HEIGHT:g}"'
                f' width="{width * CELL_WIDTH:g}" height="{height * BAR_HEIGHT:g}"/>'
            )
        elif part.strip("\xa0"):
            text = html.escape(part).replace("\xa0", "&#160;")
            yield f'<text class="{style}" x="{x:g}" y="{baseline}"'
            yield f' textLength="{cell_len(part) * CELL_WIDTH:g}">{text}</text>'


def _html(console: Console) -> str:
    """Return what a console recorded as HTML, where wide characters take two cells."""
    document = console.export_html(theme=THEME, code_format=HTML)

    def measured(match: re.Match[str]) -> str:
        return f'<b class="w" style="width:{cell_len(match[0])}ch">{match[0]}</b>'

    return _MAYBE_WIDE.sub(measured, document)

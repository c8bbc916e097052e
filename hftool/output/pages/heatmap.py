"""Heat maps of texts: HTML pages that need no scripts and no other files."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from hftool.output.pages.page import render
from hftool.output.tables.base import counted
from hftool.output.token_spans import Span, encoded_spans, scored_spans
from hftool.output.view import number
from hftool.terminal import one_line, visible

if TYPE_CHECKING:
    from hftool.generation.scored_tokens import Perplexity, ScoredToken
    from hftool.tokenization.records import Encoded

TOKEN_COLORS = 4  # used in turn, .t0 to .t3 below
LONGEST_UNBROKEN = 40  # characters
HOTTEST = 16  # bits of surprisal from which on the colour is the strongest


def encoded(records: Iterable["Encoded"]) -> str:
    """Return a page of texts with their tokens in alternating colours; pointing at a token shows
    its id and offsets."""
    return _page(part for record in records for part in _encoded(record))


def _encoded(record: "Encoded") -> Iterator[str]:
    def tip(i: int) -> str:
        start, end = record.offsets[i]
        name, token = _name(record.ids[i], record.pieces[i]), one_line(record.tokens[i])
        return f"{name}   {token}   {start} to {end}"

    turn = 0
    spans = []
    for span in encoded_spans(record):
        spans.append(_span(span, f'class="t{turn % TOKEN_COLORS}"', map(tip, span.tokens)))
        turn += bool(span.tokens)
    yield f'<pre dir="auto">{"".join(spans)}</pre>\n'
    yield f"<p>{counted(record.count, 'token')}, {counted(len(record.text), 'character')}</p>\n"


def scored(records: Iterable["ScoredToken | Perplexity"]) -> str:
    """Return a page of texts coloured by surprisal, each with its perplexity."""
    return _page(_scored(records))


def _scored(records: Iterable["ScoredToken | Perplexity"]) -> Iterator[str]:
    yield (
        '<p class="legend">surprisal <span>0</span><b></b>'
        f"<span>{HOTTEST} bits and more</span></p>\n"
    )
    tokens: list[ScoredToken] = []
    for record in records:
        if record.kind == "token":
            tokens.append(record)
            continue
        spans = "".join(
            _span(span, _heat(tokens, span), (_score_tip(tokens[i]) for i in span.tokens))
            for span in scored_spans(tokens)
        )
        yield f'<pre dir="auto">{spans}</pre>\n'
        total = "-" if record.perplexity is None else number(record.perplexity)
        over = f"perplexity {total} over {counted(record.tokens, 'token')}"
        yield f"<p>{over}</p>\n"
        tokens = []


def _heat(tokens: Sequence["ScoredToken"], span: Span) -> str:
    """Return the attributes that colour a span by the sum of its tokens' surprisals."""
    surprisal = sum(tokens[i].surprisal or 0.0 for i in span.tokens)
    return f'class="h" style="--s:{min(1.0, surprisal / HOTTEST):.3f}"'


def _score_tip(token: "ScoredToken") -> str:
    if token.prob is None:
        return f"{_name(token.id, token.token)}   the first token: nothing before it"
    scores = {"prob": token.prob, "surprisal": token.surprisal, "entropy": token.entropy}
    numbers = (f"{name} {number(value)}" for name, value in scores.items() if value is not None)
    return "   ".join((_name(token.id, token.token), f"rank {token.rank}", *numbers))


def _name(token_id: int, text: str) -> str:
    return f"id {token_id}   “{one_line(text)}”"


def _span(span: Span, attributes: str, tips: Iterable[str]) -> str:
    """Return a span as HTML; a symbol marks each line break and tab.

    A line breaks before a span's first space, not after it, where its colour would stick out.
    """
    text = escape(visible(span.text)).replace("\n", "<i>↵</i>\n").replace("\t", "<i>⇥</i>\t")
    if not span.tokens:
        return text
    tip = escape("\n".join(tips)).replace("\n", "&#10;")
    if "\n" not in span.text and len(span.text) <= LONGEST_UNBROKEN:
        attributes = attributes.replace('class="', 'class="k ', 1)
    before = "<wbr>" if span.text.startswith(" ") else ""
    return f'{before}<span {attributes} data-tip="{tip}">{text}</span>'


def _page(parts: Iterable[str]) -> str:
    return render("heatmap", texts="".join(parts))

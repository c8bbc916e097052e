"""Tables of next tokens."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby, zip_longest
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hftool.output.tables.base import NO_BREAK, barred, cell, entropies, fits, rendered, shown
from hftool.output.view import number
from hftool.terminal import one_line

if TYPE_CHECKING:
    from hftool.generation.candidates import Candidate


def candidates(records: Iterable["Candidate"], console: Console) -> Iterator[str]:
    """Render the candidates after each position, best first, with a bar for the probability; then a
    table for each continuation of several tokens."""
    for (_, target, _), group in groupby(records, key=lambda c: (c.index, c.target, c.mask)):
        if target is None:
            yield from _ranked(list(group), console)
        else:
            yield rendered(console, _continuation(list(group), console))


def _ranked(ranked: Sequence["Candidate"], console: Console) -> Iterator[str]:
    sampled = any(c.sampled_prob is not None for c in ranked)
    names = ("rank", "id", "token", "prob", *("sampled",) * sampled, "logprob", "cumulative")
    rows = [
        (
            *(cell(c.rank), cell(c.id), Text(shown(c.token), "bold"), cell(c.prob)),
            *((cell(c.sampled_prob),) * sampled),
            *(cell(c.logprob), cell(c.cumulative)),
        )
        for c in ranked
    ]
    shares = [c.prob for c in ranked]
    drop = ("cumulative", "logprob")
    yield rendered(console, barred(console, names, rows, shares, "green", drop=drop))
    place = "after" if ranked[0].mask is None else "mask at"
    notes = (f"{place} position {ranked[0].position}", entropies(ranked[0]))
    yield rendered(console, Text("; ".join(filter(None, notes)), "dim"))


def _continuation(records: Sequence["Candidate"], console: Console) -> Table:
    """Return a table of a continuation's tokens, one under the other, and of the whole."""
    names = ("after", "rank", "id", "token", "prob", "logprob", "sum")
    *parts, whole = records
    sums = accumulate(c.logprob for c in parts)
    rows = [
        (
            *(cell(c.position), cell(c.rank), cell(c.id), Text(shown(c.token), "bold")),
            *(cell(c.prob), cell(c.logprob), cell(total)),
        )
        for c, total in zip(parts, sums, strict=True)
    ]
    blank = Text()
    text = Text(shown(whole.token), "bold")
    rows.append((blank, blank, blank, text, cell(whole.prob), blank, cell(whole.logprob)))
    shares = [c.prob for c in records]
    return barred(console, names, rows, shares, "green", drop=("after", "logprob", "rank"))


def candidates_compared(records: Iterable["Candidate"], console: Console) -> Iterator[str]:
    """Render a table for each text, with the candidates of several models side by side by rank;
    then each model's table for each target that is not among them."""
    for _, of_text in groupby(sorted(records, key=lambda c: c.index or 0), key=lambda c: c.index):
        by_model = {
            model or "": list(group) for model, group in groupby(of_text, key=lambda c: c.model)
        }
        best = {
            model: [c for rank, c in enumerate(of_model, 1) if c.rank == rank and c.target is None]
            for model, of_model in by_model.items()
        }
        yield rendered(console, *_side_by_side(best, console))
        for model, of_model in by_model.items():
            others = of_model[len(best[model]) :]
            if others:
                yield rendered(console, Text(one_line(model), "dim"))
                yield from candidates(others, console)


def _side_by_side(ranked: dict[str, list["Candidate"]], console: Console) -> Iterator[Table]:
    """Yield a table of all models side by side, or several tables if one would be too wide."""
    names = ["rank"]
    for name in ranked:
        names += [one_line(name), "prob"]
    rows = []
    for row in zip_longest(*ranked.values()):
        cells = [cell(next(c.rank for c in row if c))]
        for c in row:
            cells += [Text(shown(c.token), "bold"), cell(c.prob)] if c else [Text(), Text()]
        rows.append(cells)
    if len(ranked) == 1 or fits(console, names, rows):
        yield barred(console, names, rows, [], "")
        return
    models = list(ranked)
    for half in (models[: len(models) // 2], models[len(models) // 2 :]):
        yield from _side_by_side({name: ranked[name] for name in half}, console)


def positions(records: Iterable["Candidate"], console: Console) -> Iterator[str]:
    """Render a row for each position: its token, then the candidates for the next one, of which
    that of the text is green."""
    for (_, model), group in groupby(records, key=lambda c: (c.index, c.model)):
        if model is not None:
            yield rendered(console, Text(one_line(model), "dim"))
        at = [list(candidates) for _, candidates in groupby(group, key=lambda c: c.position)]
        following = [c[0].after for c in at[1:]]
        rows = [
            (
                *(cell(some[0].position), Text(shown(some[0].after or ""), "bold")),
                Text("  ").join(_with_prob(c, token) for c in some),
            )
            for some, token in zip_longest(at, following)
        ]
        filtered = " after the filters" if at[0][0].sampled_prob is not None else ""
        names = ("position", "token", f"candidates for the next one{filtered}")
        table = barred(console, names, rows, [], "", drop=("position",))
        yield rendered(console, table).replace(NO_BREAK, " ")


def _with_prob(candidate: "Candidate", following: str | None) -> Text:
    """Return a candidate and its probability, which are not put on two lines."""
    style = "bold green" if candidate.token == following else "bold"
    prob = candidate.prob if candidate.sampled_prob is None else candidate.sampled_prob
    return Text.assemble((shown(candidate.token), style), f"{NO_BREAK}{number(prob)}")

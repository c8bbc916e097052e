"""What a person sees of a generation taken step by step."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hftool.output.tables.base import barred, cell, counted, fits, number, rendered, shown
from hftool.terminal import visible

if TYPE_CHECKING:
    from hftool.generation.steps import CandidateStep, Step, StepCandidates

REMOVED = "×"
REMOVED_CELL = Text(REMOVED, justify="right")
FILTER_NAMES = {  # short enough for the head of a column
    "repetition_penalty": "repeat",
    "no_repeat_ngram": "n-gram",
    "temperature": "temp",
    "top_k": "top-k",
    "top_p": "top-p",
    "min_p": "min-p",
    "typical_p": "typical",
}


def steps(prompt: str, records: Iterable["Step"], console: Console) -> Iterator[str]:
    """Each step: the text so far, the candidates, the pick."""
    before = prompt
    for step in records:
        yield rendered(console, *_choice(step, before, console), _pick(step), Text())
        before = prompt + step.text
    yield rendered(console, Text(visible(before)))


def choice(prompt: str, events: Iterable["StepCandidates"], console: Console) -> Iterator[str]:
    """What a step chooses from, before it is chosen."""
    for found in events:
        yield rendered(console, *_choice(found, prompt + found.text, console))


def steps_taken(prompt: str, records: Iterable["Step"], console: Console) -> Iterator[str]:
    """The steps that a person took, a row each, and the text."""
    text = prompt
    rows = []
    for s in records:
        text = prompt + s.text
        who = "picked" if s.picked else "greedy" if s.drawn is None else f"drawn {s.drawn:.4f}"
        numbers = (cell(s.rank), cell(s.prob), cell(s.sampled_prob))
        rows.append((cell(s.step), cell(s.id), Text(shown(s.token), "bold"), *numbers, Text(who)))
    if rows:
        names = ("step", "id", "token", "rank", "prob", "sampled", "chosen")
        yield rendered(console, barred(console, names, rows, [], "green"), Text())
    yield rendered(console, Text(visible(text)))


def _choice(step: "Step | StepCandidates", before: str, console: Console) -> Iterator[Any]:
    """The text before a step, and its candidates."""
    head = Text(f"step {step.step}  ", "bold")
    head.append(visible(before), "dim")
    yield head
    yield _table(step.candidates, getattr(step, "id", None), console)
    drawn = getattr(step, "drawn", None)
    note = f"{counted(step.kept, 'token')} kept, entropy {number(step.entropy)} bits"
    yield Text(note if drawn is None else f"{note}, drawn {drawn:.4f}", "dim")


def _table(candidates: Sequence["CandidateStep"], taken: int | None, console: Console) -> Table:
    """Candidates with their probability after each filter that moves one of them; where that does
    not fit, after all of them, and what removed them."""
    about = [(cell(c.rank), cell(c.id), Text(shown(c.token)), cell(c.prob)) for c in candidates]
    last = [cell(c.sampled_cumulative) for c in candidates]
    moved = _moved(candidates)
    names = ["rank", "id", "token", "prob", *(FILTER_NAMES[name] for name in moved), "sum"]
    rows = [(*a, *after, s) for a, *after, s in zip(about, *moved.values(), last, strict=True)]
    if not fits(console, names, rows):
        names = ["rank", "id", "token", "prob", "sampled", "sum", "removed by"]
        rows = [
            (*a, REMOVED_CELL if c.removed_by else cell(c.sampled_prob), s, cell(c.removed_by))
            for a, c, s in zip(about, candidates, last, strict=True)
        ]
    empty = [i for i in range(len(names)) if not any(row[i].plain for row in rows)]
    names = [name for i, name in enumerate(names) if i not in empty]  # as the sum, when greedy
    rows = [tuple(text for i, text in enumerate(row) if i not in empty) for row in rows]
    styles = ["bold" if c.id == taken else "dim" if c.removed_by else "" for c in candidates]
    shares = [c.prob for c in candidates]
    return barred(console, names, rows, shares, "green", styles, ("sum", "removed by"))


def _moved(candidates: Sequence["CandidateStep"]) -> dict[str, list[Text]]:
    """Each candidate's probability after the filters that moved one, with × where it was removed
    and nothing from there on."""
    columns = {}
    before = [number(c.prob) for c in candidates]
    for name in candidates[0].after:
        after = []
        for last, c in zip(before, candidates, strict=True):
            prob = c.after[name]
            gone = "" if last in ("", REMOVED) else REMOVED
            after.append(gone if prob is None else number(prob))
        if any(now and now != last for now, last in zip(after, before, strict=True)):
            columns[name] = [Text(now, justify="right") for now in after]
        before = after
    return columns


def _pick(step: "Step") -> Text:
    """The token chosen, and the interval of the sum that the number drawn fell into."""
    pick = Text("→ ", "bold")
    pick.append(shown(step.token), "bold black on green")
    moved = "" if step.sampled_prob == step.prob else f" → {number(step.sampled_prob)}"
    pick.append(f"  id {step.id}, rank {step.rank}, prob {number(step.prob)}{moved}, ")
    if step.picked or step.drawn is None or step.sampled_cumulative is None:
        return pick.append("picked" if step.picked else "greedy")
    low = max(0.0, step.sampled_cumulative - step.sampled_prob)
    return pick.append(f"sum {low:.4f} to {step.sampled_cumulative:.4f}")

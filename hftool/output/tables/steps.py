"""Show a step-by-step generation on a terminal."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hftool.generation.records import Piece
from hftool.output.tables.base import barred, cell, counted, entropies, fits, rendered, right, shown
from hftool.output.tables.shading import legend, pieces_of, shaded_text
from hftool.output.view import number
from hftool.terminal import visible

if TYPE_CHECKING:
    from hftool.generation.candidates import Step, StepCandidate, StepCandidates

REMOVED = "×"
GAP = "⋮"  # in the place of candidates that are not shown
REMOVED_CELL = Text(REMOVED, justify="right")
FILTER_NAMES = {  # short enough for a column header
    "repetition_penalty": "repeat",
    "no_repeat_ngram": "n-gram",
    "temperature": "temp",
    "top_k": "top-k",
    "top_p": "top-p",
    "min_p": "min-p",
    "typical_p": "typical",
    "guidance_scale": "guidance",
    "sequence_bias": "bias",
    "encoder_repetition_penalty": "encoder",
    "encoder_no_repeat_ngram_size": "encoder n-gram",
    "bad_words_ids": "bad words",
    "min_length": "min length",
    "min_new_tokens": "min new",
    "forced_bos_token_id": "forced",
    "forced_eos_token_id": "forced end",
    "remove_invalid_values": "finite",
    "exponential_decay_length_penalty": "decay",
    "suppress_tokens": "suppress",
    "begin_suppress_tokens": "suppress first",
    "top_h": "top-h",
    "epsilon_cutoff": "epsilon",
    "eta_cutoff": "eta",
    "watermarking_config": "watermark",
    "renormalize_logits": "normalize",
}


def steps(
    prompt: str, records: Iterable["Step"], console: Console, *, show_probs: bool = False
) -> Iterator[str]:
    """Show each step: the text so far, the candidates, and the chosen token."""
    seen: list[Step] = []
    for step in records:
        before = _text(prompt, seen, show_probs=show_probs)
        yield rendered(console, *_candidates(step, before, console), _chosen(step), Text())
        seen.append(step)
    yield from _ending(prompt, seen, console, show_probs=show_probs)


def step_candidates(prompt: str, candidates: "StepCandidates", console: Console) -> str:
    """Show what a step can choose from, before a token is chosen."""
    before = Text(visible(prompt + candidates.text))
    return rendered(console, *_candidates(candidates, before, console))


def picked_steps(
    prompt: str, records: Iterable["Step"], console: Console, *, show_probs: bool = False
) -> Iterator[str]:
    """Show the steps after the user has picked the tokens, one row for each, and the text."""
    seen: list[Step] = []
    rows = []
    for s in records:
        seen.append(s)
        how = "picked" if s.picked else "greedy" if s.drawn is None else f"drawn {s.drawn:.4f}"
        numbers = (cell(s.rank), cell(s.prob), cell(s.sampled_prob))
        rows.append((cell(s.step), cell(s.id), Text(shown(s.token), "bold"), *numbers, Text(how)))
    if rows:
        names = ("step", "id", "token", "rank", "prob", "sampled", "chosen")
        yield rendered(console, barred(console, names, rows, [], "green"), Text())
    yield from _ending(prompt, seen, console, show_probs=show_probs)


def _text(prompt: str, seen: Sequence["Step"], *, show_probs: bool) -> Text:
    """Return the text after these steps."""
    if not show_probs:
        return Text(visible(prompt + seen[-1].text if seen else prompt))
    pieces = pieces_of((step.text, step.prob) for step in seen)
    return shaded_text([Piece(prompt), *pieces])


def _ending(
    prompt: str, seen: Sequence["Step"], console: Console, *, show_probs: bool
) -> Iterator[str]:
    """Show the whole text."""
    yield rendered(console, _text(prompt, seen, show_probs=show_probs))
    if show_probs:
        yield legend(console)


def _candidates(step: "Step | StepCandidates", before: Text, console: Console) -> Iterator[Any]:
    """Yield the text before a step, the table of its candidates, and a line about both."""
    before.stylize_before("dim")
    yield Text.assemble((f"step {step.step}  ", "bold"), before)
    yield _table(step.candidates, getattr(step, "token", None), getattr(step, "id", None), console)
    if step.kept is None or step.entropy is None:  # at an endpoint
        yield Text(f"all other tokens: {number(getattr(step, 'unseen', 0.0))}", "dim")
        return
    drawn = getattr(step, "drawn", None)
    note = f"{counted(step.kept, 'token')} kept, {entropies(step)}"
    if step.allowed is not None:
        allows = "forced" if step.allowed == 1 else f"{counted(step.allowed, 'token')} allowed"
        note = f"{allows} by the constraint, {note}"
    yield Text(note if drawn is None else f"{note}, drawn {drawn:.4f}", "dim")


def _table(
    candidates: Sequence["StepCandidate"], token: str | None, id_: int | None, console: Console
) -> Table:
    """Return the candidates with their probabilities after each filter that changes one of them;
    the chosen token is bold.

    Where these columns do not fit, show the probability after all filters, and the filter that
    removed a token.
    """
    about = [(cell(c.rank), cell(c.id), Text(shown(c.token)), cell(c.prob)) for c in candidates]
    sums = [cell(c.sampled_cumulative) for c in candidates]
    changes = _changes(candidates)
    filters = [FILTER_NAMES.get(name, name) for name in changes]
    names = ["rank", "id", "token", "prob", *filters, "sum"]
    rows = [(*a, *after, s) for a, *after, s in zip(about, *changes.values(), sums, strict=True)]
    if not fits(console, names, rows):
        names = ["rank", "id", "token", "prob", "sampled", "sum", "removed by"]
        rows = [
            (*a, REMOVED_CELL if c.removed_by else cell(c.sampled_prob), s, cell(c.removed_by))
            for a, c, s in zip(about, candidates, sums, strict=True)
        ]
    empty = [i for i in range(len(names)) if not any(row[i].plain for row in rows)]
    names = [name for i, name in enumerate(names) if i not in empty]  # the sum is, when greedy
    rows = [tuple(text for i, text in enumerate(row) if i not in empty) for row in rows]
    chosen = [(c.id, c.token) == (id_, token) for c in candidates]
    styles = [
        "bold" if is_chosen else "dim" if c.removed_by else ""
        for c, is_chosen in zip(candidates, chosen, strict=True)
    ]
    shares = [c.prob for c in candidates]
    ranks = [c.rank for c in candidates[-2:]]
    if len(ranks) > 1 and (ranks[1] is None or ranks[1] > (ranks[0] or 0) + 1):
        rows.insert(-1, (right(GAP), *(Text() for _ in names[1:])))
        styles.insert(-1, "dim")
        shares.insert(-1, 0.0)
    return barred(console, names, rows, shares, "green", styles, ("sum", "removed by"))


def _changes(candidates: Sequence["StepCandidate"]) -> dict[str, list[Text]]:
    """Return, for each filter that changes a probability, those of all candidates after it: × for
    a token that it removed, nothing for one that was removed before."""
    columns = {}
    before = [number(c.prob) for c in candidates]
    for name in candidates[0].after:
        after = []
        for last, c in zip(before, candidates, strict=True):
            prob = c.after[name]
            removed = "" if last in ("", REMOVED) else REMOVED
            after.append(removed if prob is None else number(prob))
        if any(now and now != last for now, last in zip(after, before, strict=True)):
            columns[name] = [Text(now, justify="right") for now in after]
        before = after
    return columns


def _chosen(step: "Step") -> Text:
    """Return a line about the chosen token, with the interval of cumulative probability that the
    drawn number lies in."""
    chosen = Text("→ ", "bold")
    chosen.append(shown(step.token), "bold black on green")
    if step.sampled_prob is None:  # at an endpoint, which draws by itself
        rank = "" if step.rank is None else f"rank {step.rank}, "
        return chosen.append(f"  {rank}prob {number(step.prob)}")
    changed = "" if step.sampled_prob == step.prob else f" → {number(step.sampled_prob)}"
    chosen.append(f"  id {step.id}, rank {step.rank}, prob {number(step.prob)}{changed}, ")
    if step.picked or step.drawn is None or step.sampled_cumulative is None:
        return chosen.append("picked" if step.picked else "greedy")
    low = max(0.0, step.sampled_cumulative - step.sampled_prob)
    return chosen.append(f"sum {low:.4f} to {step.sampled_cumulative:.4f}")

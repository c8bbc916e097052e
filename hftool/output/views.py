"""How each command's records look."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.text import Text

from hftool.output.formats import Row, View, escaped, line, plain
from hftool.output.tables import bar, cell, new_table, number, rendered
from hftool.output.terminal import one_line, visible

if TYPE_CHECKING:
    from hftool.classification import Judgement
    from hftool.conversation import Turn
    from hftool.encoding import Compared, Encoded
    from hftool.generation import Generation, Step
    from hftool.next_token import Candidate
    from hftool.vocabulary import VocabularyStats

# Told apart on a light and on a dark background alike, and without colour by the edges.
TOKEN_STYLES = ("black on cyan", "black on yellow", "black on green", "black on magenta")
BAR_WIDTH = 20


def shown(token: str) -> str:
    """A token's text for a table: its spaces visible."""
    return one_line(token).replace(" ", "␣")


ENTRY_COLUMNS = ("id", "token", "text", "bytes", "kind")

VOCABULARY = View(
    columns=ENTRY_COLUMNS,
    text=lambda entry: f"{entry.id}:{escaped(entry.text)}\n",
    live=False,
)
RAW_VOCABULARY = replace(VOCABULARY, text=lambda entry: f"{entry.id}:{entry.text}\n")

DIFFERENCE = View(
    columns=("side", *ENTRY_COLUMNS),
    text=lambda entry: line(entry.side, f"{entry.id}:{escaped(entry.text)}"),
    live=False,
)
RAW_DIFFERENCE = replace(
    DIFFERENCE, text=lambda entry: line(entry.side, f"{entry.id}:{entry.text}")
)


def _statistics_rows(stats: "VocabularyStats") -> Iterator[Row]:
    """A row a number or text: {"of": "kinds", "name": "byte", "value": 256}."""
    for of, value in plain(stats).items():
        if isinstance(value, dict):
            yield from ({"of": of, "name": name, "value": v} for name, v in value.items())
        elif isinstance(value, list):
            yield from ({"of": of, "name": str(i), "value": v} for i, v in enumerate(value, 1))
        else:
            yield {"of": of, "name": "", "value": value}


STATISTICS = View(
    columns=("of", "name", "value"),
    text=lambda stats: "".join(
        line(row["of"], row["name"], escaped(str(row["value"]))) for row in _statistics_rows(stats)
    ),
    rows=_statistics_rows,
)


def _encoded_rows(encoded: "Encoded") -> Iterator[Row]:
    rows = zip(encoded.ids, encoded.tokens, encoded.pieces, encoded.offsets, strict=True)
    for index, (token_id, token, piece, (start, end)) in enumerate(rows):
        yield {
            "index": index,
            "id": token_id,
            "token": token,
            "piece": piece,
            "start": start,
            "end": end,
        }


def _parts(encoded: "Encoded") -> Iterator[str]:
    """The text by tokens; tokens that share a character are one part."""
    first = last = 0  # the span of the part at hand
    for piece, (start, end) in zip(encoded.pieces, encoded.offsets, strict=True):
        shared = start < last and end > first
        if first < last and not shared:
            yield encoded.text[first:last]
        if start == end:  # a special token stands nowhere in the text
            yield piece
            first = last = 0
        else:
            first, last = (first, max(last, end)) if shared else (start, end)
    if first < last:
        yield encoded.text[first:last]


def _encoded_table(records: Iterable["Encoded"], console: Console) -> Iterator[str]:
    for encoded in records:
        text = Text(overflow="fold")
        edge = "" if console.color_system else "|"
        for i, part in enumerate(_parts(encoded)):
            text.append(shown(part), TOKEN_STYLES[i % len(TOKEN_STYLES)])
            text.append(edge)
        table = new_table()
        for name in ("index", "id"):
            table.add_column(name, justify="right")
        for name in ("token", "piece"):
            table.add_column(name, overflow="fold")
        for name in ("start", "end"):
            table.add_column(name, justify="right")
        for row in _encoded_rows(encoded):
            style = TOKEN_STYLES[row["index"] % len(TOKEN_STYLES)]
            cells = [cell(v) for v in row.values()]
            table.add_row(*cells[:3], Text(shown(row["piece"]), style), *cells[4:])
        count = Text(f"{encoded.count} tokens, {len(encoded.text)} characters", "dim")
        yield rendered(console, text, Text(), table, count)


def _compared_table(records: Iterable["Compared"], console: Console) -> Iterator[str]:
    for text, group in groupby(records, key=lambda compared: compared.text):
        table = new_table()
        table.add_column("model")
        for name in ("tokens", "bytes/token"):
            table.add_column(name, justify="right")
        table.add_column("pieces", overflow="fold", ratio=1)
        for c in group:
            pieces = Text()
            for i, piece in enumerate(c.pieces):
                pieces.append(shown(piece), TOKEN_STYLES[i % len(TOKEN_STYLES)])
                pieces.append("" if console.color_system else "|")
            table.add_row(one_line(c.model), str(c.count), cell(c.bytes_per_token), pieces)
        yield rendered(console, Text(one_line(text), "dim"), table)


ENCODED = View(
    columns=("index", "id", "token", "piece", "start", "end"),
    text=lambda encoded: " ".join(map(str, encoded.ids)) + "\n",
    rows=_encoded_rows,
    table=_encoded_table,
)

COUNTS = View(
    columns=("count", "text"),
    text=lambda counted: f"{counted.count}\n",
)

COMPARED = View(
    columns=("model", "count", "bytes_per_token", "pieces"),
    text=lambda c: line(c.model, c.count, c.bytes_per_token, " ".join(map(str, c.ids))),
    rows=lambda c: [{**plain(c), "ids": list(c.ids)}],
    table=_compared_table,
)

RENDERED = View(
    columns=("text",),
    text=lambda rendered_chat: rendered_chat.text + "\n",
    table=lambda records, console: (visible(r.text) + "\n" for r in records),
)

ROUND_TRIPS = View(
    columns=("same", "differs_at", "text", "decoded"),
    text=lambda r: "same\n" if r.same else f"differs at character {r.differs_at}\n",
)


def _texts(events: Iterable[Any], console: Console) -> Iterator[str]:
    """Streamed text, safe for a terminal."""
    for event in events:
        yield visible(event) if isinstance(event, str) else "\n"


DECODED = View(
    columns=("ids", "text"),
    text=lambda decoded: decoded.text + "\n",
    table=lambda records, console: (visible(decoded.text) + "\n" for decoded in records),
)


def _candidates_table(records: Iterable["Candidate"], console: Console) -> Iterator[str]:
    found = list(records)
    width = max(6, min(BAR_WIDTH, console.width - 60))
    best = max((c.prob for c in found), default=1.0)
    table = new_table()
    for name in ("rank", "id"):
        table.add_column(name, justify="right")
    table.add_column("token", overflow="fold", style="bold")
    for name in ("prob", "logprob", "cumulative"):
        table.add_column(name, justify="right")
    table.add_column("")
    for c in found:
        numbers = (number(c.prob), number(c.logprob), number(c.cumulative))
        share = Text(bar(c.prob / best, width), "green")
        table.add_row(str(c.rank), str(c.id), Text(shown(c.token)), *numbers, share)
    if found:
        note = f"after position {found[0].position}; entropy {number(found[0].entropy)} bits"
        yield rendered(console, table, Text(note, "dim"))


CANDIDATES = View(
    columns=("position", "rank", "id", "token", "prob", "logprob", "cumulative", "entropy"),
    text=lambda c: line(c.rank, c.id, c.prob, escaped(c.token)),
    table=_candidates_table,
)


def steps_view(prompt: str) -> View:
    """How `sample` shows its steps, after the prompt they continue."""

    def table(records: Iterable["Step"], console: Console) -> Iterator[str]:
        before = prompt
        for step in records:
            yield rendered(console, *_step(step, before, console), Text())
            before = prompt + step.text
        yield rendered(console, Text(visible(before)))

    return View(
        columns=(
            *("step", "id", "token", "prob", "sampled_prob", "rank", "entropy"),
            *("kept", "drawn", "text", "candidates"),
        ),
        text=lambda s: line(s.step, s.id, s.prob, s.sampled_prob, s.rank, escaped(s.token)),
        table=table,
    )


def _step(step: "Step", before: str, console: Console) -> Iterator[Any]:
    head = Text(f"step {step.step}  ", "bold")
    head.append(visible(before), "dim")
    yield head
    table = new_table()
    table.add_column("rank", justify="right")
    table.add_column("id", justify="right")
    table.add_column("token", overflow="fold")
    table.add_column("prob", justify="right")
    table.add_column("sampled", justify="right")
    table.add_column("removed by")
    table.add_column("")
    width = max(6, min(BAR_WIDTH, console.width - 64))
    for c in step.candidates:
        picked = c.id == step.id
        table.add_row(
            str(c.rank),
            str(c.id),
            Text(shown(c.token)),
            number(c.prob),
            number(c.sampled_prob),
            c.removed_by or "",
            Text(bar(c.prob, width), "green"),
            style="bold" if picked else "dim" if c.removed_by else "",
        )
    yield table
    pick = Text("→ ", "bold")
    pick.append(shown(step.token), "bold black on green")
    drawn = "greedy" if step.drawn is None else f"drawn {step.drawn:.4f}"
    pick.append(
        f"  id {step.id}, rank {step.rank}, prob {number(step.prob)}, {drawn}; "
        f"{step.kept} tokens kept, entropy {number(step.entropy)} bits"
    )
    yield pick


def _generation_rows(generation: "Generation") -> Iterator[Row]:
    row = plain(generation)
    usage = row.pop("usage")
    yield {**row, **usage}


GENERATION = View(
    columns=(
        *("index", "prompt", "text", "finish_reason", "stop", "prompt_tokens"),
        *("completion_tokens", "seed", "seconds", "tokens_per_second"),
    ),
    text=lambda generation: "\n",
    rows=_generation_rows,
    table=_texts,
)


def _turn_text(turn: "Turn") -> str:
    return "\n" if turn.role == "assistant" else ""


TURNS = View(
    columns=(
        *("role", "content", "finish_reason", "prompt_tokens"),
        *("completion_tokens", "seed"),
    ),
    text=_turn_text,
    table=lambda events, console: (
        visible(event) if isinstance(event, str) else _turn_text(event) for event in events
    ),
)

LABEL_STYLES = {"POSITIVE": "green", "NEGATIVE": "red"}


def _judgements_table(records: Iterable["Judgement"], console: Console) -> Iterator[str]:
    """Aligned lines, each as soon as it is known."""
    for judgement in records:
        text = Text(f"{one_line(judgement.label):<12}", LABEL_STYLES.get(judgement.label, "bold"))
        score = "" if judgement.score is None else f"{judgement.score:.4f}"
        share = bar(judgement.score or 0.0, 8)
        text.append(f"{score:>6} ", "default")
        text.append(f"{share:<8}  ", "dim")
        text.append(one_line(judgement.text), "default")
        yield rendered(console, text)


JUDGEMENTS = View(
    columns=("text", "label", "score", "scores"),
    text=lambda j: line(escaped(j.label), j.score, escaped(j.text)),
    table=_judgements_table,
)


def _model_text(model: Any) -> str:
    return "".join(f"{name}: {_word(value)}\n" for name, value in plain(model).items())


def _model_table(records: Iterable[Any], console: Console) -> Iterator[str]:
    for model in records:
        table = new_table(show_header=False)
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for name, value in plain(model).items():
            table.add_row(name, Text(_word(value)))
        yield rendered(console, Group(table))


def _word(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return one_line(str(value))


MODEL = View(
    columns=(
        *("ref", "name", "task", "source", "path", "architecture", "parameters"),
        *("context_length", "dtype", "size_bytes", "license", "gated", "chat_template"),
    ),
    text=_model_text,
    table=_model_table,
)

ALIASES = View(
    columns=("alias", "model", "task", "here", "size_bytes", "purpose"),
    text=lambda alias: line(
        alias.alias, alias.model, alias.task or "-", "here" if alias.here else "-"
    ),
)

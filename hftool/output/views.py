"""How each command's records look: their columns, and their lines in the text format.

What a person sees at a terminal is in `hftool.output.screens`, which is imported when it is needed.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hftool.output.formats import Row, Screen, View, escaped, line, plain
from hftool.output.terminal import one_line

if TYPE_CHECKING:
    from hftool.conversation import Turn
    from hftool.encoding import Encoded
    from hftool.generation import Generation
    from hftool.next_token import Candidate, Perplexity, ScoredToken
    from hftool.vocabulary import VocabularyStats


def screen(name: str, *arguments: Any, room: str = "screens") -> Screen:
    """A function of `hftool.output.screens` or another room, found when it is called."""

    def show(events: Iterable[Any], console: Any) -> Iterator[str]:
        found = getattr(import_module(f"hftool.output.{room}"), name)
        yield from found(*arguments, events, console)

    return show


def page(name: str) -> Callable[[list[Any]], str]:
    """A function of `hftool.output.pages`, found when it is called."""

    def make(records: list[Any]) -> str:
        return str(getattr(import_module("hftool.output.pages"), name)(records))

    return make


ENTRY_COLUMNS = ("id", "token", "text", "bytes", "kind")

VOCABULARY = View(
    columns=ENTRY_COLUMNS,
    text=lambda entry: f"{entry.id}:{escaped(entry.text)}\n",
    pieces=("text",),
    drop=("bytes", "token"),
    live=False,
    at_once=1024,
)
RAW_VOCABULARY = replace(VOCABULARY, text=lambda entry: f"{entry.id}:{entry.text}\n")

DIFFERENCE = View(
    columns=("side", *ENTRY_COLUMNS),
    text=lambda entry: line(entry.side, f"{entry.id}:{escaped(entry.text)}"),
    pieces=("text",),
    drop=("bytes", "token"),
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
    table=screen("statistics"),
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


ENCODED = View(
    columns=("index", "id", "token", "piece", "start", "end"),
    text=lambda encoded: " ".join(map(str, encoded.ids)) + "\n",
    rows=_encoded_rows,
    table=screen("encoded"),
    page=page("encoded"),
    live=False,
)

COUNTS = View(
    columns=("count", "text"),
    text=lambda counted: f"{counted.count}\n",
    live=False,
)

COMPARED = View(
    columns=("model", "count", "bytes_per_token", "ids", "pieces"),
    text=lambda c: line(c.model, c.count, c.bytes_per_token, " ".join(map(str, c.ids))),
    table=screen("compared"),
)

RENDERED = View(
    columns=("text",),
    text=lambda rendered: rendered.text + "\n",
    table=screen("text_field"),
)

ROUND_TRIPS = View(
    columns=("same", "differs_at", "text", "decoded"),
    text=lambda r: "same\n" if r.same else f"differs at character {r.differs_at}\n",
)

DECODED = View(
    columns=("ids", "text"),
    text=lambda decoded: decoded.text + "\n",
    table=screen("text_field"),
)

CANDIDATE_COLUMNS = ("position", "rank", "id", "token", "prob", "logprob", "cumulative", "entropy")
SCORED_COLUMNS = ("position", "id", "token", "bytes", "prob", "rank", "surprisal", "entropy")


def expectations_view(*, scored: bool, sampled: bool, models: bool, texts: bool) -> View:
    """How `topk` shows its records: candidates, or each token of a text with its surprisal.

    `models` and `texts` say whether there are several.
    """
    about = (*("index",) * texts, *("model",) * models)
    if scored:
        return View(
            columns=(*about, *SCORED_COLUMNS),
            text=_scored_text,
            rows=lambda record: [plain(record)] if record.kind == "token" else [],
            table=screen("scored"),
            page=page("scored"),
        )
    columns = list(CANDIDATE_COLUMNS)
    if sampled:
        columns.insert(columns.index("prob") + 1, "sampled_prob")
    return View(
        columns=(*about, *columns),
        text=_candidate_text,
        table=screen("candidates_compared" if models else "candidates"),
    )


def _candidate_text(c: "Candidate") -> str:
    sampled = () if c.sampled_prob is None else (c.sampled_prob,)
    return line(*_about(c), c.rank, c.id, c.prob, *sampled, escaped(c.token))


def _about(record: "Candidate | ScoredToken | Perplexity") -> list[Any]:
    """Which text and which model a record is about, where there are several."""
    return [value for value in (record.index, record.model) if value is not None]


def _scored_text(record: "ScoredToken | Perplexity") -> str:
    about = _about(record)
    if record.kind == "perplexity":
        return line(*about, "perplexity", record.perplexity)
    s = record
    return line(*about, s.position, s.id, s.prob, s.rank, s.surprisal, s.entropy, escaped(s.token))


def steps_view(prompt: str, *, picked: bool = False) -> View:
    """How `sample` shows its steps, after the prompt they continue; those that a person `picked`
    were seen before."""
    return View(
        columns=(
            *("step", "id", "token", "prob", "sampled_prob", "sampled_cumulative", "rank"),
            *("entropy", "kept", "drawn", "text", "candidates", *("picked",) * picked),
        ),
        text=lambda s: line(s.step, s.id, s.prob, s.sampled_prob, s.rank, escaped(s.token)),
        table=screen("steps_taken" if picked else "steps", prompt, room="step_screens"),
    )


def _generation_rows(generation: "Generation") -> Iterator[Row]:
    row = plain(generation)
    yield {**row, **row.pop("usage", {})}


GENERATION_COLUMNS = (
    *("index", "prompt", "text", "finish_reason", "stop", "prompt_tokens"),
    *("completion_tokens", "seed", "seconds", "tokens_per_second"),
)

GENERATION = View(
    columns=GENERATION_COLUMNS,
    text=lambda generation: "\n",
    rows=_generation_rows,
    table=screen("texts"),
)

GENERATION_BATCH = replace(
    GENERATION, columns=("id", *GENERATION_COLUMNS, "line", "error"), default="jsonl"
)


def _turn_text(turn: "Turn") -> str:
    return "\n" if turn.role == "assistant" else ""


def turns_view(inside_thought: bool) -> View:
    """How `chat` shows its turns; `inside_thought` where an answer begins with reasoning whose
    `<think>` is in the prompt."""
    return View(
        columns=("role", "content", "finish_reason", "prompt_tokens", "completion_tokens", "seed"),
        text=_turn_text,
        table=screen("turns", inside_thought),
        private=True,
    )


def facts(model: Any) -> Iterator[tuple[str, str]]:
    """A model's facts by name, in words."""
    for name, value in plain(model).items():
        if value is None:
            yield name, "-"
        elif isinstance(value, bool):
            yield name, "yes" if value else "no"
        else:
            yield name, one_line(str(value))


MEMORY_COLUMNS = ("float32_bytes", "bfloat16_bytes", "machine_bytes", "fits")

MODEL = View(
    columns=(
        *("ref", "name", "task", "source", "path", "architecture", "parameters"),
        *("context_length", "dtype", "size_bytes", "license", "gated", "chat_template"),
        *MEMORY_COLUMNS,
    ),
    text=lambda model: "".join(f"{name}: {value}\n" for name, value in facts(model)),
    table=screen("model", room="model_screens"),
)

HELD_MODELS = View(
    columns=("model", "kind", "state", "memory", "requests", "idle", "process"),
    text=lambda held: line(
        held.model, held.kind, held.state, held.memory, held.requests, round(held.idle)
    ),
    table=screen("held_models", room="model_screens"),
)

ALIASES = View(
    columns=(
        *("alias", "model", "task", "here", "size_bytes", "purpose"),
        *("parameters", "context_length", "license", "gated", *MEMORY_COLUMNS),
    ),
    text=lambda alias: line(
        alias.alias, alias.model, alias.task or "-", "here" if alias.here else "-"
    ),
    table=screen("aliases", room="model_screens"),
)

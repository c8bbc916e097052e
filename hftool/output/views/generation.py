"""Views of generated text: steps, generations, chat turns."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hftool.output.view import Row, View, escaped, line, plain

if TYPE_CHECKING:
    from hftool.chat.conversation import Turn
    from hftool.generation.records import Generation
    from hftool.generation.steps import Step


def steps_view(prompt: str, *, picked: bool = False) -> View:
    """How `sample` shows its steps, after the prompt they continue; those that a person `picked`
    were seen before."""

    def table(records: Iterable["Step"], console: Any) -> Iterator[str]:
        from hftool.output.tables import steps

        return (steps.steps_taken if picked else steps.steps)(prompt, records, console)

    return View(
        columns=(
            *("step", "id", "token", "prob", "sampled_prob", "sampled_cumulative", "rank"),
            *("entropy", "kept", "drawn", "text", "candidates", *("picked",) * picked),
        ),
        text=lambda s: line(s.step, s.id, s.prob, s.sampled_prob, s.rank, escaped(s.token)),
        table=table,
    )


def _generation_rows(generation: "Generation") -> Iterator[Row]:
    row = plain(generation)
    yield {**row, **row.pop("usage", {})}


def _texts_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import generation

    return generation.texts(records, console)


GENERATION_COLUMNS = (
    *("index", "prompt", "text", "finish_reason", "stop", "prompt_tokens"),
    *("completion_tokens", "seed", "seconds", "tokens_per_second"),
)

GENERATION = View(
    columns=GENERATION_COLUMNS,
    text=lambda generation: "\n",
    rows=_generation_rows,
    table=_texts_table,
)

GENERATION_BATCH = replace(
    GENERATION, columns=("id", *GENERATION_COLUMNS, "line", "error"), default="jsonl"
)


def _turn_text(turn: "Turn") -> str:
    return "\n" if turn.role == "assistant" else ""


def turns_view(inside_thought: bool) -> View:
    """How `chat` shows its turns; `inside_thought` where an answer begins with reasoning whose
    `<think>` is in the prompt."""

    def table(events: Iterable[Any], console: Any) -> Iterator[str]:
        from hftool.output.tables import generation

        return generation.turns(inside_thought, events, console)

    return View(
        columns=("role", "content", "finish_reason", "prompt_tokens", "completion_tokens", "seed"),
        text=_turn_text,
        table=table,
        private=True,
    )

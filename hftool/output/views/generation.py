"""Views of generated text: steps, generations, and the turns of a chat."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hftool.generation.openai_batch import CustomId, answer_of
from hftool.generation.records import FailedRequest, Generation
from hftool.output.view import Row, View, escaped, line, plain

if TYPE_CHECKING:
    from hftool.chat.turns import Turn
    from hftool.generation.candidates import Step


def steps_view(
    prompt: str, *, picked: bool = False, remote: bool = False, show_probs: bool = False
) -> View:
    """Return the view of `sample`'s steps.

    Args:
        prompt: the text that the steps continue.
        picked: the user picked the tokens, and has seen the candidates of each step.
        remote: the steps are an endpoint's, which shows the best tokens only.
        show_probs: whether to shade the text by the probabilities of its tokens.
    """

    def table(records: Iterable["Step"], console: Any) -> Iterator[str]:
        from hftool.output.tables import steps

        show = steps.picked_steps if picked else steps.steps
        return show(prompt, records, console, show_probs=show_probs)

    def text(s: "Step") -> str:
        unseen = () if s.unseen is None else (s.unseen,)
        return line(s.step, s.id, s.prob, s.sampled_prob, s.rank, escaped(s.token), *unseen)

    return View(
        columns=(
            *("step", "id", "token", "prob", "sampled_prob", "sampled_cumulative", "rank"),
            *("entropy", "sampled_entropy", "kept", "drawn", "text", "candidates"),
            *(*("picked",) * picked, *("unseen",) * remote),
        ),
        text=text,
        table=table,
    )


def _generation_text(record: Generation | FailedRequest) -> str:
    """Return the text and a line break; a failed record leaves an empty line."""
    return "\n" if isinstance(record, FailedRequest) else f"{record.text}\n"


def _generation_rows(record: Generation | FailedRequest) -> Iterator[Row]:
    row = plain(record)
    yield {**row, **(row.pop("usage", None) or {})}


def _generation_table(events: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import generation

    return generation.texts(_generation_text, events, console)


GENERATION_COLUMNS = (
    *("index", "prompt", "text", "reasoning", "finish_reason", "stop", "prompt_tokens"),
    *("completion_tokens", "seed", "seconds", "tokens_per_second"),
)

GENERATION = View(
    columns=GENERATION_COLUMNS,
    text=_generation_text,
    rows=_generation_rows,
    table=_generation_table,
)

GENERATION_LINES = replace(GENERATION, columns=(*GENERATION_COLUMNS, "line", "error"))

GENERATION_BATCH = replace(
    GENERATION, columns=("id", *GENERATION_COLUMNS, "line", "error"), default="jsonl"
)


def batch_view(model: str) -> View:
    """Return the view of a batch's records: requests in OpenAI's form are answered in its form.

    Args:
        model: the name of the model.
    """

    def record(made: Generation | FailedRequest) -> Any:
        return answer_of(made, model) if isinstance(made.id, CustomId) else plain(made)

    return replace(GENERATION_BATCH, record=record)


def _turn_text(turn: "Turn") -> str:
    return f"{turn.content}\n" if turn.role == "assistant" else ""


def _turn_end(turn: "Turn") -> str:
    return "\n" if turn.role == "assistant" else ""


def _turns_table(events: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import generation

    return generation.turns(events, console)


TURNS = View(
    columns=(
        *("role", "content", "finish_reason", "prompt_tokens", "completion_tokens", "seed"),
        "reasoning",
    ),
    text=_turn_text,
    end=_turn_end,
    table=_turns_table,
    private=True,
)

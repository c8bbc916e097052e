"""Commands whose model is behind an endpoint."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hftool.options.inputs import InputOptions, PromptOptions
from hftool.options.model import LoadOptions
from hftool.options.output import ResumableOptions, TableOptions
from hftool.options.score import ScoreOptions

if TYPE_CHECKING:
    from hftool.generation.scoring import TextScore
    from hftool.inputs.tables import TextRow
    from hftool.options.generation import GenerateOptions
    from hftool.prompting.prompt import Prompt


def generate_prompts_at(
    address: str,
    load: LoadOptions,
    prompts: "Iterator[Prompt]",
    options: "GenerateOptions",
    output: ResumableOptions,
    concurrency: int,
    *,
    stream: bool,
    lines: bool,
) -> None:
    """Run `generate` for prompts."""
    from hftool.endpoint.generate import generate_prompts
    from hftool.endpoint.server import connect
    from hftool.generation.batch_file import FailureCounter
    from hftool.output.formats import format_name
    from hftool.output.views.generation import GENERATION, GENERATION_LINES
    from hftool.output.writer import write

    view = GENERATION_LINES if lines else GENERATION
    # Records need no pieces, and of a whole text a server counts the tokens.
    streamed = stream and format_name(output, view) in ("text", "table")
    failures = FailureCounter(named="line", hint=None)  # a warning has named each
    endpoint = connect(address, load, concurrency)
    events = generate_prompts(
        endpoint, prompts, options, concurrency, streamed=streamed, lines=lines
    )
    write(failures.count(events), view, output)
    failures.require_none()


def remote_scores(
    address: str,
    load: LoadOptions,
    prompting: PromptOptions,
    scoring: ScoreOptions,
    output: TableOptions,
    concurrency: int,
) -> "Callable[[Iterator[TextRow], int], Iterator[TextScore]]":
    """Return what scores the texts of rows for `score`, given how many texts are done."""
    from hftool.endpoint.parameters import require_known_prompting
    from hftool.endpoint.scores import require_right_logprobs, score_texts
    from hftool.endpoint.server import connect, refuse

    shown = {"--by token": scoring.by == "token", "--by word": scoring.by == "word"}
    refuse({**shown, "--stride": scoring.stride, "--batch-size": scoring.batch_size})
    refuse({"a chat": prompting.templated, "--against": scoring.against})
    endpoint = connect(address, load, concurrency)
    require_known_prompting(endpoint, prompting)
    require_right_logprobs(endpoint)

    def compute(rows: "Iterator[TextRow]", done: int) -> "Iterator[TextScore]":
        return score_texts(
            *(endpoint, rows, scoring),
            special=prompting.special,
            concurrency=concurrency,
            on_error=output.on_error,
            first_index=done,
        )

    return compute


def generate_batch_at(
    address: str,
    load: LoadOptions,
    lines: Iterator[bytes],
    inputs: InputOptions,
    options: "GenerateOptions",
    output: ResumableOptions,
    concurrency: int,
    from_where: Mapping[str, Any],
) -> None:
    """Run `generate --batch`.

    Args:
        from_where: the settings of the run that are those of its input.
    """
    from hftool.endpoint.generate import generate_batch
    from hftool.endpoint.server import connect
    from hftool.generation.batch_file import FailureCounter, completion_tokens, numbered_records
    from hftool.output.progress import show_progress
    from hftool.output.resume import remaining, resumable
    from hftool.output.run_log import Settings, run_settings
    from hftool.output.views.generation import batch_view
    from hftool.output.writer import write

    def settings() -> Settings:
        shaping = (load, options.prompting, options.sampling, options.generation)
        constraint = options.constraint
        others = {} if constraint is None else {constraint.kind: constraint.text}
        made = run_settings(
            *shaping, model=address, model_digest="", errors=inputs.errors, **others
        )
        return {**made, **from_where}

    endpoint = connect(address, load, concurrency)
    view = batch_view(endpoint.name)
    with resumable(output, view, settings) as partial:
        failures = FailureCounter(partial.failed if partial else 0)
        rest = remaining(partial, numbered_records(lines), lambda line: line.data.strip())
        records = failures.count(generate_batch(endpoint, rest, inputs, options, concurrency))
        records = show_progress(records, output, "records", "tokens", completion_tokens)
        write(records, view, output, partial)
    failures.require_none()

"""Commands whose model is behind an endpoint."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hftool.options.inputs import InputOptions
from hftool.options.model import LoadOptions
from hftool.options.output import ResumableOptions

if TYPE_CHECKING:
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


def generate_batch_at(
    address: str,
    load: LoadOptions,
    lines: Iterator[bytes],
    inputs: InputOptions,
    options: "GenerateOptions",
    output: ResumableOptions,
    concurrency: int,
) -> None:
    """Run `generate --batch`."""
    from hftool.endpoint.generate import generate_batch
    from hftool.endpoint.server import connect
    from hftool.generation.batch_file import FailureCounter, completion_tokens, numbered_records
    from hftool.output.progress import show_progress
    from hftool.output.resume import remaining, resumable
    from hftool.output.run_log import Settings, run_settings
    from hftool.output.views.generation import GENERATION_BATCH
    from hftool.output.writer import write

    def settings() -> Settings:
        shaping = (load, options.prompting, options.sampling, options.generation)
        return run_settings(*shaping, model=address, model_digest="", errors=inputs.errors)

    endpoint = connect(address, load, concurrency)
    with resumable(output, GENERATION_BATCH, settings) as partial:
        failures = FailureCounter(partial.failed if partial else 0)
        rest = remaining(partial, numbered_records(lines), lambda line: line.data.strip())
        records = failures.count(generate_batch(endpoint, rest, inputs, options, concurrency))
        records = show_progress(records, output, "records", "tokens", completion_tokens)
        write(records, GENERATION_BATCH, output, partial)
    failures.require_none()

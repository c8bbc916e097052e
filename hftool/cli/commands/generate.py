"""`hftool generate`"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.cli.endpoints import generate_batch_at, generate_prompts_at
from hftool.options.constraints import ConstraintOptions
from hftool.options.endpoint import DEFAULT_CONCURRENCY, ConcurrencyOption
from hftool.options.engine import EngineOptions
from hftool.options.generation import GenerationOptions
from hftool.options.inputs import InputOptions, PromptOptions, TextArgument
from hftool.options.model import LoadOptions
from hftool.options.output import ResumableOptions, ShowProbsOption
from hftool.options.sampling import SamplingOptions
from hftool.options.shared import option

if TYPE_CHECKING:
    from hftool.options.generation import GenerateOptions
    from hftool.prompting.prompt import Prompt


@expand_dataclasses
def generate(
    prompt: TextArgument = None,
    *,
    load: LoadOptions,
    inputs: InputOptions,
    prompting: PromptOptions,
    batch: Annotated[
        Path | None,
        option(
            "--batch",
            metavar="FILE",
            help="Run the prompts in FILE (JSON Lines, or OpenAI's).",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        option(
            "--batch-size",
            metavar="N",
            min=1,
            show_default="as memory allows",
            help="Number of prompts run together.",
        ),
    ] = None,
    generation: GenerationOptions,
    sampling: SamplingOptions,
    constraints: ConstraintOptions,
    concurrency: ConcurrencyOption = DEFAULT_CONCURRENCY,
    engine: EngineOptions,
    no_stream: Annotated[
        bool, option("--no-stream", help="Write each text when it is complete.")
    ] = False,
    show_probs: ShowProbsOption = False,
    output: ResumableOptions,
) -> None:
    """Continue a text, or answer it with --chat.

    Examples:
        hftool generate "Once upon a time" -n 40 --seed 7
        # Answers instead of continuations; the second one is JSON with these fields
        hftool generate --chat "What is the capital of France?" --greedy
        hftool generate --chat "Invent a person." --schema "name, age int"
        # Prompts with their own options; --resume continues an interrupted run
        hftool generate --batch prompts.jsonl -o answers.jsonl --resume
    """
    from hftool.errors import UsageError, exclude
    from hftool.generation.batch_file import batch_lines, require_only_batch
    from hftool.generation.constraints import read_constraint
    from hftool.models.references import endpoint_address
    from hftool.models.remote_inputs import RemoteInputs
    from hftool.options.generation import GenerateOptions
    from hftool.prompting.prompt import prompts

    if batch is None and (output.resume or batch_size is not None):
        raise UsageError(f"{'--resume' if output.resume else '--batch-size'} needs --batch FILE")
    exclude({"--batch": batch is not None, "--messages": prompting.messages is not None})
    if show_probs:
        from hftool.output.tables.shading import require_colors

        exclude({"--show-probs": True, "--batch": batch is not None})
        exclude({"--show-probs": True, "--no-stream": no_stream})
        require_colors(output)
    constraint = read_constraint(constraints)
    options = GenerateOptions(prompting, sampling, generation, show_probs, constraint)
    address = endpoint_address(load.model)
    exclude({"a model behind an endpoint": address is not None, "--show-probs": show_probs})
    exclude({"a model behind an endpoint": address is not None, "--engine ray": engine.on_ray})
    if address is None:
        from hftool.generation.strategies import require_compatible

        require_compatible(generation)
    elif batch_size is not None:
        raise UsageError("--batch-size does not work with an endpoint", "use --concurrency N")
    remote = RemoteInputs(load)
    inputs = remote.texts(inputs)
    if engine.on_ray:
        from hftool.jobs.generate import GenerateJob, generate_files

        if batch is None:
            raise UsageError("--engine ray needs --batch FOLDER")
        require_only_batch(prompt, inputs, generation)
        job = GenerateJob(load, inputs, options, batch_size)
        generate_files(remote.files([batch]), job, engine, output)
        return
    if batch is not None:
        lines = batch_lines(remote.file(batch), prompt, inputs, generation)
        from_where = remote.settings()
        if address is not None:
            how = (options, output, concurrency, from_where)
            generate_batch_at(address, load, lines, inputs, *how)
        else:
            _generate_batch(lines, load, inputs, options, batch_size, output, from_where)
        return
    given, streamed = prompts(prompt, inputs, prompting), not no_stream
    if address is not None:
        shape = {"stream": streamed, "lines": inputs.lines}
        generate_prompts_at(address, load, given, options, output, concurrency, **shape)
    else:
        _generate_prompts(given, load, options, output, stream=streamed, lines=inputs.lines)


def _generate_prompts(
    prompts: Iterator["Prompt"],
    load: LoadOptions,
    options: "GenerateOptions",
    output: ResumableOptions,
    *,
    stream: bool,
    lines: bool,
) -> None:
    from hftool.generation.batch_file import FailureCounter
    from hftool.generation.requests import requests_of_prompts
    from hftool.generation.strategies import generate_prompts, load_candidate_generator
    from hftool.models.load import load_language_model
    from hftool.output.views.generation import GENERATION, GENERATION_LINES
    from hftool.output.writer import write

    language_model = load_language_model(load, beams=options.generation.num_beams)
    requests = requests_of_prompts(language_model, prompts, options, lines=lines)
    guesses = load_candidate_generator(language_model, load, options.generation)
    events = generate_prompts(
        language_model, requests, options.generation, guesses, stream=stream, lines=lines
    )
    failures = FailureCounter(named="line", hint=None)  # a warning has named each
    write(failures.count(events), GENERATION_LINES if lines else GENERATION, output)
    failures.require_none()


def _generate_batch(
    lines: Iterator[bytes],
    load: LoadOptions,
    inputs: InputOptions,
    options: "GenerateOptions",
    batch_size: int | None,
    output: ResumableOptions,
    from_where: Mapping[str, Any],
) -> None:
    from hftool.generation.batch import generate_batch
    from hftool.generation.batch_file import (
        FailureCounter,
        completion_tokens,
        numbered_records,
    )
    from hftool.generation.requests import requests_of_records
    from hftool.generation.strategies import load_candidate_generator
    from hftool.models.fingerprint import model_digest
    from hftool.models.load import load_language_model
    from hftool.output.progress import show_progress
    from hftool.output.resume import remaining, resumable
    from hftool.output.run_log import Settings, run_settings
    from hftool.output.views.generation import batch_view
    from hftool.output.writer import write

    def settings() -> Settings:
        shaping = (load, options.prompting, options.sampling, options.generation)
        digest = model_digest(load.model, load)
        constraint = options.constraint
        others = {} if constraint is None else {constraint.kind: constraint.text}
        made = run_settings(
            *shaping, model=load.model, model_digest=digest, errors=inputs.errors, **others
        )
        return {**made, **from_where}

    view = batch_view(load.model)
    with resumable(output, view, settings) as partial:
        failures = FailureCounter(partial.failed if partial else 0)
        language_model = load_language_model(load, beams=options.generation.num_beams)
        rest = remaining(partial, numbered_records(lines), lambda line: line.data.strip())
        requests = requests_of_records(language_model, rest, inputs, options)
        guesses = load_candidate_generator(language_model, load, options.generation)
        records = failures.count(generate_batch(language_model, requests, batch_size, guesses))
        records = show_progress(records, output, "records", "tokens", completion_tokens)
        write(records, view, output, partial)
    failures.require_none()

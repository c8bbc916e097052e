"""`hftool generate`"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from hftool.cli.dataclass_options import expand_dataclasses
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
    from hftool.generation.batch_file import BatchLine
    from hftool.generation.records import FailedRequest, Generation, Piece
    from hftool.models.remote_inputs import RemoteInputs
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
    from hftool.generation.batch_file import FailureCounter, batch_lines, require_only_batch
    from hftool.generation.constraints import read_constraint
    from hftool.models.references import endpoint_address
    from hftool.models.remote_inputs import RemoteInputs
    from hftool.options.generation import GenerateOptions
    from hftool.output.views.generation import GENERATION, GENERATION_LINES
    from hftool.output.writer import write
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
    remote = RemoteInputs(load, whole=engine.on_ray)
    inputs = remote.texts(inputs)
    if engine.on_ray:
        from hftool.jobs.generate import GenerateJob, generate_files

        if batch is None:
            raise UsageError("--engine ray needs --batch FOLDER")
        require_only_batch(prompt, inputs, generation)
        job = GenerateJob(load=load, files=inputs, options=options, batch_size=batch_size)
        generate_files(remote.files([batch]), job, engine, output)
        return
    if batch is not None:
        lines = batch_lines(remote.file(batch), prompt, inputs, generation)
        _run_batch(lines, address, load, inputs, options, batch_size, concurrency, output, remote)
        return
    events = _events(
        prompts(prompt, inputs, prompting),
        *(address, load, options, concurrency, output),
        stream=not no_stream,
        lines=inputs.lines,
    )
    failures = FailureCounter(named="line", hint=None)  # a warning has named each
    write(failures.count(events), GENERATION_LINES if inputs.lines else GENERATION, output)
    failures.require_none()


def _events(
    prompts: Iterator["Prompt"],
    address: str | None,
    load: LoadOptions,
    options: "GenerateOptions",
    concurrency: int,
    output: ResumableOptions,
    *,
    stream: bool,
    lines: bool,
) -> Iterator["Piece | Generation | FailedRequest"]:
    """Return the pieces and the records of texts."""
    if address is not None:
        from hftool.cli.runs.remote import events_at

        return events_at(
            address, load, prompts, options, output, concurrency, stream=stream, lines=lines
        )
    from hftool.generation.requests import requests_of_prompts
    from hftool.generation.strategies import generate_prompts, load_candidate_generator
    from hftool.models.load import load_language_model

    language_model = load_language_model(load, beams=options.generation.num_beams)
    requests = requests_of_prompts(language_model, prompts, options, lines=lines)
    guesses = load_candidate_generator(language_model, load, options.generation)
    return generate_prompts(
        language_model, requests, options.generation, guesses, stream=stream, lines=lines
    )


def _run_batch(
    lines: Iterator[bytes],
    address: str | None,
    load: LoadOptions,
    inputs: InputOptions,
    options: "GenerateOptions",
    batch_size: int | None,
    concurrency: int,
    output: ResumableOptions,
    remote: "RemoteInputs",
) -> None:
    from hftool.endpoint.generate import generate_batch as generate_batch_at
    from hftool.endpoint.server import connect
    from hftool.output.batch_run import run_batch
    from hftool.output.run_log import Settings, run_settings

    endpoint = address and connect(address, load, concurrency)

    def compute(rest: Iterator["BatchLine"]) -> Iterator["Generation | FailedRequest"]:
        if endpoint:
            return generate_batch_at(endpoint, rest, inputs, options, concurrency)
        from hftool.generation.batch import generate_batch
        from hftool.generation.requests import requests_of_records
        from hftool.generation.strategies import load_candidate_generator
        from hftool.models.load import load_language_model

        model = load_language_model(load, beams=options.generation.num_beams)
        requests = requests_of_records(model, rest, inputs, options)
        guesses = load_candidate_generator(model, load, options.generation)
        return generate_batch(model, requests, batch_size, guesses)

    def settings() -> Settings:
        from hftool.models.fingerprint import model_digest

        shaping = (load, options.prompting, options.sampling, options.generation)
        named = {
            "model": address or load.model,
            "model_digest": "" if address else model_digest(load.model, load),
        }
        constraint = options.constraint
        others = {} if constraint is None else {constraint.kind: constraint.text}
        made = run_settings(*shaping, **named, errors=inputs.errors, **others)
        return {**made, **remote.settings()}

    run_batch(lines, compute, endpoint.name if endpoint else load.model, output, settings)

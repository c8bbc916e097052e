"""`hftool generate`"""

from typing import Annotated

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.errors import UsageError, exclude
from hftool.options.constraints import ConstraintOptions
from hftool.options.endpoint import DEFAULT_CONCURRENCY, ConcurrencyOption
from hftool.options.engine import EngineOptions
from hftool.options.generation import BatchOptions, GenerationOptions
from hftool.options.inputs import InputOptions, PromptOptions, TextArgument
from hftool.options.model import LoadOptions
from hftool.options.output import ResumableOptions, ShowProbsOption
from hftool.options.sampling import SamplingOptions
from hftool.options.shared import option


@expand_dataclasses
def generate(
    prompt: TextArgument = None,
    *,
    load: LoadOptions,
    inputs: InputOptions,
    prompting: PromptOptions,
    batching: BatchOptions,
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
    from hftool.cli.runs.generate import GenerateRun
    from hftool.generation.batch_file import batch_lines, require_only_batch
    from hftool.generation.constraints import read_constraint
    from hftool.models.remote_inputs import RemoteInputs
    from hftool.options.generation import GenerateOptions
    from hftool.prompting.prompt import prompts

    batch = batching.batch
    _require_batch(batching, prompting, output)
    if show_probs:
        _require_streamed(batching, output, no_stream=no_stream)
    constraint = read_constraint(constraints)
    options = GenerateOptions(prompting, sampling, generation, show_probs, constraint)
    run = GenerateRun(load, options, output, batching.batch_size, concurrency)
    run.require_compatible(engine)
    remote = RemoteInputs(load, whole=engine.on_ray)
    inputs = remote.texts(inputs)
    if batch is None:
        if engine.on_ray:
            raise UsageError("--engine ray needs --batch FOLDER")
        given = prompts(prompt, inputs, prompting)
        run.write_texts(given, stream=not no_stream, lines=inputs.lines)
    elif engine.on_ray:
        require_only_batch(prompt, inputs, generation)
        run.write_on_ray(remote.files([batch]), inputs, engine)
    else:
        run.write_batch(batch_lines(remote.file(batch), prompt, inputs, generation), inputs, remote)


def _require_batch(
    batching: BatchOptions, prompting: PromptOptions, output: ResumableOptions
) -> None:
    """Raise where an option needs a batch, or has no use in one.

    Raises:
        UsageError: with the option.
    """
    if batching.batch is not None:
        exclude({"--batch": True, "--messages": prompting.messages is not None})
    elif output.resume or batching.batch_size is not None:
        raise UsageError(f"{'--resume' if output.resume else '--batch-size'} needs --batch FILE")


def _require_streamed(batching: BatchOptions, output: ResumableOptions, *, no_stream: bool) -> None:
    """Raise where `--show-probs` can't show a text as it comes.

    Raises:
        UsageError: with what is in the way.
    """
    from hftool.output.tables.shading import require_colors

    exclude({"--show-probs": True, "--batch": batching.batch is not None})
    exclude({"--show-probs": True, "--no-stream": no_stream})
    require_colors(output)

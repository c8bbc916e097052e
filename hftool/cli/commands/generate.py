"""`hftool generate`"""

from pathlib import Path
from typing import Annotated

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.options.generation import GenerationOptions, SamplingOptions
from hftool.options.inputs import InputOptions, PromptOptions, TextArgument
from hftool.options.model import LoadOptions
from hftool.options.output import ResumableOptions
from hftool.options.shared import option


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
            "--batch", metavar="FILE", help="Run the prompts in FILE, one JSON record per line."
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
    no_stream: Annotated[
        bool, option("--no-stream", help="Write each text when it is complete.")
    ] = False,
    output: ResumableOptions,
) -> None:
    """Continue a text, or answer it with --chat.

    Examples:
        hftool generate "Once upon a time" -n 40 --seed 7
        # An answer instead of a continuation
        hftool generate --chat "What is the capital of France?" --greedy
        # One prompt per line
        hftool generate --lines -f prompts.txt -n 20 --format jsonl
        # Prompts with their own options; --resume continues an interrupted run
        hftool generate --batch prompts.jsonl -o answers.jsonl --resume
    """
    from hftool.generation.batch import generate_batch
    from hftool.generation.batch_file import Tally, record_lines, requests_of_records, shared_fields
    from hftool.generation.requests import GenerateOptions, requests_of_prompts
    from hftool.generation.strategies import (
        candidate_generator,
        generate_prompts,
        require_compatible,
    )
    from hftool.inputs.texts import texts
    from hftool.models.load import load_language_model
    from hftool.output.progress import shown
    from hftool.output.resume import remaining, resumable
    from hftool.output.views.generation import GENERATION, GENERATION_BATCH
    from hftool.output.writer import write

    require_compatible(generation)
    asked = GenerateOptions(prompting, sampling, generation)
    if batch is not None:
        lines = record_lines(batch, prompt, inputs, generation)
        with resumable(output, GENERATION_BATCH) as partial:
            tally = Tally(partial.having("error") if partial else 0)
            language_model = load_language_model(load)
            records = requests_of_records(language_model, lines, inputs, asked)
            rest = remaining(partial, records, shared_fields)
            draft = candidate_generator(language_model, load, generation)
            events = tally.counted(generate_batch(language_model, rest, batch_size, draft))
            write(shown(events, output), GENERATION_BATCH, output, partial)
        tally.require_none_failed()
        return
    given = texts(prompt, inputs)
    language_model = load_language_model(load)
    requests = requests_of_prompts(language_model, given, asked)
    draft = candidate_generator(language_model, load, generation)
    continued = generate_prompts(
        language_model, requests, generation, draft, streamed=not no_stream
    )
    write(continued, GENERATION, output)

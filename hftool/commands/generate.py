"""`hftool generate`"""

from pathlib import Path
from typing import Annotated

import typer

from hftool.generation_options import GenerationOptions, SamplingOptions
from hftool.options import InputOptions, LoadOptions, PromptOptions, ResumableOptions, TextArgument
from hftool.spread import spread


@spread
def generate(
    prompt: TextArgument = None,
    *,
    load: LoadOptions,
    inputs: InputOptions,
    prompting: PromptOptions,
    batch: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A JSON record a line: prompt or messages, options."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, show_default="by the memory", help="Prompts at once."),
    ] = None,
    generation: GenerationOptions,
    sampling: SamplingOptions,
    no_stream: Annotated[
        bool, typer.Option("--no-stream", help="Write each text when it is complete.")
    ] = False,
    output: ResumableOptions,
) -> None:
    """Continue a text, or answer it with --chat.

    Examples:
        hftool generate "Once upon a time" -n 40 --seed 7
        # An answer instead of a continuation
        hftool generate --chat "What is the capital of France?" --greedy
        # One prompt a line
        hftool generate --lines -f prompts.txt -n 20 --format jsonl
        # Prompts with options of their own; goes on where it was cut off
        hftool generate --batch prompts.jsonl -o answers.jsonl --resume
    """
    from hftool import prompts
    from hftool.batching import generate_batch, generate_prompts
    from hftool.inputs import texts
    from hftool.models.load import load_language_model
    from hftool.output.formats import write
    from hftool.output.progress import shown
    from hftool.output.resume import remaining, resumable
    from hftool.output.views import GENERATION, GENERATION_BATCH
    from hftool.strategies import draft_of, require_compatible

    require_compatible(generation)
    asked = prompts.Asked(prompting, sampling, generation)
    if batch is not None:
        lines = prompts.record_lines(batch, prompt, inputs, generation)
        with resumable(output, GENERATION_BATCH) as partial:
            tally = prompts.Tally(partial.having("error") if partial else 0)
            language_model = load_language_model(load)
            records = prompts.requests_of_records(language_model, lines, inputs, asked)
            rest = remaining(partial, records, prompts.shared_fields)
            draft = draft_of(language_model, load, generation)
            events = tally.counted(generate_batch(language_model, rest, batch_size, draft))
            write(shown(events, output), GENERATION_BATCH, output, partial)
        tally.require_none_failed()
        return
    given = texts(prompt, inputs)
    language_model = load_language_model(load)
    requests = prompts.requests_of_prompts(language_model, given, asked)
    draft = draft_of(language_model, load, generation)
    continued = generate_prompts(
        language_model, requests, generation, draft, streamed=not no_stream
    )
    write(continued, GENERATION, output)

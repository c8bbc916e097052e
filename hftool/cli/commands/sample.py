"""`hftool sample`"""

from pathlib import Path
from typing import Annotated

import typer

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.options.generation import SamplingOptions
from hftool.options.inputs import FileOptions, PromptOptions, TextArgument
from hftool.options.model import LoadOptions
from hftool.options.output import PictureOptions


@expand_dataclasses
def sample(
    prompt: TextArgument = None,
    *,
    load: LoadOptions,
    inputs: FileOptions,
    prompting: PromptOptions,
    steps: Annotated[
        int, typer.Option("--steps", metavar="N", min=1, help="How many tokens.")
    ] = 20,
    k: Annotated[
        int, typer.Option("-k", "--k", metavar="N", min=1, help="Candidates shown a step.")
    ] = 5,
    sampling: SamplingOptions,
    pick: Annotated[
        bool, typer.Option("--pick", help="Choose each token yourself, at a terminal.")
    ] = False,
    trace: Annotated[
        Path | None, typer.Option("--trace", metavar="FILE", help="Keep the run in FILE.")
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option("--replay", metavar="FILE", help="Make a kept run again, and compare."),
    ] = None,
    output: PictureOptions,
) -> None:
    """Generate step by step, and show what each step chose from.

    Examples:
        hftool sample "你是谁" --steps 5 --seed 7
        # What the filters leave of each distribution
        hftool sample "1+1=" --steps 3 --top-k 3 --temperature 0.7 --format table
        # Keep a run, and make it again
        hftool sample "Once upon a time" --steps 5 --trace run.jsonl
        hftool sample --replay run.jsonl
    """
    from hftool.cli import token_picker
    from hftool.errors import UsageError
    from hftool.generation.steps import sampler_of_prompt
    from hftool.generation.trace import read_trace, recording, replayed, sampler_of_trace
    from hftool.inputs.texts import one_text
    from hftool.models.load import load_language_model
    from hftool.output.views.generation import steps_view
    from hftool.output.writer import write

    if pick:
        token_picker.require_terminal()
    if replay is not None:
        if pick or prompt is not None:
            raise UsageError("--replay takes its prompt from the trace: leave out TEXT and --pick")
        run = read_trace(one_text(None, FileOptions(replay)))
        sampler = sampler_of_trace(load_language_model(load), run, k=k)
        records = replayed(sampler, run)
    else:
        text = one_text(prompt, inputs)
        sampler = sampler_of_prompt(
            load_language_model(load), text, prompting, sampling, max_steps=steps, k=k
        )
        records = token_picker.picked_steps(sampler, output.color) if pick else sampler.run()
    with recording(trace, sampler, records) as recorded:
        write(recorded, steps_view(sampler.prompt, picked=pick), output)

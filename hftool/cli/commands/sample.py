"""`hftool sample`"""

from pathlib import Path
from typing import Annotated

import typer

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.cli.endpoints import write_steps_at
from hftool.options.constraints import ConstraintOptions
from hftool.options.inputs import FileOptions, PromptOptions, TextArgument
from hftool.options.model import ExactLoadOptions
from hftool.options.output import PictureOptions, ShowProbsOption
from hftool.options.sampling import SamplingOptions
from hftool.options.shared import option


@expand_dataclasses
def sample(
    context: typer.Context,
    prompt: TextArgument = None,
    *,
    load: ExactLoadOptions,
    inputs: FileOptions,
    prompting: PromptOptions,
    steps: Annotated[
        int | None,
        option(
            "--steps",
            metavar="N",
            min=1,
            show_default="20, or fewer by the model",
            help="Number of tokens to generate.",
        ),
    ] = None,
    k: Annotated[
        int, option("-k", "--k", metavar="N", min=1, help="Number of candidates to show per step.")
    ] = 5,
    sampling: SamplingOptions,
    constraints: ConstraintOptions,
    pick: Annotated[
        bool, option("--pick", help="Choose each token yourself, on a terminal.")
    ] = False,
    trace: Annotated[
        Path | None, option("--trace", metavar="FILE", help="Record the run in FILE.")
    ] = None,
    replay: Annotated[
        Path | None,
        option(
            "--replay",
            metavar="FILE",
            help="Replay a recorded run with its model and settings, and check its tokens.",
        ),
    ] = None,
    show_probs: ShowProbsOption = False,
    output: PictureOptions,
) -> None:
    """Generate step by step, showing the candidates.

    Examples:
        hftool sample "你是谁" --steps 5 --seed 7
        # What the filters leave of each distribution, as a table
        hftool sample "1+1=" --steps 3 --top-k 3 --temperature 0.7 --format table
        # Record a run, and replay it
        hftool sample "Once upon a time" --steps 5 --trace run.jsonl
        hftool sample --replay run.jsonl
    """
    from hftool.endpoint.server import refuse
    from hftool.generation.constraints import read_constraint
    from hftool.models.references import endpoint_address
    from hftool.options.generation import DEFAULT_STEPS, GenerateOptions, GenerationOptions
    from hftool.prompting.prompt import prompts

    if show_probs:
        from hftool.output.tables.shading import require_colors

        require_colors(output)
    if replay is None and (address := endpoint_address(load.model)):
        refuse({"--pick": pick, "--trace": trace})
        [given] = prompts(prompt, inputs, prompting)
        generation = GenerationOptions(max_new_tokens=steps or DEFAULT_STEPS, top_logprobs=k)
        constraint = read_constraint(constraints)
        options = GenerateOptions(prompting, sampling, generation, show_probs, constraint)
        write_steps_at(address, load, given, options, output)
        return
    from hftool.cli import token_picker
    from hftool.cli.given_options import given_options
    from hftool.generation.steps import sampler_of_prompt
    from hftool.generation.trace import (
        read_trace,
        recording,
        replay_options,
        replayed,
        sampler_of_trace,
    )
    from hftool.inputs.texts import one_text
    from hftool.models.load import load_language_model
    from hftool.output.views.generation import steps_view
    from hftool.output.writer import write

    if pick:
        token_picker.require_terminal()
    if replay is not None:
        run = read_trace(one_text(None, FileOptions(replay)))
        load = replay_options(run, load, given_options(context))
        sampler = sampler_of_trace(load_language_model(load), run, k=k)
        records = replayed(sampler, run)
    else:
        constraint = read_constraint(constraints)
        [given] = prompts(prompt, inputs, prompting)
        sampler = sampler_of_prompt(
            load_language_model(load),
            given,
            prompting,
            sampling,
            max_steps=steps,
            k=k,
            constraint=constraint,
        )
        records = token_picker.picked_steps(sampler, output.color) if pick else sampler.run()
    view = steps_view(sampler.prompt, picked=pick, show_probs=show_probs)
    with recording(trace, load, sampler, records) as recorded:
        write(recorded, view, output)

"""`hftool sample`"""

import typer

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.cli.given_options import given_options
from hftool.cli.token_picker import require_terminal
from hftool.options.constraints import ConstraintOptions
from hftool.options.inputs import FileOptions, PromptOptions, TextArgument
from hftool.options.model import ExactLoadOptions
from hftool.options.output import PictureOptions
from hftool.options.sample import StepOptions
from hftool.options.sampling import SamplingOptions


@expand_dataclasses
def sample(
    context: typer.Context,
    prompt: TextArgument = None,
    *,
    load: ExactLoadOptions,
    inputs: FileOptions,
    prompting: PromptOptions,
    stepping: StepOptions,
    sampling: SamplingOptions,
    constraints: ConstraintOptions,
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
    from hftool.generation.constraints import read_constraint
    from hftool.models.references import endpoint_address
    from hftool.prompting.prompt import prompts

    if stepping.show_probs:
        from hftool.output.tables.shading import require_colors

        require_colors(output)
    if stepping.replay is not None:
        from hftool.cli.runs.sample import replay_steps

        replay_steps(stepping.replay, load, given_options(context), stepping, output)
        return
    address = endpoint_address(load.model)
    if address is not None:
        from hftool.endpoint.server import refuse

        refuse({"--pick": stepping.pick, "--trace": stepping.trace})
    elif stepping.pick:
        require_terminal()
    constraint = read_constraint(constraints)
    [given] = prompts(prompt, inputs, prompting)
    how = (prompting, sampling, constraint, stepping, output)
    if address is not None:
        from hftool.cli.runs.remote import write_steps_at

        write_steps_at(address, load, given, *how)
    else:
        from hftool.cli.runs.sample import write_steps

        write_steps(load, given, *how)

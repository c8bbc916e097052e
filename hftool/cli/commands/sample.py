"""`hftool sample`"""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.options.generation import SamplingOptions
from hftool.options.inputs import FileOptions, PromptOptions, TextArgument
from hftool.options.model import LoadOptions
from hftool.options.output import PictureOptions
from hftool.options.shared import option


@expand_dataclasses
def sample(
    prompt: TextArgument = None,
    *,
    load: LoadOptions,
    inputs: FileOptions,
    prompting: PromptOptions,
    steps: Annotated[
        int, option("--steps", metavar="N", min=1, help="Number of tokens to generate.")
    ] = 20,
    k: Annotated[
        int, option("-k", "--k", metavar="N", min=1, help="Number of candidates to show per step.")
    ] = 5,
    sampling: SamplingOptions,
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
            help="Replay a recorded run and check that it gives the same tokens.",
        ),
    ] = None,
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
    from hftool.atomic_files import atomic_file
    from hftool.cli import token_picker
    from hftool.errors import UsageError
    from hftool.generation import trace as traces
    from hftool.generation.sampling import resolve_sampling
    from hftool.generation.steps import StepSampler, run_steps
    from hftool.inputs.texts import one_text
    from hftool.models.load import load_language_model
    from hftool.output.views.generation import steps_view
    from hftool.output.writer import write
    from hftool.prompting.prompt import prompt_ids

    if pick:
        token_picker.require_terminal()
    if replay is not None and (pick or prompt is not None):
        raise UsageError("--replay takes the run as it was kept: no prompt, no --pick")
    if replay is not None:
        kept = traces.read_trace(one_text(prompt, FileOptions(replay)))
        language_model = load_language_model(load)
        traces.require_model(kept, language_model)
        ids, settings, steps = list(kept.ids), kept.settings, len(kept.steps)
    else:
        text = one_text(prompt, inputs)
        language_model = load_language_model(load)
        ids = prompt_ids(language_model.tokenizer, text, prompting)
        settings = resolve_sampling(sampling, language_model.generation_config)
    shown = language_model.tokenizer.decode(ids)
    walk = StepSampler(language_model, ids, settings, steps=steps, k=k)
    if pick:
        records = token_picker.picked_steps(walk, shown, output.color)
    elif replay is not None:
        records = traces.compared(run_steps(walk, kept.picked), kept)
    else:
        records = run_steps(walk)
    with nullcontext() if trace is None else atomic_file(trace) as file:
        if file is not None:
            records = traces.write_trace(file, records, language_model, ids, settings)
        write(records, steps_view(shown, picked=pick), output)

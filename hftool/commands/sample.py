"""`hftool sample`"""

from typing import Annotated

import typer

from hftool.options import (
    FileOptions,
    LoadOptions,
    OutputOptions,
    PromptOptions,
    SamplingOptions,
    TextArgument,
    spread,
)


@spread
def sample(
    prompt: TextArgument = None,
    *,
    load: LoadOptions,
    inputs: FileOptions,
    prompting: PromptOptions,
    steps: Annotated[int, typer.Option("--steps", min=1, help="How many tokens.")] = 20,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Candidates shown a step.")] = 5,
    sampling: SamplingOptions,
    output: OutputOptions,
) -> None:
    """Generate step by step, and show what each step chose from.

    Example: hftool sample "你是谁" --steps 5 --seed 7
    """
    from hftool.encoding import prompt_ids
    from hftool.generation import sample_steps
    from hftool.inputs import one_text
    from hftool.models.load import load_language_model
    from hftool.output.formats import write
    from hftool.output.views import steps_view
    from hftool.sampling import settings_in_force

    text = one_text(prompt, inputs)
    language_model = load_language_model(load)
    ids = prompt_ids(language_model.tokenizer, text, prompting)
    settings = settings_in_force(sampling, language_model.generation_config)
    records = sample_steps(language_model, ids, settings, steps=steps, k=k)
    write(records, steps_view(language_model.tokenizer.decode(ids)), output)

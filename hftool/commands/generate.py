"""`hftool generate`"""

from typing import Annotated

import typer

from hftool.options import (
    DEFAULT_MAX_NEW_TOKENS,
    InputOptions,
    LoadOptions,
    OutputOptions,
    PromptOptions,
    SamplingOptions,
    TextArgument,
)
from hftool.spread import spread


@spread
def generate(
    prompt: TextArgument = None,
    *,
    load: LoadOptions,
    inputs: InputOptions,
    prompting: PromptOptions,
    max_new_tokens: Annotated[
        int,
        typer.Option(
            "--max-new-tokens", "--max-tokens", "-n", min=1, help="The most tokens to generate."
        ),
    ] = DEFAULT_MAX_NEW_TOKENS,
    skip_special: Annotated[
        bool, typer.Option("--skip-special/--keep-special", help="Special tokens in the text.")
    ] = True,
    sampling: SamplingOptions,
    output: OutputOptions,
) -> None:
    """Continue a text, or answer it with --chat.

    Example: hftool generate --chat "What is the capital of France?" --greedy
    """
    from hftool.generation import generate_texts
    from hftool.inputs import texts
    from hftool.models.load import load_language_model
    from hftool.output.formats import write
    from hftool.output.views import GENERATION
    from hftool.sampling import settings_in_force

    prompts = texts(prompt, inputs)
    language_model = load_language_model(load)
    settings = settings_in_force(sampling, language_model.generation_config)
    events = generate_texts(
        language_model,
        prompts,
        prompting,
        settings,
        max_new_tokens=max_new_tokens,
        skip_special=skip_special,
    )
    write(events, GENERATION, output)

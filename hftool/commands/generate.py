"""`hftool generate`"""

from typing import Annotated

import typer

from hftool.options import (
    DEFAULT_MAX_NEW_TOKENS,
    FileOptions,
    LoadOptions,
    OutputOptions,
    PromptOptions,
    SamplingOptions,
    TextArgument,
    spread,
)


@spread
def generate(
    prompt: TextArgument = None,
    *,
    load: LoadOptions,
    inputs: FileOptions,
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
    from hftool.encoding import prompt_ids
    from hftool.generation import generate as generate_text
    from hftool.inputs import one_text
    from hftool.models.load import load_language_model
    from hftool.output.formats import write
    from hftool.output.views import GENERATION
    from hftool.sampling import settings_in_force

    text = one_text(prompt, inputs)
    language_model = load_language_model(load)
    ids = prompt_ids(language_model.tokenizer, text, prompting)
    settings = settings_in_force(sampling, language_model.generation_config)
    events = generate_text(
        language_model,
        text,
        ids,
        settings,
        max_new_tokens=max_new_tokens,
        skip_special=skip_special,
    )
    write(events, GENERATION, output)

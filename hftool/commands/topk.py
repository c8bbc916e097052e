"""`hftool topk`"""

from typing import Annotated

import typer

from hftool.options import (
    FileOptions,
    OutputOptions,
    PromptOptions,
    TextArgument,
    TopkLoadOptions,
    spread,
)


@spread
def topk(
    prompt: TextArgument = None,
    *,
    load: TopkLoadOptions,
    inputs: FileOptions,
    prompting: PromptOptions,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="How many tokens to show.")] = 10,
    token: Annotated[
        list[str] | None,
        typer.Option("--token", help="Also this token, whatever its rank (repeatable)."),
    ] = None,
    output: OutputOptions,
) -> None:
    """Show the most probable next tokens.

    Example: hftool topk "The capital of France is"
    """
    from hftool.encoding import prompt_ids, single_token
    from hftool.inputs import one_text
    from hftool.models.load import load_language_model
    from hftool.next_token import next_tokens
    from hftool.output.formats import write
    from hftool.output.views import CANDIDATES

    text = one_text(prompt, inputs)
    language_model = load_language_model(load)
    tokenizer = language_model.tokenizer
    ids = prompt_ids(tokenizer, text, prompting)
    wanted = [single_token(tokenizer, item) for item in token or ()]
    write(next_tokens(language_model, ids, k, wanted), CANDIDATES, output)

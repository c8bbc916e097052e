"""`hftool encode`"""

from typing import Annotated

import typer

from hftool.options import (
    InputOptions,
    ModelOptions,
    OutputOptions,
    TextArgument,
    spread,
)


@spread
def encode(
    text: TextArgument = None,
    *,
    source: ModelOptions,
    inputs: InputOptions,
    special: Annotated[
        bool, typer.Option("--special/--no-special", help="Add the tokenizer's special tokens.")
    ] = False,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=0, help="Keep the first N tokens.")
    ] = None,
    count: Annotated[bool, typer.Option("--count", help="Only how many tokens.")] = False,
    output: OutputOptions,
) -> None:
    """Turn text into token ids.

    Example: hftool encode "good morning"
    """
    from hftool.encoding import encode_texts
    from hftool.inputs import texts
    from hftool.models.locate import load_tokenizer
    from hftool.output.formats import write
    from hftool.output.views import COUNTS, ENCODED

    tokenizer = load_tokenizer(source.model, source)
    encoded = encode_texts(tokenizer, texts(text, inputs), special=special, max_tokens=max_tokens)
    write(encoded, COUNTS if count else ENCODED, output)

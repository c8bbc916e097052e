"""`hftool decode`"""

from typing import Annotated

import typer

from hftool.options import InputOptions, ModelOptions, OutputOptions
from hftool.spread import spread

IdsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="IDS", help="Token ids; else --file, else stdin."),
]


@spread
def decode(
    ids: IdsArgument = None,
    *,
    source: ModelOptions,
    inputs: InputOptions,
    skip_special: Annotated[
        bool, typer.Option("--skip-special", help="Leave special tokens out.")
    ] = False,
    output: OutputOptions,
) -> None:
    """Turn token ids back into text.

    The ids are separated by spaces, commas or line breaks, or are a JSON list.

    Examples:
        hftool decode 12018 5738
        # There and back
        hftool encode "大家好" | hftool decode
        # A line of ids each
        printf '260\\n1015\\n' | hftool decode --lines
    """
    from hftool.encoding import decode_ids, parse_ids
    from hftool.inputs import texts
    from hftool.models.locate import load_tokenizer
    from hftool.output.formats import write
    from hftool.output.views import DECODED

    tokenizer = load_tokenizer(source.model, source)
    given = texts(" ".join(ids) if ids else None, inputs)
    decoded = (decode_ids(tokenizer, parse_ids(t), skip_special=skip_special) for t in given)
    write(decoded, DECODED, output)

"""`hftool decode`"""

from typing import Annotated

import typer

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.options.inputs import InputOptions
from hftool.options.model import ModelOptions
from hftool.options.output import OutputOptions

IdsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="IDS", help="Token ids; else --file, else stdin."),
]


@expand_dataclasses
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
    from hftool.inputs.texts import texts
    from hftool.models.local_files import load_tokenizer
    from hftool.output.views.tokens import DECODED
    from hftool.output.writer import write
    from hftool.tokenization.encode import decode_ids, parse_ids

    tokenizer = load_tokenizer(source.model, source)
    given = texts(" ".join(ids) if ids else None, inputs)
    decoded = (decode_ids(tokenizer, parse_ids(t), skip_special=skip_special) for t in given)
    write(decoded, DECODED, output)

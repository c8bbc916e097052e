"""`hftool decode`"""

from typing import Annotated

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.options.inputs import InputOptions
from hftool.options.model import ModelOptions
from hftool.options.output import OutputOptions
from hftool.options.shared import Argument, option

IdsArgument = Annotated[
    list[str] | None,
    Argument("IDS", "Token ids; without them, --file or stdin is read."),
]


@expand_dataclasses
def decode(
    ids: IdsArgument = None,
    *,
    source: ModelOptions,
    inputs: InputOptions,
    skip_special: Annotated[
        bool, option("--skip-special", help="Leave special tokens out of the text.")
    ] = False,
    output: OutputOptions,
) -> None:
    """Turn token ids back into text.

    Separate the ids by spaces, commas or line breaks, or give a JSON list.

    Examples:
        hftool decode 12018 5738
        # From text to ids and back
        hftool encode "大家好" | hftool decode
        # One list of ids per line
        printf '260\\n1015\\n' | hftool decode --lines
    """
    from hftool.inputs.texts import texts
    from hftool.models.local_files import load_tokenizer
    from hftool.output.views.encode import DECODED
    from hftool.output.writer import write
    from hftool.tokenization.decode import decode_ids
    from hftool.tokenization.given_ids import parse_ids

    tokenizer = load_tokenizer(source.model, source)
    given = texts(" ".join(ids) if ids and ids != ["-"] else None, inputs)
    decoded = (decode_ids(tokenizer, parse_ids(t), skip_special=skip_special) for t in given)
    write(decoded, DECODED, output)

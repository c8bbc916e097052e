"""`hftool vocab-dump`"""

from typing import Annotated

import typer

from hftool.options import (
    DEFAULT_MODEL,
    MODEL_HELP,
    OutputOptions,
    SourceOptions,
    spread,
)

RefArgument = Annotated[str, typer.Argument(metavar="REF", envvar="HFTOOL_MODEL", help=MODEL_HELP)]


@spread
def vocab_dump(
    ref: RefArgument = DEFAULT_MODEL,
    *,
    source: SourceOptions,
    output: OutputOptions,
) -> None:
    """Print every token of a vocabulary, one a line, ids ascending.

    Line ID+1 holds token ID. Line breaks and control characters are escaped.

    Example: hftool vocab-dump smollm2 > tokens.txt
    """
    from hftool.models.locate import load_tokenizer
    from hftool.output.formats import write
    from hftool.output.views import VOCABULARY
    from hftool.vocabulary import vocabulary

    tokenizer = load_tokenizer(ref, source)
    write(vocabulary(tokenizer), VOCABULARY, output)

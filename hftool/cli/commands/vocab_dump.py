"""`hftool vocab-dump`"""

from typing import Annotated, Literal

import typer

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.options.completion import known_models
from hftool.options.model import DEFAULT_MODEL, MODEL_HELP, ServedOptions
from hftool.options.output import OutputOptions

RefArgument = Annotated[
    str,
    typer.Argument(
        metavar="REF", envvar="HFTOOL_MODEL", help=MODEL_HELP, autocompletion=known_models
    ),
]
Kind = Literal["normal", "byte", "special", "added", "unused"]
Sort = Literal["id", "text", "length"]


@expand_dataclasses
def vocab_dump(
    ref: RefArgument = DEFAULT_MODEL,
    *,
    source: ServedOptions,
    grep: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Only tokens whose text it matches.")
    ] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only tokens of this kind.")] = None,
    ids: Annotated[
        str | None, typer.Option(metavar="RANGES", help="Only these ids, as in 0-5,100.")
    ] = None,
    min_length: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Only texts of at least N characters.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Only texts of at most N characters.")
    ] = None,
    script: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only texts of this script, as in Han.")
    ] = None,
    sort: Annotated[Sort, typer.Option(help="The order; the longest come first.")] = "id",
    raw: Annotated[bool, typer.Option("--raw", help="Texts unescaped.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Sizes and counts instead.")] = False,
    diff: Annotated[
        str | None,
        typer.Option(
            metavar="REF2",
            help="Only what one of both vocabularies has.",
            autocompletion=known_models,
        ),
    ] = None,
    output: OutputOptions,
) -> None:
    """Print every token of a vocabulary, one a line, ids ascending.

    Line ID+1 holds token ID. Line breaks and control characters are escaped.

    Examples:
        hftool vocab-dump smollm2 > tokens.txt
        # What sizes, which kinds, which scripts
        hftool vocab-dump smollm2 --stats
        # The longest tokens of Chinese characters
        hftool vocab-dump smollm2 --script Han --sort length
        # The tokens that contain "good"
        hftool vocab-dump smollm2 --grep good
    """
    from hftool.errors import exclude
    from hftool.models.local_files import load_tokenizer
    from hftool.output.views.tokens import STATISTICS, difference_view, vocabulary_view
    from hftool.output.writer import write
    from hftool.tokenization.vocabulary import Selection, difference, statistics, vocabulary

    exclude({"--stats": stats, "--diff": diff is not None})
    tokenizer = load_tokenizer(ref, source)
    selection = Selection(grep, kind, ids, min_length, max_length, script, sort)
    if stats:
        write([statistics(tokenizer, selection)], STATISTICS, output)
    elif diff is None:
        write(vocabulary(tokenizer, selection), vocabulary_view(raw=raw), output)
    else:
        differences = difference(tokenizer, load_tokenizer(diff, source), selection)
        write(differences, difference_view(raw=raw), output)

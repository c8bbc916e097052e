"""`hftool vocab-dump`"""

from typing import Annotated

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.options.completion import known_models
from hftool.options.model import DEFAULT_MODEL, MODEL_HELP, DaemonClientOptions
from hftool.options.output import OutputOptions
from hftool.options.shared import Argument, option
from hftool.options.vocabulary import VocabularyOptions

RefArgument = Annotated[
    str,
    Argument("REF", MODEL_HELP, envvar="HFTOOL_MODEL", autocompletion=known_models),
]


@expand_dataclasses
def vocab_dump(
    ref: RefArgument = DEFAULT_MODEL,
    *,
    source: DaemonClientOptions,
    selection: VocabularyOptions,
    raw: Annotated[bool, option("--raw", help="Do not escape control characters.")] = False,
    stats: Annotated[bool, option("--stats", help="Show statistics instead of tokens.")] = False,
    audit: Annotated[
        bool, option("--audit", help="Show only possible defects of the vocabulary.")
    ] = False,
    diff: Annotated[
        str | None,
        option(
            "--diff",
            metavar="REF2",
            help="Show only how the tokenizer of REF2 differs.",
            autocompletion=known_models,
        ),
    ] = None,
    output: OutputOptions,
) -> None:
    """Print every token of a vocabulary, one per line.

    Line ID+1 holds token ID. Line breaks and control characters are escaped.

    Examples:
        hftool vocab-dump smollm2 > tokens.txt
        # The size of the vocabulary, its kinds of tokens and its scripts
        hftool vocab-dump smollm2 --stats
        # Chinese tokens, the longest first
        hftool vocab-dump smollm2 --script Han --sort length
        # What differs: steps, chat template, tokens, merges
        hftool vocab-dump smollm2 --diff minilm-sst2
    """
    from dataclasses import replace

    from hftool.errors import exclude
    from hftool.models.local_files import load_tokenizer
    from hftool.output.views.vocabulary import AUDIT, STATISTICS, difference_view, vocabulary_view
    from hftool.output.writer import write
    from hftool.tokenization.audit import audit_vocabulary
    from hftool.tokenization.difference import difference
    from hftool.tokenization.vocabulary import statistics, vocabulary

    exclude({"--stats": stats, "--audit": audit, "--diff": diff is not None})
    tokenizer = load_tokenizer(ref, source)
    if stats:
        write([statistics(tokenizer, selection)], STATISTICS, output)
    elif audit:
        write(audit_vocabulary(tokenizer, selection), AUDIT, output)
    elif diff is None:
        write(vocabulary(tokenizer, selection), vocabulary_view(raw=raw), output)
    else:
        other = load_tokenizer(diff, replace(source, revision=None))  # REF2 may be REF@REV
        write(difference(tokenizer, other, selection), difference_view(raw=raw), output)

"""Options that select and order the entries of a vocabulary."""

from dataclasses import dataclass
from typing import Annotated, Literal

from hftool.options.shared import option

TokenKind = Literal["normal", "byte", "special", "added", "unused"]
Sort = Literal["id", "text", "length"]


@dataclass(frozen=True)
class VocabularyOptions:
    """The entries to list, and their order; lengths are in characters of the text."""

    grep: Annotated[
        str | None, option("--grep", metavar="REGEX", help="Only tokens whose text matches.")
    ] = None
    kind: Annotated[TokenKind | None, option("--kind", help="Only tokens of this kind.")] = None
    ids: Annotated[
        str | None, option("--ids", metavar="RANGES", help="Only these ids, such as 0-5,100.")
    ] = None
    min_length: Annotated[
        int | None,
        option("--min-length", metavar="N", min=0, help="Only tokens of at least N characters."),
    ] = None
    max_length: Annotated[
        int | None,
        option("--max-length", metavar="N", min=0, help="Only tokens of at most N characters."),
    ] = None
    script: Annotated[
        str | None,
        option("--script", metavar="NAME", help="Only tokens in this script, such as Han."),
    ] = None
    sort: Annotated[Sort, option("--sort", help="Order of the tokens; length: longest first.")] = (
        "id"
    )

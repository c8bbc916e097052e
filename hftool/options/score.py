"""Options of `score`."""

import functools
from dataclasses import dataclass
from typing import Annotated, Literal

from hftool.errors import exclude
from hftool.options.shared import option

Unit = Literal["text", "word", "token"]
_score = functools.partial(option, panel="Scores")


@dataclass(frozen=True)
class ScoreOptions:
    """What to score, and what it follows.

    Raises:
        UsageError: two options that exclude each other.
    """

    by: Annotated[
        Unit | None,
        _score(
            "--by",
            show_default="token for one text at a terminal or with --save, else text",
            help="What to write a record for.",
            common=True,
        ),
    ] = None
    given: Annotated[
        str | None,
        _score(
            "--given",
            metavar="TEXT",
            help="Score the text as what follows TEXT, which is not scored itself.",
            common=True,
        ),
    ] = None
    given_column: Annotated[
        str | None,
        _score(
            "--given-column", metavar="NAME", help="Column of the table with what each follows."
        ),
    ] = None
    against: Annotated[
        str | None,
        _score(
            "--against",
            metavar="REF",
            help="Compare with the model REF in its usual precision: KL divergence, perplexities.",
            common=True,
        ),
    ] = None
    stride: Annotated[
        int | None,
        _score(
            "--stride",
            metavar="N",
            min=1,
            help="Score texts longer than the context in windows that advance by N tokens.",
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        _score(
            "--batch-size",
            metavar="N",
            min=1,
            show_default="by length",
            help="Number of texts scored together.",
        ),
    ] = None

    def __post_init__(self) -> None:
        by_column = self.given_column is not None
        exclude({"--given": self.given is not None, "--given-column": by_column})
        exclude({"--by word": self.by == "word", "--stride": self.stride is not None})
        exclude({"--against": self.against is not None, f"--by {self.by}": self.by is not None})

"""Options of `encode`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from hftool.errors import UsageError, exclude
from hftool.options.shared import option

EncodeMode = Literal[
    "tokens", "count", "template", "diff", "roundtrip", "compare", "compare_counts", "explain"
]


@dataclass(frozen=True)
class EncodeOptions:
    """The choice of what `encode` writes about each text.

    Raises:
        UsageError: two options that exclude each other, or one that needs another.
    """

    special: Annotated[
        bool, option("--special/--no-special", help="Add the tokenizer's special tokens.")
    ] = False
    max_tokens: Annotated[
        int | None, option("--max-tokens", metavar="N", min=0, help="Keep only the first N tokens.")
    ] = None
    count: Annotated[bool, option("--count", help="Write only the number of tokens.")] = False
    check: Annotated[
        bool,
        option("--check", help="With --count: check gigatoken's tokens of every text."),
    ] = False
    show_template: Annotated[
        bool, option("--show-template", help="Write only the text that the chat template makes.")
    ] = False
    diff_arg: Annotated[
        list[str] | None,
        option(
            "--diff-arg",
            metavar="KEY=VALUE",
            help="With --show-template: mark what this variable changes (repeatable).",
        ),
    ] = None
    compare: Annotated[
        str | None,
        option("--compare", metavar="REF2,REF3", help="Also encode with these models' tokenizers."),
    ] = None
    roundtrip: Annotated[
        bool, option("--roundtrip", help="Check whether decoding gives the text back.")
    ] = False

    explain: Annotated[
        bool, option("--explain", help="Show how the text is split, step by step.")
    ] = False

    def __post_init__(self) -> None:
        others = {
            "--show-template": self.show_template,
            "--roundtrip": self.roundtrip,
            "--explain": self.explain,
            "--max-tokens": self.max_tokens is not None,
        }
        exclude({**others, "--count": self.count})
        exclude({**others, "--compare": self.compare is not None})

        if self.check and not self.count:
            raise UsageError("--check needs --count")
        if self.diff_arg and not self.show_template:
            raise UsageError("--diff-arg needs --show-template")

    @property
    def mode(self) -> EncodeMode:
        """The one thing that is written about each text."""
        if self.show_template:
            return "diff" if self.diff_arg else "template"
        if self.explain:
            return "explain"
        if self.count:
            return "count" if self.compare is None else "compare_counts"
        if self.roundtrip:
            return "roundtrip"
        return "tokens" if self.compare is None else "compare"

"""Options for what a command writes."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from hftool.errors import UsageError
from hftool.options.shared import panel_option

Format = Literal["text", "table", "json", "jsonl", "csv", "tsv"]
TableFormat = Literal["text", "table", "json", "jsonl", "csv", "tsv", "parquet"]
Color = Literal["auto", "always", "never"]
PICTURES = (".svg", ".html")
_output = functools.partial(panel_option, panel="Output")


@dataclass(frozen=True)
class OutputOptions:
    """How records are written."""

    format: Annotated[
        Format | None,
        _output(
            "--format",
            help="How records are written.",
            show_default="table on a terminal, else text",
        ),
    ] = None
    json: Annotated[bool, _output("--json", help="Same as --format json.")] = False
    output: Annotated[
        Path | None,
        _output("--output", "-o", metavar="FILE", help="Write to FILE, once it is complete."),
    ] = None
    color: Annotated[Color, _output("--color", help="Colours; NO_COLOR turns them off.")] = "auto"
    by_suffix: ClassVar[Mapping[str, str]] = {}  # formats that a file's suffix asks for
    quiet: Annotated[bool, _output("--quiet", "-q", help="No notes, no progress.")] = False
    verbose: Annotated[
        bool, _output("--verbose", "-v", help="Say what was loaded, from where, how long it took.")
    ] = False


@dataclass(frozen=True)
class ResumableOptions(OutputOptions):
    """How records are written by a command whose run can be taken up again."""

    resume: Annotated[
        bool, _output("--resume", help="Go on where a run that wrote to --output was cut off.")
    ] = False


@dataclass(frozen=True)
class PictureOptions(OutputOptions):
    """As `OutputOptions`; what a terminal would show can be kept as a picture too.

    Raises:
        UsageError: the file's name ends with neither of the two suffixes.
    """

    save: Annotated[
        Path | None,
        _output("--save", metavar="FILE.svg|.html", help="Also save what a terminal shows."),
    ] = None

    def __post_init__(self) -> None:
        if self.save is not None and self.save.suffix not in PICTURES:
            raise UsageError(f"--save {self.save}: a picture is one of {' and '.join(PICTURES)}")


@dataclass(frozen=True)
class TableOptions(ResumableOptions, PictureOptions):
    """How records are written that a table came with: also as Parquet."""

    format: Annotated[
        TableFormat | None,
        _output(
            "--format",
            help="How records are written.",
            show_default="table on a terminal, else text",
        ),
    ] = None  # type: ignore[assignment]
    by_suffix: ClassVar[Mapping[str, str]] = {".parquet": "parquet"}

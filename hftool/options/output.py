"""Options for what a command writes."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from hftool.errors import UsageError
from hftool.options.shared import option

Format = Literal["text", "table", "json", "jsonl", "csv", "tsv"]
TableFormat = Literal["text", "table", "json", "jsonl", "csv", "tsv", "parquet"]
OnError = Literal["stop", "report", "skip"]
Color = Literal["auto", "always", "never"]
PICTURES = (".svg", ".html")
SUFFIXES = ("csv", "tsv", "json", "jsonl")  # those of a file that name its format
UNWRITTEN = (
    *(".parquet", ".xlsx", ".xls", ".ods", ".docx", ".doc", ".odt", ".pdf"),
    *(".gz", ".zst", ".bz2", ".xz", ".zip"),
)
ShowProbsOption = Annotated[
    bool, option("--show-probs", help="Shade the text by how probable each token was.")
]
_output = functools.partial(option, panel="Output")
FORMAT = _output(
    "--format",
    help="Output format.",
    show_default="table on a terminal, else text",
    common=True,
)


@dataclass(frozen=True)
class OutputOptions:
    """The format and the destination of records.

    Raises:
        UsageError: two formats were asked for, or the suffix of `output` names one that hftool does
            not write.
    """

    format: Annotated[Format | None, FORMAT] = None
    json: Annotated[bool, _output("--json", help="Same as --format json.", common=True)] = False
    output: Annotated[
        Path | None,
        _output(
            "--output",
            "-o",
            metavar="FILE",
            help="Write to FILE; its suffix chooses the format unless --format does.",
            common=True,
        ),
    ] = None
    color: Annotated[
        Color, _output("--color", help="When to use colour; NO_COLOR turns it off.")
    ] = "auto"
    by_suffix: ClassVar[Mapping[str, str]] = {
        **{f".{name}": name for name in SUFFIXES},
        ".ndjson": "jsonl",
        ".tab": "tsv",
    }
    """The formats that a suffix of `output` chooses where no option does."""
    quiet: Annotated[
        bool, _output("--quiet", "-q", help="Write no notes and no progress to stderr.")
    ] = False
    verbose: Annotated[
        bool, _output("--verbose", "-v", help="Report what was loaded and how long it took.")
    ] = False

    def __post_init__(self) -> None:
        if self.json and self.format not in (None, "json"):
            raise UsageError(f"--json and --format {self.format} exclude each other")
        suffix = self.output.suffix.lower() if self.output else ""
        if suffix in UNWRITTEN and suffix not in self.by_suffix and not (self.format or self.json):
            suffixes = ", ".join(f".{name}" for name in dict.fromkeys(self.by_suffix.values()))
            raise UsageError(
                f"-o {self.output}: this command does not write {suffix[1:]} files",
                f"use another suffix ({suffixes}), or choose with --format",
            )


@dataclass(frozen=True)
class ResumableOptions(OutputOptions):
    """Output of a command whose interrupted runs can continue.

    Raises:
        UsageError: `--resume` without a file.
    """

    resume: Annotated[
        bool,
        _output("--resume", help="Continue an interrupted run (with --output).", common=True),
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume and self.output is None:
            raise UsageError("--resume needs an output file", "name it with -o/--output")


@dataclass(frozen=True)
class PictureOptions(OutputOptions):
    """Output that can also be saved as a picture of the terminal's view.

    Raises:
        UsageError: the picture's name has neither suffix of `PICTURES`.
    """

    save: Annotated[
        Path | None,
        _output(
            "--save",
            metavar="FILE.svg|.html",
            help="Also save the view of a terminal as a picture.",
            common=True,
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.save is not None and self.save.suffix not in PICTURES:
            suffixes = " or ".join(PICTURES)
            raise UsageError(f"--save writes {suffixes}, not '{self.save.name}'")


@dataclass(frozen=True)
class TableOptions(ResumableOptions, PictureOptions):
    """Output beside the columns of a table, also as Parquet."""

    format: Annotated[TableFormat | None, FORMAT] = None  # type: ignore[assignment]
    on_error: Annotated[
        OnError,
        _output(
            "--on-error",
            help="A text that fails: stop the run, write a record with its error, or leave it out.",
        ),
    ] = "stop"
    bom: Annotated[
        bool | None,
        _output(
            "--bom/--no-bom",
            show_default="as in the input",
            help="Begin csv with a byte-order mark, by which Excel knows UTF-8.",
        ),
    ] = None
    by_suffix: ClassVar[Mapping[str, str]] = {
        **OutputOptions.by_suffix,
        ".parquet": "parquet",
    }

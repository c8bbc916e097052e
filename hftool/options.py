"""Each shared option, declared once with its default, in the frozen dataclass it travels in.

A command takes these dataclasses as parameters; `hftool.spread` turns their fields into options.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import typer

from hftool.errors import UsageError
from hftool.models.names import known_models

Device = str
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["none", "int8", "int4"]
Format = Literal["text", "table", "json", "jsonl", "csv", "tsv"]
TableFormat = Literal["text", "table", "json", "jsonl", "csv", "tsv", "parquet"]
Color = Literal["auto", "always", "never"]
Overflow = Literal["drop", "stop"]
ByteErrors = Literal["strict", "replace"]
LongTexts = Literal["truncate", "chunk"]
InputFormat = Literal["lines", "csv", "tsv", "jsonl", "parquet"]
Engine = Literal["local", "ray"]

DEFAULT_MODEL = "smollm2"
DEFAULT_CLASSIFIER = "minilm-sst2"
PICTURES = (".svg", ".html")


def panel_option(*names: str, panel: str, **settings: Any) -> Any:
    """An option that help shows under a heading."""
    return typer.Option(*names, rich_help_panel=panel, **settings)


_model = functools.partial(panel_option, panel="Model")
_input = functools.partial(panel_option, panel="Input")
_output = functools.partial(panel_option, panel="Output")
_labels = functools.partial(panel_option, panel="Labels")
_engine = functools.partial(panel_option, panel="Engine")

TextArgument = Annotated[
    str | None, typer.Argument(metavar="TEXT", help="The text; else --file, else stdin.")
]
ChatTemplateFile = Annotated[
    Path | None,
    _input(
        "--chat-template", metavar="FILE", help="This chat template (Jinja), not the model's own."
    ),
]
ErrorsOption = Annotated[
    ByteErrors, _input("--errors", help="Bytes that are no UTF-8: an error, or U+FFFD.")
]
HUB_TOKEN_HELP = "Hub token; else HF_TOKEN, or what `hf auth login` stored."
MODEL_HELP = "A folder, a .gguf file, an alias (see `hftool models list`) or a hub id owner/name."


@dataclass(frozen=True)
class SourceOptions:
    """Where a model's files come from."""

    revision: Annotated[
        str | None,
        _model("--revision", metavar="REV", help="Branch, tag or commit of a hub model."),
    ] = None
    offline: Annotated[
        bool, _model("--offline", envvar="HF_HUB_OFFLINE", help="Never ask the hub.")
    ] = False
    hub_token: Annotated[
        str | None, _model("--token", "--hub-token", metavar="TOKEN", help=HUB_TOKEN_HELP)
    ] = field(default=None, repr=False)
    trust_remote_code: Annotated[
        bool,
        _model("--trust-remote-code", help="Allow pickled weights and the repository's own code."),
    ] = False


@dataclass(frozen=True)
class ServedOptions(SourceOptions):
    """Of a command that `hftool serve` can run; what decides that is the command line itself."""

    no_server: Annotated[
        bool, _model("--no-server", help="Run here, even where `hftool serve` has the model.")
    ] = False


@dataclass(frozen=True)
class ModelOptions(ServedOptions):
    """Which language model's files."""

    model: Annotated[
        str,
        _model(
            "--model",
            "-m",
            metavar="REF",
            envvar="HFTOOL_MODEL",
            help=MODEL_HELP,
            autocompletion=known_models,
        ),
    ] = DEFAULT_MODEL


@dataclass(frozen=True)
class ComputeOptions:
    """Where a model computes, and in which precision."""

    device: Annotated[
        Device, _model("--device", metavar="auto|cpu|cuda[:N]|mps", help="Where to compute.")
    ] = "auto"
    dtype: Annotated[Dtype, _model("--dtype", help="Precision to compute in.")] = "auto"
    quantize: Annotated[
        Quantization, _model("--quantize", help="Keep weights in 8 or 4 bits (on a CPU).")
    ] = "none"


@dataclass(frozen=True)
class LoadOptions(ComputeOptions, ModelOptions):
    """A language model, loaded."""


@dataclass(frozen=True)
class TopkLoadOptions(LoadOptions):
    """As `LoadOptions`; in `topk`, --token names a token of the vocabulary."""

    hub_token: Annotated[
        str | None, _model("--hub-token", metavar="TOKEN", help=HUB_TOKEN_HELP)
    ] = field(default=None, repr=False)


@dataclass(frozen=True)
class ClassifierOptions(ComputeOptions, ServedOptions):
    """A classifier, or what else gives texts a label, loaded."""

    model: Annotated[
        str | None,
        _model(
            "--model",
            "-m",
            metavar="REF",
            envvar="HFTOOL_SENTIMENT_MODEL",
            help=MODEL_HELP,
            show_default=DEFAULT_CLASSIFIER,
            autocompletion=known_models,
        ),
    ] = None


@dataclass(frozen=True)
class LabelOptions:
    """Which labels texts get, and how they are scored."""

    labels: Annotated[
        str | None,
        _labels("--labels", metavar="A,B,C", help="Labels of your own (of smollm2, or --model)."),
    ] = None
    prompt_template: Annotated[
        str | None,
        _labels(
            "--prompt-template",
            "--hypothesis-template",
            metavar="TEXT",
            help="For --labels: what a label follows ({text}, {labels}), or says ({label}).",
        ),
    ] = None
    long: Annotated[
        LongTexts, _labels("--long", help="What is too long is cut, or judged in windows.")
    ] = "truncate"
    batch_size: Annotated[
        int | None,
        _labels(
            "--batch-size",
            metavar="N",
            min=1,
            show_default="by their length",
            help="Texts at once.",
        ),
    ] = None


@dataclass(frozen=True)
class EngineOptions:
    """Whether a job runs here, or on Ray.

    Raises:
        UsageError: a cluster was named, and not Ray.
    """

    engine: Annotated[
        Engine,
        _engine("--engine", help="With ray, TEXT is files and folders, and -o names a folder."),
    ] = "local"
    ray_address: Annotated[
        str | None,
        _engine(
            "--ray-address",
            metavar="HOST:PORT",
            show_default="RAY_ADDRESS, else Ray is started here",
            help="The Ray cluster to join.",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.ray_address is not None and self.engine != "ray":
            raise UsageError("--ray-address goes with --engine ray")


@dataclass(frozen=True)
class FileOptions:
    """Text out of a file or stdin."""

    file: Annotated[
        Path | None,
        _input("--file", "-f", metavar="FILE", help="Read the text from FILE (- is stdin)."),
    ] = None
    errors: ErrorsOption = "strict"


@dataclass(frozen=True)
class InputOptions(FileOptions):
    """Text as a whole or by lines."""

    lines: Annotated[bool, _input("--lines", help="Every line is a text of its own.")] = False


@dataclass(frozen=True)
class RowOptions(FileOptions):
    """Texts by lines, or out of a table."""

    input_format: Annotated[
        InputFormat | None,
        _input(
            "--input-format",
            show_default="by the file's suffix, else lines",
            help="How the texts stand in the file.",
        ),
    ] = None
    column: Annotated[
        str | None,
        _input(
            "--column", metavar="NAME", show_default="text", help="Where a table has the texts."
        ),
    ] = None


@dataclass(frozen=True)
class ChatOptions:
    """Whether a text goes through the chat template, and with which other messages."""

    chat: Annotated[
        bool, _input("--chat", help="Send the text as a user's message, through the chat template.")
    ] = False
    system: Annotated[
        str | None,
        _input("--system", "-s", metavar="TEXT", help="System message (implies --chat)."),
    ] = None
    prefill: Annotated[
        str | None,
        _input("--prefill", metavar="TEXT", help="Begin the model's answer (implies --chat)."),
    ] = None
    chat_template: ChatTemplateFile = None

    @property
    def templated(self) -> bool:
        """Whether the text goes through the chat template: each of these options implies it."""
        return self.chat or any(
            value is not None for value in (self.system, self.prefill, self.chat_template)
        )


@dataclass(frozen=True)
class PromptOptions(ChatOptions):
    """How a text becomes a prompt."""

    special: Annotated[
        bool,
        _input("--special/--no-special", help="The special tokens the tokenizer adds by itself."),
    ] = True


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

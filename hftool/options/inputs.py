"""Options for what a command reads: texts, tables, chats."""

import functools
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from hftool.errors import exclude
from hftool.options.shared import Argument, option

ByteErrors = Literal["strict", "replace"]
InputFormat = Literal["lines", "csv", "tsv", "json", "jsonl", "parquet", "xlsx"]
_input = functools.partial(option, panel="Input")

TextArgument = Annotated[
    str | None, Argument("TEXT", "The text; without it, --file or stdin is read.")
]
TextsArgument = Annotated[
    list[str] | None,
    Argument("TEXT", "The texts; without them, the lines of --file or stdin."),
]
ChatTemplateFile = Annotated[
    Path | None,
    _input(
        "--chat-template",
        metavar="FILE",
        help="Use this chat template (Jinja) instead of the model's own.",
    ),
]
ErrorsOption = Annotated[
    ByteErrors,
    _input("--errors", help="Invalid UTF-8: stop, or replace it with U+FFFD."),
]


EncodingOption = Annotated[
    str | None,
    _input(
        "--encoding",
        metavar="NAME",
        show_default="by the byte-order mark, else utf-8",
        help="Encoding of the input, such as utf-16 or cp1252.",
    ),
]


@dataclass(frozen=True)
class FileOptions:
    """Text from a file or stdin."""

    file: Annotated[
        Path | None,
        _input(
            "--file",
            "-f",
            metavar="FILE",
            help="Read the text from FILE (- is stdin).",
            common=True,
        ),
    ] = None
    errors: ErrorsOption = "strict"
    encoding: EncodingOption = None


@dataclass(frozen=True)
class InputOptions(FileOptions):
    """One text, or one per line."""

    lines: Annotated[
        bool, _input("--lines", help="Treat each line as a text of its own.", common=True)
    ] = False


@dataclass(frozen=True)
class TableInputOptions:
    """Texts from lines or from tables."""

    files: Annotated[
        list[Path] | None,
        _input(
            "--file",
            "-f",
            metavar="FILE",
            help="Read FILE or a folder (- is stdin); can be repeated.",
            common=True,
        ),
    ] = None
    input_format: Annotated[
        InputFormat | None,
        _input(
            "--input-format",
            show_default="by the file's suffix, else lines",
            help="Format of the input file.",
            common=True,
        ),
    ] = None
    column: Annotated[
        str | None,
        _input(
            "--column",
            metavar="NAME|N",
            show_default="text, or another usual name",
            help="Column with the text; inside an object: data.text.",
            common=True,
        ),
    ] = None
    delimiter: Annotated[
        str | None,
        _input(
            "--delimiter",
            metavar="CHAR",
            show_default="recognised",
            help="Character between the cells of a csv file; 'tab' for a tab.",
        ),
    ] = None
    header: Annotated[
        bool | None,
        _input(
            "--header/--no-header",
            show_default="recognised",
            help="Whether the first row of a csv or tsv file names the columns.",
        ),
    ] = None
    null: Annotated[
        str | None,
        _input(
            "--null",
            metavar="TEXT",
            show_default="\\N in tsv",
            help="What the table has for a missing value.",
        ),
    ] = None
    encoding: Annotated[
        str | None,
        _input(
            "--encoding",
            metavar="NAME",
            show_default="recognised",
            help="Encoding of the input, such as utf-16 or cp1252.",
        ),
    ] = None
    errors: ErrorsOption = "strict"


@dataclass(frozen=True)
class TemplateOptions:
    """The chat template, and what it gets beside the messages.

    Raises:
        UsageError: two options that exclude each other.
    """

    chat_template: ChatTemplateFile = None
    template: Annotated[
        str | None,
        _input("--template", metavar="NAME", help="Which of the model's chat templates to use."),
    ] = None
    tools: Annotated[
        Path | None,
        _input("--tools", metavar="FILE", help="Functions the model may call (JSON)."),
    ] = None
    documents: Annotated[
        Path | None,
        _input("--documents", metavar="FILE", help="Documents to base the answer on (JSON)."),
    ] = None
    template_arg: Annotated[
        list[str] | None,
        _input(
            "--template-arg",
            metavar="KEY=VALUE",
            help="Set a variable of the chat template (repeatable).",
        ),
    ] = None
    think: Annotated[
        bool | None,
        _input(
            "--think/--no-think",
            show_default="by the template",
            help="Turn the model's reasoning on or off.",
        ),
    ] = None

    def __post_init__(self) -> None:
        exclude(
            {
                "--chat-template": self.chat_template is not None,
                "--template": self.template is not None,
            }
        )


@dataclass(frozen=True)
class MessageOptions:
    """The chat around a text, or a whole chat."""

    chat: Annotated[
        bool,
        _input("--chat", help="Wrap the text in the model's chat template.", common=True),
    ] = False
    system: Annotated[
        str | None,
        _input(
            "--system", "-s", metavar="TEXT", help="System message (implies --chat).", common=True
        ),
    ] = None
    prefill: Annotated[
        str | None,
        _input("--prefill", metavar="TEXT", help="Beginning of the answer (implies --chat)."),
    ] = None
    messages: Annotated[
        Path | None,
        _input("--messages", metavar="FILE", help="Take the chat in FILE (JSON) as the prompt."),
    ] = None
    no_generation_prompt: Annotated[
        bool,
        _input("--no-generation-prompt", help="End after the chat, not where an answer begins."),
    ] = False


@dataclass(frozen=True)
class ChatOptions(TemplateOptions, MessageOptions):
    """Chats as prompts."""

    @property
    def templated(self) -> bool:
        """Whether the text goes through the chat template: each of these options implies it."""
        values = ((getattr(self, item.name), item.default) for item in fields(ChatOptions))
        return any(value != default and value != [] for value, default in values)


@dataclass(frozen=True)
class PartialPromptOptions(ChatOptions):
    """Chats and token ids as prompts.

    Raises:
        UsageError: two options that exclude each other.
    """

    ids: Annotated[
        bool, _input("--ids", help="TEXT, the file or stdin are token ids, as `encode` prints.")
    ] = False
    no_parse_special: Annotated[
        bool,
        _input("--no-parse-special", help="Special tokens in the text are ordinary text."),
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        exclude({"--ids": self.ids, "a chat": self.templated})
        exclude({"--ids": self.ids, "--no-parse-special": self.no_parse_special})


@dataclass(frozen=True)
class PromptOptions(PartialPromptOptions):
    """Options that turn a text into a prompt."""

    special: Annotated[
        bool,
        _input(
            "--special/--no-special", help="Add the tokenizer's special tokens, or leave them out."
        ),
    ] = True

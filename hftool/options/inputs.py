"""Options for what a command reads: texts, tables, chats."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from hftool.options.shared import panel_option

ByteErrors = Literal["strict", "replace"]
InputFormat = Literal["lines", "csv", "tsv", "jsonl", "parquet"]
_input = functools.partial(panel_option, panel="Input")

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
class TableInputOptions(FileOptions):
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

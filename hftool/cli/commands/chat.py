"""`hftool chat`"""

from pathlib import Path
from typing import Annotated

import typer

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.options.generation import AnswerOptions, Overflow
from hftool.options.inputs import ChatTemplateFile, ErrorsOption
from hftool.options.model import LoadOptions
from hftool.options.output import OutputOptions

PANEL = "Chat"


@expand_dataclasses
def chat(
    *,
    load: LoadOptions,
    system: Annotated[
        str | None, typer.Option("--system", "-s", help="System message.", rich_help_panel=PANEL)
    ] = None,
    system_file: Annotated[
        Path | None,
        typer.Option("--system-file", help="System message from a file.", rich_help_panel=PANEL),
    ] = None,
    chat_template: ChatTemplateFile = None,
    load_from: Annotated[
        Path | None,
        typer.Option(
            "--load", metavar="FILE", help="Go on with a saved chat.", rich_help_panel=PANEL
        ),
    ] = None,
    save_to: Annotated[
        Path | None,
        typer.Option(
            "--save", metavar="FILE", help="Save after every turn (JSON).", rich_help_panel=PANEL
        ),
    ] = None,
    overflow: Annotated[
        Overflow,
        typer.Option(
            "--overflow",
            help="When the context is full: drop the oldest turns, or stop.",
            rich_help_panel=PANEL,
        ),
    ] = "drop",
    stop: Annotated[
        list[str] | None,
        typer.Option(
            "--stop",
            metavar="TEXT",
            help="End an answer before this text (repeatable).",
            rich_help_panel=PANEL,
        ),
    ] = None,
    answering: AnswerOptions,
    errors: ErrorsOption = "strict",
    output: OutputOptions,
) -> None:
    """Talk with a model. `exit` or Ctrl-D leaves, Ctrl-C stops an answer, /help lists commands.

    With piped stdin each line is a turn.

    Examples:
        hftool chat
        # Another model, and a system message
        hftool chat -m qwen -s "Answer in one sentence."
        # Keep it, and go on with it another day
        hftool chat --save ada.json
        # Without a terminal each line is a turn
        printf 'My name is Ada.\\nWhat is my name?\\n' | hftool chat --greedy
    """
    from hftool.chat import storage
    from hftool.chat.conversation import Conversation
    from hftool.cli.chat_repl import run_chat
    from hftool.generation.requests import stop_strings
    from hftool.inputs.texts import one_text
    from hftool.models.load import load_language_model
    from hftool.options.inputs import FileOptions
    from hftool.output.views.generation import turns_view
    from hftool.output.writer import write
    from hftool.prompting.chat_template import chat_template as template_of

    stops = stop_strings(stop)
    if system_file is not None:
        system = one_text(None, FileOptions(system_file, errors))
    if save_to is not None:
        storage.require_writable(save_to)
    language_model = load_language_model(load)
    template = template_of(language_model.tokenizer, chat_template, plain=True)
    conversation = Conversation(
        language_model, template, answering, system=system, stop=stops, overflow=overflow
    )
    if load_from is not None:
        storage.load(conversation, load_from)
        conversation.system = conversation.system if system is None else system
    turns = run_chat(conversation, save_to, errors)
    write(turns, turns_view(template.opens_thinking), output)

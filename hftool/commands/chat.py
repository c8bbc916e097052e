"""`hftool chat`"""

from pathlib import Path
from typing import Annotated

import typer

from hftool.options import (
    CHAT_MAX_NEW_TOKENS,
    LoadOptions,
    OutputOptions,
    SamplingOptions,
)
from hftool.spread import spread

PANEL = "Input"


@spread
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
    max_new_tokens: Annotated[
        int,
        typer.Option(
            "--max-new-tokens", "--max-tokens", "-n", min=1, help="The most tokens of an answer."
        ),
    ] = CHAT_MAX_NEW_TOKENS,
    sampling: SamplingOptions,
    output: OutputOptions,
) -> None:
    """Talk with a model. `exit` or Ctrl-D leaves, Ctrl-C stops an answer.

    With piped stdin each line is a turn.

    Examples:
        hftool chat
        # Another model, and a system message
        hftool chat -m qwen -s "Answer in one sentence."
        # Without a terminal each line is a turn
        printf 'My name is Ada.\\nWhat is my name?\\n' | hftool chat --greedy
    """
    from hftool.conversation import Conversation
    from hftool.inputs import one_text
    from hftool.models.load import load_language_model
    from hftool.options import FileOptions
    from hftool.output.formats import write
    from hftool.output.views import TURNS
    from hftool.sampling import settings_in_force
    from hftool.terminal_chat import spoken_turns

    if system_file is not None:
        system = one_text(None, FileOptions(file=system_file))
    language_model = load_language_model(load)
    settings = settings_in_force(sampling, language_model.generation_config)
    conversation = Conversation(
        language_model, settings, max_new_tokens=max_new_tokens, system=system
    )
    write(spoken_turns(conversation), TURNS, output)

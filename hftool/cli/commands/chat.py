"""`hftool chat`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.options.constraints import ConstraintOptions
from hftool.options.generation import AnswerOptions, Overflow
from hftool.options.inputs import ErrorsOption, TemplateOptions
from hftool.options.model import LoadOptions
from hftool.options.output import OutputOptions, ShowProbsOption
from hftool.options.shared import option

if TYPE_CHECKING:
    from hftool.chat.conversation import Conversation


@expand_dataclasses
def chat(
    *,
    load: LoadOptions,
    system: Annotated[
        str | None, option("--system", "-s", metavar="TEXT", help="System message.")
    ] = None,
    system_file: Annotated[
        Path | None,
        option("--system-file", metavar="FILE", help="Read the system message from FILE."),
    ] = None,
    templating: TemplateOptions,
    load_from: Annotated[
        Path | None,
        option("--load", "--messages", metavar="FILE", help="Continue the chat in FILE (JSON)."),
    ] = None,
    save_to: Annotated[
        Path | None, option("--save", metavar="FILE", help="Save the chat after every turn (JSON).")
    ] = None,
    overflow: Annotated[
        Overflow,
        option("--overflow", help="When the context is full: drop the oldest turns, or stop."),
    ] = "drop",
    stop: Annotated[
        list[str] | None,
        option("--stop", metavar="TEXT", help="End an answer before TEXT (repeatable)."),
    ] = None,
    answering: AnswerOptions,
    constraints: ConstraintOptions,
    show_probs: ShowProbsOption = False,
    errors: ErrorsOption = "strict",
    output: OutputOptions,
) -> None:
    """Chat with a model.

    `exit` or Ctrl-D leaves, Ctrl-C stops an answer, /help lists the commands. Without a terminal,
    each line of stdin is a turn.

    Examples:
        hftool chat
        # Another model, with a system message
        hftool chat -m qwen -s "Answer in one sentence."
        # Save the chat; --load talk.json continues it another day
        hftool chat --save talk.json
        # Ask two questions from a script
        printf 'What is the capital of Italy?\\nAnd of Spain?\\n' | hftool chat --greedy
    """
    from hftool.chat import storage
    from hftool.chat.opening import ConversationOptions, open_conversation
    from hftool.cli.chat_repl import run_chat
    from hftool.errors import UsageError
    from hftool.generation.constraints import read_constraint
    from hftool.inputs.texts import one_text
    from hftool.options.inputs import FileOptions
    from hftool.output.views.generation import TURNS
    from hftool.output.writer import write
    from hftool.prompting.prompt import template_arguments

    if "" in (stop or ()):
        raise UsageError("a stop text is empty")
    if show_probs:
        from hftool.output.tables.shading import require_colors

        require_colors(output)
    if system_file is not None:
        system = one_text(None, FileOptions(system_file, errors))
    if save_to is not None:
        storage.require_writable(save_to)
    options = ConversationOptions(
        load,
        templating,
        answering,
        template_arguments(templating),
        system,
        tuple(stop or ()),
        overflow,
        show_probs,
        read_constraint(constraints),
    )

    def opened() -> "Conversation":
        conversation = open_conversation(options)
        if load_from is not None:
            storage.load(conversation, load_from)
            conversation.system = conversation.system if system is None else system
        return conversation

    # Nothing but the chat keeps the conversation: with another model, the first one can go.
    write(run_chat(opened(), save_to, errors, output.color), TURNS, output)

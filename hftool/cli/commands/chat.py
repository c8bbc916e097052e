"""`hftool chat`"""

from dataclasses import replace

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.options.chat import ChatOptions
from hftool.options.constraints import ConstraintOptions
from hftool.options.generation import AnswerOptions
from hftool.options.inputs import ErrorsOption, FileOptions, TemplateOptions
from hftool.options.model import LoadOptions
from hftool.options.output import OutputOptions


@expand_dataclasses
def chat(
    *,
    load: LoadOptions,
    chatting: ChatOptions,
    templating: TemplateOptions,
    answering: AnswerOptions,
    constraints: ConstraintOptions,
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
    from hftool.chat.opening import ConversationOptions, open_chat
    from hftool.cli.chat_repl import run_chat
    from hftool.generation.constraints import read_constraint
    from hftool.inputs.texts import one_text
    from hftool.output.views.generation import TURNS
    from hftool.output.writer import write
    from hftool.prompting.prompt import template_arguments

    if chatting.show_probs:
        from hftool.output.tables.shading import require_colors

        require_colors(output)
    if chatting.system_file is not None:
        system = one_text(None, FileOptions(chatting.system_file, errors))
        chatting = replace(chatting, system=system)
    if chatting.save_to is not None:
        storage.require_writable(chatting.save_to)
    arguments, constraint = template_arguments(templating), read_constraint(constraints)
    options = ConversationOptions(load, chatting, templating, answering, arguments, constraint)
    # Nothing but the chat keeps the conversation: with another model, the first one can go.
    turns = run_chat(open_chat(options), chatting.save_to, errors, output.color)
    write(turns, TURNS, output)

"""Open a conversation with a model, and go on with another one."""

from dataclasses import dataclass, replace
from functools import partial

from hftool.chat.conversation import Conversation
from hftool.errors import exclude
from hftool.models.references import endpoint_address
from hftool.options.constraints import Constraint
from hftool.options.generation import AnswerOptions, Overflow
from hftool.options.inputs import TemplateOptions
from hftool.options.model import LoadOptions
from hftool.prompting.messages import Chat
from hftool.terminal import show_status


@dataclass(frozen=True)
class ConversationOptions:
    """The model of a conversation, and what `Conversation` is told."""

    load: LoadOptions
    templating: TemplateOptions
    answering: AnswerOptions
    arguments: Chat
    system: str | None = None
    stop: tuple[str, ...] = ()
    overflow: Overflow = "drop"
    show_probs: bool = False
    constraint: Constraint | None = None


def open_conversation(options: ConversationOptions) -> Conversation:
    """Return a conversation with the model, which is loaded or behind an endpoint.

    Raises:
        UsageError: as `Conversation`, or options that an endpoint has no use for.
        HftoolError: as `Conversation`, or the model cannot be loaded or reached.
    """
    address = endpoint_address(options.load.model)
    exclude({"a model behind an endpoint": address is not None, "--show-probs": options.show_probs})
    conversation = _local(options) if address is None else _remote(options, address)
    conversation.constrain(options.constraint)
    conversation.reopen = partial(_with_model, options)
    return conversation


def _local(options: ConversationOptions) -> Conversation:
    from hftool.models.load import load_language_model
    from hftool.prompting.chat_template import chat_template

    language_model = load_language_model(options.load)
    tokenizer = language_model.tokenizer
    named = (tokenizer, options.templating.chat_template, options.templating.template)
    tools = options.arguments.tools is not None
    return Conversation(
        language_model,
        chat_template(*named, tools=tools, plain=True),
        options.answering,
        tool_template=chat_template(*named, tools=True) if tokenizer.chat_templates else None,
        system=options.system,
        arguments=options.arguments,
        stop=options.stop,
        overflow=options.overflow,
        show_probs=options.show_probs,
    )


def _remote(options: ConversationOptions, address: str) -> Conversation:
    from hftool.chat.remote_conversation import RemoteConversation
    from hftool.endpoint.server import connect

    return RemoteConversation(
        connect(address, options.load),
        options.answering,
        options.templating,
        system=options.system,
        arguments=options.arguments,
        stop=options.stop,
    )


def _with_model(
    options: ConversationOptions, conversation: Conversation, reference: str
) -> Conversation:
    """Return the same conversation with another model, which has its own template.

    The options that belong to the first model do not pass on: its revision, a template of the
    command line, a server's key, and the leave to run the repository's code.
    """
    show_status(f"loading {reference} …")
    load = replace(
        options.load, model=reference, revision=None, api_key=None, trust_remote_code=False
    )
    other = open_conversation(
        replace(
            options,
            load=load,
            templating=replace(options.templating, chat_template=None, template=None),
            answering=conversation.options,
            arguments=conversation.arguments,
            system=conversation.system,
            constraint=conversation.constraint,
        )
    )
    other.turns = conversation.turns
    return other

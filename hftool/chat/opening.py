"""Open a conversation with a model, and go on with another one."""

from dataclasses import dataclass, replace
from functools import partial

from hftool.chat import storage
from hftool.chat.conversation import Conversation
from hftool.errors import exclude
from hftool.models.references import endpoint_address
from hftool.options.chat import ChatOptions
from hftool.options.constraints import Constraint
from hftool.options.generation import AnswerOptions
from hftool.options.inputs import TemplateOptions
from hftool.options.model import LoadOptions
from hftool.prompting.messages import Chat
from hftool.terminal import show_status


@dataclass(frozen=True)
class ConversationOptions:
    """The model of a conversation, and what `Conversation` is told."""

    load: LoadOptions
    chatting: ChatOptions
    templating: TemplateOptions
    answering: AnswerOptions
    arguments: Chat
    constraint: Constraint | None = None


def open_chat(options: ConversationOptions) -> Conversation:
    """Return a conversation with the model, which goes on with a saved chat if the options name
    one.

    Raises: as `open_conversation` and `storage.load`.
    """
    conversation, chatting = open_conversation(options), options.chatting
    if chatting.load_from is not None:
        storage.load(conversation, chatting.load_from)
        if chatting.system is not None:
            conversation.system = chatting.system
    return conversation


def open_conversation(options: ConversationOptions) -> Conversation:
    """Return a conversation with the model, which is loaded or behind an endpoint.

    Raises:
        UsageError: as `Conversation`, or options that an endpoint has no use for.
        HftoolError: as `Conversation`, or the model cannot be loaded or reached.
    """
    address = endpoint_address(options.load.model)
    show_probs = options.chatting.show_probs
    exclude({"a model behind an endpoint": address is not None, "--show-probs": show_probs})
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
        system=options.chatting.system,
        arguments=options.arguments,
        stop=options.chatting.stop or (),
        overflow=options.chatting.overflow,
        show_probs=options.chatting.show_probs,
    )


def _remote(options: ConversationOptions, address: str) -> Conversation:
    from hftool.chat.remote_conversation import RemoteConversation
    from hftool.endpoint.server import connect

    return RemoteConversation(
        connect(address, options.load),
        options.answering,
        options.templating,
        system=options.chatting.system,
        arguments=options.arguments,
        stop=options.chatting.stop or (),
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
            chatting=replace(options.chatting, system=conversation.system),
            constraint=conversation.constraint,
        )
    )
    other.turns = conversation.turns
    return other

"""The token ids a model is given for a prompt."""

from collections.abc import Iterable, Iterator

from hftool.errors import HftoolError
from hftool.options.inputs import ChatOptions, PromptOptions
from hftool.prompting.chat_template import chat_template
from hftool.prompting.messages import prompt_messages
from hftool.tokenization.tokenizer import Tokenizer


def prompt_ids(tokenizer: Tokenizer, text: str, options: PromptOptions) -> list[int]:
    """The ids a model is given for a prompt.

    Raises:
        HftoolError: the prompt is empty, or there is no chat template, or it fails.
    """
    if options.templated:
        messages = prompt_messages(text, options)
        ids = chat_template(tokenizer, options.chat_template).ids(messages)
    else:
        ids = list(tokenizer.encode(text, options.special).ids)
    if not ids:
        raise HftoolError("the prompt is empty: there is no token to go on from")
    return ids


def rendered_chats(
    tokenizer: Tokenizer, texts: Iterable[str], options: ChatOptions
) -> Iterator[str]:
    """Each text as a user's message, through the chat template.

    Raises: as `chat_template`, and as `ChatTemplate.render`.
    """
    template = chat_template(tokenizer, options.chat_template)
    for text in texts:
        yield template.render(prompt_messages(text, options))

"""The token ids that a model receives for a prompt."""

from collections.abc import Iterable, Iterator

from hftool.errors import HftoolError
from hftool.options.inputs import ChatOptions, PromptOptions
from hftool.prompting.chat_template import chat_template
from hftool.prompting.messages import prompt_messages
from hftool.tokenization.tokenizer import Tokenizer


def prompt_ids(tokenizer: Tokenizer, text: str, options: PromptOptions) -> list[int]:
    """Return the token ids of a prompt.

    Raises:
        HftoolError: the prompt is empty, or the chat template is missing or fails.
    """
    if options.templated:
        messages = prompt_messages(text, options)
        ids = chat_template(tokenizer, options.chat_template).ids(messages)
    else:
        ids = list(tokenizer.encode(text, options.special).ids)
    if not ids:
        raise HftoolError("the prompt is empty: the model needs at least one token")
    return ids


def rendered_chats(
    tokenizer: Tokenizer, texts: Iterable[str], options: ChatOptions
) -> Iterator[str]:
    """Render each text as a user's message, through the chat template.

    Raises: as `chat_template` and `ChatTemplate.render`.
    """
    template = chat_template(tokenizer, options.chat_template)
    for text in texts:
        yield template.render(prompt_messages(text, options))

"""`hftool encode`"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.errors import exclude
from hftool.options.encode import EncodeOptions
from hftool.options.inputs import ChatOptions, FileOptions, InputOptions, TextArgument
from hftool.options.model import ModelOptions
from hftool.options.output import PictureOptions
from hftool.options.shared import option

if TYPE_CHECKING:
    from hftool.tokenization.tokenizer import Tokenizer


@expand_dataclasses
def encode(
    text: TextArgument = None,
    *,
    source: ModelOptions,
    inputs: InputOptions,
    chatting: ChatOptions,
    messages: Annotated[
        Path | None,
        option("--messages", metavar="FILE", help="Encode the chat in a JSON file."),
    ] = None,
    encoding: EncodeOptions,
    output: PictureOptions,
) -> None:
    """Turn text into token ids.

    Examples:
        hftool encode "good morning"
        # The tokens, and where each one is in the text
        hftool encode "i am good" --format table
        # The prompt that the model gets in a chat
        hftool encode --show-template "hi" --system "Be brief."
        # The number of tokens in each line
        hftool encode --count --lines -f prompts.txt
    """
    from hftool.models.local_files import load_tokenizer
    from hftool.output.views.tokens import ENCODE_VIEWS
    from hftool.output.writer import flush_stdout, write
    from hftool.tokenization.encode import encode_records

    _require_one_source(text, messages, inputs, chatting)
    refs = [source.model, *(encoding.compare.split(",") if encoding.compare is not None else ())]
    tokenizers = [load_tokenizer(ref, source) for ref in refs]
    templated = messages is not None or chatting.templated
    rendered = templated or encoding.show_template
    given = _texts(tokenizers[0], text, messages, inputs, chatting, rendered=rendered)
    # A chat template writes its own special tokens.
    encoding = replace(encoding, special=encoding.special and not templated)
    records = encode_records(tokenizers, given, encoding, flush_stdout)
    write(records, ENCODE_VIEWS[encoding.mode], output)


def _require_one_source(
    text: str | None, messages: Path | None, inputs: InputOptions, chatting: ChatOptions
) -> None:
    others = {
        "a text": text,
        "--file": inputs.file,
        "--system": chatting.system,
        "--prefill": chatting.prefill,
    }
    for name, value in others.items():
        exclude({"--messages": messages is not None, name: value is not None})


def _texts(
    tokenizer: "Tokenizer",
    text: str | None,
    messages: Path | None,
    inputs: InputOptions,
    chatting: ChatOptions,
    *,
    rendered: bool,
) -> Iterator[str]:
    """Yield the texts to encode: the chat in `--messages`, or the input's texts; with `rendered`
    each of them as a chat."""
    from hftool.inputs.texts import one_text, texts
    from hftool.prompting.chat_template import chat_template
    from hftool.prompting.messages import parse_messages
    from hftool.prompting.prompt import rendered_chats

    if messages is not None:
        chat = parse_messages(one_text(None, FileOptions(messages, inputs.errors)))
        return iter([chat_template(tokenizer, chatting.chat_template).render(chat)])
    given = texts(text, inputs)
    return rendered_chats(tokenizer, given, chatting) if rendered else given

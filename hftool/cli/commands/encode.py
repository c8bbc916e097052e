"""`hftool encode`"""

from pathlib import Path
from typing import Annotated

import typer

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.options.encode import EncodeOptions
from hftool.options.inputs import ChatOptions, FileOptions, InputOptions, TextArgument
from hftool.options.model import ModelOptions
from hftool.options.output import PictureOptions


@expand_dataclasses
def encode(
    text: TextArgument = None,
    *,
    source: ModelOptions,
    inputs: InputOptions,
    chatting: ChatOptions,
    messages: Annotated[
        Path | None,
        typer.Option("--messages", metavar="FILE", help="A chat from a JSON file, templated."),
    ] = None,
    encoding: EncodeOptions,
    output: PictureOptions,
) -> None:
    """Turn text into token ids.

    Examples:
        hftool encode "good morning"
        # Each token with its place in the text
        hftool encode "i am good" --format table
        # What the model gets to see of a chat
        hftool encode --show-template "hi" --system "Be brief."
        # How many tokens each line has
        hftool encode --count --lines -f prompts.txt
    """
    from hftool.errors import exclude
    from hftool.inputs.texts import one_text, texts
    from hftool.models.local_files import load_tokenizer
    from hftool.output.views.tokens import COMPARED, COUNTS, ENCODED, RENDERED, ROUND_TRIPS
    from hftool.output.writer import write
    from hftool.prompting.chat_template import chat_template
    from hftool.prompting.messages import parse_messages
    from hftool.prompting.prompt import Rendered, rendered_chats
    from hftool.tokenization.encode import (
        compare_tokenizers,
        count_tokens,
        encode_texts,
        round_trips,
    )

    apart = {"a text": text, "--file": inputs.file, "--system": chatting.system}
    for name, value in {**apart, "--prefill": chatting.prefill}.items():
        exclude({"--messages": messages is not None, name: value is not None})
    tokenizer = load_tokenizer(source.model, source)
    if messages is not None:
        chat = parse_messages(one_text(None, FileOptions(messages, inputs.errors)))
        given = iter([chat_template(tokenizer, chatting.chat_template).render(chat)])
    else:
        given = texts(text, inputs)
        if chatting.templated or encoding.show_template:
            given = rendered_chats(tokenizer, given, chatting)
    # The chat template writes its own special tokens.
    special = encoding.special and not (messages or chatting.templated)
    if encoding.show_template:
        write(map(Rendered, given), RENDERED, output)
    elif encoding.count:
        write(count_tokens(tokenizer, given, special=special), COUNTS, output)
    elif encoding.roundtrip:
        write(round_trips(tokenizer, given), ROUND_TRIPS, output)
    elif encoding.compare is not None:
        others = [load_tokenizer(ref, source) for ref in encoding.compare.split(",")]
        compared = compare_tokenizers([tokenizer, *others], given, special=special)
        write(compared, COMPARED, output)
    else:
        encoded = encode_texts(tokenizer, given, special=special, max_tokens=encoding.max_tokens)
        write(encoded, ENCODED, output)

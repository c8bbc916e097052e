"""`hftool encode`"""

from pathlib import Path
from typing import Annotated

import typer

from hftool.options import (
    ChatOptions,
    FileOptions,
    InputOptions,
    ModelOptions,
    PictureOptions,
    TextArgument,
)
from hftool.spread import spread


@spread
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
    special: Annotated[
        bool, typer.Option("--special/--no-special", help="Add the tokenizer's special tokens.")
    ] = False,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", metavar="N", min=0, help="Keep the first N.")
    ] = None,
    count: Annotated[bool, typer.Option("--count", help="Only how many tokens.")] = False,
    show_template: Annotated[
        bool, typer.Option("--show-template", help="Only the text the chat template makes.")
    ] = False,
    compare: Annotated[
        str | None,
        typer.Option("--compare", metavar="REF2,REF3", help="Also by these models' tokenizers."),
    ] = None,
    roundtrip: Annotated[
        bool, typer.Option("--roundtrip", help="Only whether decoding gives the text back.")
    ] = False,
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
    from hftool import encoding
    from hftool.chat_templates import chat_template
    from hftool.errors import exclude
    from hftool.inputs import one_text, texts
    from hftool.models.locate import load_tokenizer
    from hftool.output import views
    from hftool.output.formats import write

    instead = {"--show-template": show_template, "--count": count, "--roundtrip": roundtrip}
    several, first = compare is not None, max_tokens is not None
    exclude({**instead, "--compare": several, "--max-tokens": first})
    apart = {"a text": text, "--file": inputs.file, "--system": chatting.system}
    for name, value in {**apart, "--prefill": chatting.prefill}.items():
        exclude({"--messages": messages is not None, name: value is not None})
    tokenizer = load_tokenizer(source.model, source)
    if messages is not None:
        chat = encoding.parse_messages(one_text(None, FileOptions(messages, inputs.errors)))
        given = iter([chat_template(tokenizer, chatting.chat_template).render(chat)])
    else:
        given = texts(text, inputs)
        if chatting.templated or show_template:
            given = encoding.rendered_chats(tokenizer, given, chatting)
    special = special and not (messages or chatting.templated)  # the template writes its own
    if show_template:
        write(map(encoding.Rendered, given), views.RENDERED, output)
    elif count:
        write(encoding.count_tokens(tokenizer, given, special=special), views.COUNTS, output)
    elif roundtrip:
        write(encoding.round_trips(tokenizer, given), views.ROUND_TRIPS, output)
    elif compare is not None:
        others = [load_tokenizer(ref, source) for ref in compare.split(",")]
        compared = encoding.compare_tokenizers([tokenizer, *others], given, special=special)
        write(compared, views.COMPARED, output)
    else:
        encoded = encoding.encode_texts(tokenizer, given, special=special, max_tokens=max_tokens)
        write(encoded, views.ENCODED, output)

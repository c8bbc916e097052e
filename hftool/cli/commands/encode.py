"""`hftool encode`"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.errors import exclude
from hftool.options.encode import EncodeOptions
from hftool.options.inputs import InputOptions, PartialPromptOptions, TextArgument
from hftool.options.model import ModelOptions
from hftool.options.output import PictureOptions

if TYPE_CHECKING:
    from hftool.prompting.prompt import Prompt
    from hftool.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hftool")


@expand_dataclasses
def encode(
    text: TextArgument = None,
    *,
    source: ModelOptions,
    inputs: InputOptions,
    chatting: PartialPromptOptions,
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
    from hftool.output.views.encode import ENCODE_VIEWS
    from hftool.output.writer import flush_stdout, write
    from hftool.prompting.prompt import prompt_ids, prompts
    from hftool.tokenization.encode import encode_records, encoded_ids
    from hftool.tokenization.failed_texts import FailedTexts

    chatting = replace(chatting, chat=chatting.chat or encoding.show_template)
    refs = [source.model, *(encoding.compare.split(",") if encoding.compare is not None else ())]
    tokenizers = [load_tokenizer(ref, source) for ref in refs]
    # A chat template writes its own special tokens.
    encoding = replace(encoding, special=encoding.special and not chatting.templated)
    given = prompts(text, inputs, chatting)
    if chatting.ids or (chatting.no_parse_special and chatting.templated):
        _require_tokens(encoding, chatting)
        ids = (prompt_ids(tokenizers[0], prompt, chatting) for prompt in given)
        write(
            (encoded_ids(tokenizers[0], some, encoding.max_tokens) for some in ids),
            ENCODE_VIEWS["tokens"],
            output,
        )
        return
    for tokenizer in tokenizers:
        tokenizer.backend.encode_special_tokens = chatting.no_parse_special
    if len(tokenizers) > 1 and chatting.templated:
        log.info("each model gets the chat in its own chat template")
    texts = (_versions(prompt, tokenizers, chatting, encoding.diff_arg or ()) for prompt in given)
    failed = FailedTexts(go_on=inputs.lines, per_text=len(tokenizers))
    records = failed.count(encode_records(tokenizers, texts, encoding, flush_stdout))
    write(records, ENCODE_VIEWS[encoding.mode], output)
    failed.require_none()


def _require_tokens(encoding: EncodeOptions, chatting: PartialPromptOptions) -> None:
    """Raise where an option needs a text that is encoded as it is.

    Raises:
        UsageError: with the options.
    """
    written = "--ids" if chatting.ids else "--no-parse-special with a chat"
    exclude({written: True, "another view of encode": encoding.mode != "tokens"})


def _versions(
    prompt: "Prompt",
    tokenizers: Sequence["Tokenizer"],
    chatting: PartialPromptOptions,
    diff_arg: Sequence[str],
) -> list[str]:
    """Return a prompt as each tokenizer gets it; or with `diff_arg`, without and with these
    variables."""
    from hftool.prompting.prompt import rendered, with_variables

    if diff_arg:
        versions = [prompt, with_variables(prompt, diff_arg)]
        return [rendered(tokenizers[0], version, chatting) for version in versions]
    return [rendered(tokenizer, prompt, chatting) for tokenizer in tokenizers]

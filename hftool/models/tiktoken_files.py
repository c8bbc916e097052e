"""Read the tokenizers of tiktoken's files."""

from pathlib import Path
from typing import Any

from hftool.models.split_patterns import CL100K, GPT2, O200K, QWEN2

TIKTOKEN_FILES = ("tokenizer.model", "tiktoken.model")
# How to split a text, by the number of tokens: of GPT-2, of GPT-4 (cl100k_base), of Qwen, of GPT-4o
# (o200k_base) and of Llama 4.
TIKTOKEN_SPLITS = {50256: GPT2, 100256: CL100K, 151643: QWEN2, 199998: O200K, 200000: O200K}
# The special tokens of those that are published as .tiktoken files, which don't have them.
TIKTOKEN_SPECIAL = {
    50256: {50256: "<|endoftext|>"},
    100256: {
        100257: "<|endoftext|>",
        100258: "<|fim_prefix|>",
        100259: "<|fim_middle|>",
        100260: "<|fim_suffix|>",
        100276: "<|endofprompt|>",
    },
    151643: {151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>"},
    199998: {199999: "<|endoftext|>", 200018: "<|endofprompt|>"},
}


def read_tiktoken(path: Path) -> Any:
    """Return the tokenizer of a `.tiktoken` file, as OpenAI publishes them.

    Raises:
        ValueError: it is not one of those that are known.
    """
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    count = _count_ranks(path)
    if count not in TIKTOKEN_SPECIAL:
        raise ValueError(
            f"how it splits a text is not in {path.name}, and hftool does not know a vocabulary of"
            f" {count:,} tokens"
        )
    special = TIKTOKEN_SPECIAL[count]
    ids = range(count, max(special) + 1)
    tokens = [special.get(i, f"<|reserved_token_{i}|>") for i in ids]
    convert: Any = TikTokenConverter
    create: Any = PreTrainedTokenizerFast
    converter = convert(str(path), TIKTOKEN_SPLITS[count], extra_special_tokens=tokens)
    return create(tokenizer_object=converter.converted())


def restore_tiktoken_split(source: Path, tokenizer: Any) -> None:
    """Give a tokenizer of tiktoken's format the splits that its vocabulary was made with.

    They are not in its file; transformers has Llama 3's for all. The number of tokens tells which
    vocabulary it is.
    """
    from tokenizers import Regex, pre_tokenizers

    model = next((source / name for name in TIKTOKEN_FILES if (source / name).is_file()), None)
    if model is None or (model.name == "tokenizer.model" and is_sentencepiece(model)):
        return
    if pattern := TIKTOKEN_SPLITS.get(_count_ranks(model)):
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )


def _count_ranks(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def is_sentencepiece(model: Path) -> bool:
    """Return whether a file is a SentencePiece model; tiktoken's files can have the same name."""
    import sentencepiece

    try:
        sentencepiece.SentencePieceProcessor(model_file=str(model))
    except (RuntimeError, OSError):
        return False
    return True

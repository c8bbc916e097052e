"""Convert a tokenizer without tokenizer.json, and check the result against sentencepiece.

Part of the process that makes a converted copy (`hftool.models.conversion`).
"""

from pathlib import Path
from typing import Any

from hftool.errors import HftoolError
from hftool.json_files import not_the_file, read_json
from hftool.models.converted_copies import WEIGHT_SUFFIXES
from hftool.models.python_tokenizer_files import tokenizer_of_bytes, write_python_tokenizer
from hftool.models.sentencepiece_match import match_sentencepiece
from hftool.models.tiktoken_files import is_sentencepiece, read_tiktoken, restore_tiktoken_split
from hftool.tokenization.added_tokens import AddedTokens, text_of

SENTENCEPIECE_FILES = (
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "sentencepiece.model"),
    *("spm.model", "source.spm"),
)


def convert_tokenizer(source: Path, target: Path) -> None:
    """Write tokenizer.json and its settings for a folder that has only older tokenizer files.

    If a SentencePiece model is among them and splits some text differently, the target gets the
    model as well.

    Raises:
        HftoolError, ValueError, or what transformers raises: it can't convert them.
    """
    for path in source.iterdir():
        if path.is_file() and path.suffix not in WEIGHT_SUFFIXES and (bad := not_the_file(path)):
            raise HftoolError(f"{path.name}: {bad[0]}", bad[1])
    tokenizer = _read(source)
    if hasattr(tokenizer, "backend_tokenizer"):
        tokenizer.save_pretrained(target)
    else:
        write_python_tokenizer(tokenizer, source, target)
    if (config := source / "config.json").is_file():  # has the number of embedding rows
        (target / "config.json").write_bytes(config.read_bytes())
    model = next((source / name for name in SENTENCEPIECE_FILES if (source / name).is_file()), None)
    if model is not None and hasattr(tokenizer, "backend_tokenizer") and is_sentencepiece(model):
        match_sentencepiece(model, target, tokenizer, _declared(source))


def _read(source: Path) -> Any:
    """Return transformers' tokenizer of a folder.

    Raises:
        ValueError, or what transformers raises: it can't read it.
    """
    from transformers import AutoTokenizer
    from transformers.tokenization_utils_tokenizers import TokenizersBackend

    own: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    config = read_json(source / "config.json")
    settings = read_json(source / "tokenizer_config.json")
    code = settings.get("auto_map")
    code = code.get("AutoTokenizer") if isinstance(code, dict) else code
    if (encoding := next(source.glob("*.tiktoken"), None)) and not code:
        return read_tiktoken(encoding)
    known = config.get("model_type") or config.get("tokenizer_class")
    try:
        if known or settings.get("tokenizer_class"):
            tokenizer = AutoTokenizer.from_pretrained(source, **own)
        else:
            tokenizer = TokenizersBackend.from_pretrained(source, **own)
    except ValueError as error:
        if "contains custom code" in str(error):
            name = next(part for part in code if part) if isinstance(code, list) else code
            raise ValueError(
                f"its tokenizer is code of the repository ({name}), which hftool does not run"
            ) from None
        if "Couldn't instantiate the backend tokenizer" in str(error):
            raise ValueError(
                "its files don't tell which kind of tokenizer they are; name it in"
                ' tokenizer_config.json, as in {"tokenizer_class": "BertTokenizer"}'
            ) from None
        raise
    if type(tokenizer).__name__ == "ByT5Tokenizer":
        return tokenizer_of_bytes(tokenizer)
    restore_tiktoken_split(source, tokenizer)
    return tokenizer


def _declared(source: Path) -> set[str]:
    """Return the tokens that a folder's settings declare special, beside those of its model."""
    import tokenizers

    empty = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokens = AddedTokens(source, read_json(source / "tokenizer_config.json"), empty)
    listed = {token.content for token in tokens.listed.values() if token.special}
    return {*listed, *tokens.texts.values(), *map(text_of, tokens.extra)}

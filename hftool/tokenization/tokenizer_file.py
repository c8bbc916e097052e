"""Read a tokenizer.json, with errors that name what is wrong with it."""

from pathlib import Path

import tokenizers

from hftool.errors import HftoolError
from hftool.json_files import not_the_file, read_json


def read_backend(path: Path) -> tokenizers.Tokenizer:
    """Read a tokenizer.json. Truncation, padding and dropout, which are for training, are off.

    Raises:
        HftoolError: the file is missing or broken, or needs a newer version of tokenizers.
    """
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises Exception itself
        raise _unreadable(path, error) from None
    backend.no_truncation()
    backend.no_padding()
    if getattr(backend.model, "dropout", None):
        backend.model.dropout = None
    return backend


def _unreadable(path: Path, error: Exception) -> HftoolError:
    if problem := not_the_file(path):
        return HftoolError(f"cannot read the tokenizer {path}: {problem[0]}", problem[1])
    if "did not match any variant of untagged enum" not in str(error):
        cause = f"it is cut off ({error})" if str(error).startswith("EOF") else str(error)
        return HftoolError(f"cannot read the tokenizer {path}: {cause}")
    if (part := _unknown_part(path)) is None:
        cause = f"tokenizers {tokenizers.__version__} does not know one of its parts ({error})"
    else:
        cause = f"tokenizers {tokenizers.__version__} does not know its {part[0]} “{part[1]}”"
    return HftoolError(
        f"cannot read the tokenizer {path}: {cause}",
        "a newer version may know it: pip install -U tokenizers transformers",
    )


def _unknown_part(path: Path) -> tuple[str, str] | None:
    """Return which part of a tokenizer.json this version of tokenizers does not know, by its name
    in the file and its type: ("pre_tokenizer", "SplitEverySyllable")."""
    kinds = {
        "normalizer": tokenizers.normalizers,
        "pre_tokenizer": tokenizers.pre_tokenizers,
        "model": tokenizers.models,
        "post_processor": tokenizers.processors,
        "decoder": tokenizers.decoders,
    }
    content = read_json(path)
    for name, known in kinds.items():
        remaining = [content.get(name)]
        while remaining:
            part = remaining.pop()
            if not isinstance(part, dict):
                continue
            for key in (f"{name}s", "pretokenizers", "processors"):
                remaining += part.get(key) or []
            kind = part.get("type")
            if isinstance(kind, str) and not hasattr(known, kind):
                return name, kind
    return None

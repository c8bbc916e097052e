"""Find a hub repository's files in the Hugging Face cache."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hftool.errors import HftoolError
from hftool.models.adapters import WEIGHTS as ADAPTER_WEIGHTS
from hftool.models.adapters import is_adapter
from hftool.models.references import HubModel
from hftool.models.validation import require_inside

Need = Literal["tokenizer", "model"]


def cached_folder(model: HubModel) -> Path | None:
    """Return the newest snapshot of a revision in the Hugging Face cache, complete or not; None if
    there is none."""
    from huggingface_hub import constants

    root = cache_folder(model)
    revision = model.revision or constants.DEFAULT_REVISION
    ref = root / "refs" / revision
    try:
        commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision
    except OSError:
        return None
    folder = root / "snapshots" / commit
    return folder if folder.is_dir() else None


def cache_folder(model: HubModel) -> Path:
    """Return the folder of a repository in the Hugging Face cache, whether it exists or not."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=model.repo, repo_type="model")


def missing_files(folder: Path, need: Need, pickled: bool) -> Sequence[str]:
    """Return the files that a folder lacks for its model or tokenizer to be loaded.

    With `pickled`, pickled weights count as well.

    Raises:
        HftoolError: an index of weights is broken, or names files outside the folder.
    """
    if is_adapter(folder):
        return [] if (folder / ADAPTER_WEIGHTS).is_file() else [ADAPTER_WEIGHTS]
    if not (folder / "config.json").is_file() and need == "model":
        return ["config.json"]
    if need == "tokenizer":
        names = (
            *("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
            *("tekken.json", "tiktoken.model", "vocab.txt", "vocab.json"),
        )
        return [] if any((folder / name).is_file() for name in names) else ["tokenizer.json"]
    if (folder / "model.safetensors").is_file():  # transformers takes this one first
        return []
    for index in ("model.safetensors.index.json", *(("pytorch_model.bin.index.json",) * pickled)):
        if (folder / index).is_file():
            try:
                shards = set(json.loads((folder / index).read_text())["weight_map"].values())
                missing = sorted(name for name in shards if not (folder / name).is_file())
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
                raise HftoolError(f"cannot read {folder / index}: {e}") from None
            for name in shards:
                require_inside(folder, name)
            return missing
    single = ("model.safetensors", *(("pytorch_model.bin",) * pickled))
    return [] if any((folder / name).is_file() for name in single) else ["model.safetensors"]

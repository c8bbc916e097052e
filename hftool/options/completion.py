"""The names a model can be called by on this machine: for completion, so nothing heavy here."""

from pathlib import Path

from hftool import config
from hftool.catalogue import BUILT_IN
from hftool.errors import HftoolError


def known_models(incomplete: str) -> list[str]:
    """Aliases, and the repositories in the Hugging Face cache, that begin with what is typed."""
    try:
        own = config.load().aliases
    except HftoolError:  # a broken config file; the command itself will say so
        own = {}
    names = [*own, *BUILT_IN, *_cached()]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _cached() -> list[str]:
    from huggingface_hub import constants

    # A folder is called models--owner--name; neither part can hold "--".
    folders = Path(constants.HF_HUB_CACHE).glob("models--*--*")
    return sorted("/".join(folder.name.split("--")[1:]) for folder in folders)

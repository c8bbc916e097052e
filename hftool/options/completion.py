"""Completion of model names, without a slow import."""

from pathlib import Path

from hftool import config
from hftool.catalogue import BUILT_IN
from hftool.errors import HftoolError


def known_models(incomplete: str) -> list[str]:
    """Return the aliases and the cached hub models that begin with `incomplete`."""
    try:
        own = config.load().aliases
    except HftoolError:  # a broken config file; the command itself reports it
        own = {}
    names = [*own, *BUILT_IN, *_cached()]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _cached() -> list[str]:
    from huggingface_hub import constants

    # A folder is called models--owner--name; the hub allows no "--" in either part.
    folders = Path(constants.HF_HUB_CACHE).glob("models--*--*")
    return sorted("/".join(folder.name.split("--")[1:]) for folder in folders)

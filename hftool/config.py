"""Settings from the environment and from config.toml.

The file holds defaults by command, and aliases:

    [aliases]
    tiny = "owner/name@revision"

    [generate]
    temperature = 0.7

An option on the command line comes first, then the environment, then this file.
"""

import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError

APP = "hftool"


@dataclass(frozen=True)
class Config:
    """What config.toml says: aliases, and option values by command and parameter name."""

    aliases: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, dict[str, Any]] = field(default_factory=dict)


def config_path() -> Path:
    """The config file: `HFTOOL_CONFIG`, else in the user's config folder.

    Raises:
        HftoolError: neither is there.
    """
    import platformdirs

    named = os.environ.get("HFTOOL_CONFIG")
    if named:
        return Path(named)
    return _at_home(platformdirs.user_config_path, "HFTOOL_CONFIG") / "config.toml"


def cache_path() -> Path:
    """The folder of prepared copies: `HFTOOL_CACHE`, else the user's cache folder.

    Raises:
        HftoolError: neither is there.
    """
    import platformdirs

    named = os.environ.get("HFTOOL_CACHE")
    return Path(named) if named else _at_home(platformdirs.user_cache_path, "HFTOOL_CACHE")


def _at_home(place: Callable[[str], Path], variable: str) -> Path:
    try:
        path = place(APP)
    except RuntimeError:
        path = Path("~")
    if path.parts[0] == "~":  # as older versions of platformdirs say the same
        raise HftoolError("you have no home folder", f"name a place with {variable}")
    return path


def history_path() -> Path:
    """Where the lines typed in chats are kept: in the user's state folder.

    Raises:
        RuntimeError: the user has no home.
    """
    import platformdirs

    Path.home()  # without one, platformdirs would name a folder `~` right here
    return platformdirs.user_state_path(APP) / "chat-history"


@cache
def load() -> Config:
    """The settings of config.toml; empty where there is no such file.

    Raises:
        HftoolError: the file can't be read, is no TOML, or holds something other than tables.
    """
    try:
        path = config_path()
    except HftoolError:  # nor is there a file, then
        return Config()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Config()
    except (OSError, ValueError, RecursionError) as error:
        raise HftoolError(
            f"cannot read the config file {path}: {error}",
            "mend it, or name another with HFTOOL_CONFIG",
        ) from None
    for name, table in document.items():
        if not isinstance(table, dict):
            raise HftoolError(
                f"config file {path}: '{name}' stands outside a table",
                "options go under the name of their command, as in [generate]",
            )
    aliases = document.pop("aliases", {})
    for name, target in aliases.items():
        if not isinstance(target, str):
            raise HftoolError(f"config file {path}: alias '{name}' must be a text")
    return Config(aliases, document)


def set_alias(name: str, target: str | None) -> None:
    """Write an alias into config.toml, or remove it with None; the rest of the file stays as it is.

    Raises:
        HftoolError: the file can't be written.
    """
    import tomlkit

    from hftool.atomic_files import atomic_file

    path = config_path()
    load()  # a broken file is reported, not overwritten
    document = tomlkit.parse(path.read_text(encoding="utf-8") if path.exists() else "")
    aliases = document.setdefault("aliases", tomlkit.table())
    if target is None:
        del aliases[name]
    else:
        aliases[name] = target
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HftoolError(f"cannot write {path}: {error.strerror}") from None
    with atomic_file(path) as file:
        file.write(tomlkit.dumps(document))
    load.cache_clear()

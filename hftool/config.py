"""Settings from the environment and from config.toml.

The file holds aliases, and default option values by command:

    [aliases]
    tiny = "owner/name@revision"

    [generate]
    temperature = 0.7

The command line takes precedence over the environment, and the environment over this file.
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
    """The content of config.toml: aliases, and option values by command and parameter name."""

    aliases: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, dict[str, Any]] = field(default_factory=dict)


def config_path() -> Path:
    """Return the path of the config file: `HFTOOL_CONFIG`, else in the user's config folder.

    Raises:
        HftoolError: `HFTOOL_CONFIG` is not set and the user has no home folder.
    """
    import platformdirs

    named = os.environ.get("HFTOOL_CONFIG")
    if named:
        return Path(named)
    return _user_folder(platformdirs.user_config_path, "HFTOOL_CONFIG") / "config.toml"


def cache_path() -> Path:
    """Return the folder for converted copies of models: `HFTOOL_CACHE`, else the user's cache.

    Raises:
        HftoolError: `HFTOOL_CACHE` is not set and the user has no home folder.
    """
    import platformdirs

    named = os.environ.get("HFTOOL_CACHE")
    return Path(named) if named else _user_folder(platformdirs.user_cache_path, "HFTOOL_CACHE")


def _user_folder(folder_of: Callable[[str], Path], variable: str) -> Path:
    try:
        path = folder_of(APP)
    except RuntimeError:
        path = Path("~")
    if path.parts[0] == "~":  # what older versions of platformdirs return without a home folder
        raise HftoolError("you have no home folder", f"set {variable} to a path")
    return path


def history_path() -> Path:
    """Return the path of the file with the lines typed in chats, in the user's state folder.

    Raises:
        RuntimeError: the user has no home folder.
    """
    import platformdirs

    Path.home()  # raises; platformdirs would return a folder named `~` in the current one
    return platformdirs.user_state_path(APP) / "chat-history"


@cache
def load() -> Config:
    """Return the content of config.toml; it is empty if the file does not exist.

    Raises:
        HftoolError: the file can't be read, is not TOML, or holds something other than tables.
    """
    try:
        path = config_path()
    except HftoolError:  # without a home folder there is no such file
        return Config()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Config()
    except (OSError, ValueError, RecursionError) as error:
        raise HftoolError(
            f"cannot read the config file {path}: {error}",
            "correct it, or set HFTOOL_CONFIG to another file",
        ) from None
    for name, table in document.items():
        if not isinstance(table, dict):
            raise HftoolError(
                f"config file {path}: '{name}' is outside any table",
                "put it below the name of its command, such as [generate]",
            )
    aliases = document.pop("aliases", {})
    for name, target in aliases.items():
        if not isinstance(target, str):
            raise HftoolError(f"config file {path}: aliases.{name} must be a string")
    return Config(aliases, document)


def set_alias(name: str, target: str | None) -> None:
    """Write an alias into config.toml, or remove it if `target` is None.

    The rest of the file, comments included, stays as it is.

    Raises:
        HftoolError: the file can't be written, or is broken.
        KeyError: the alias to remove does not exist.
    """
    import tomlkit

    from hftool.atomic_files import atomic_file

    path = config_path()
    load()  # reports a broken file, which is not overwritten
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

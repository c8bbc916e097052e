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
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError

APP = "hftool"


@dataclass(frozen=True)
class Settings:
    """What config.toml says: aliases, and option values by command and parameter name."""

    aliases: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, dict[str, Any]] = field(default_factory=dict)


def config_path() -> Path:
    """The config file: `HFTOOL_CONFIG`, else in the user's config folder."""
    import platformdirs

    named = os.environ.get("HFTOOL_CONFIG")
    return Path(named) if named else platformdirs.user_config_path(APP) / "config.toml"


def cache_path() -> Path:
    """The folder of prepared copies: `HFTOOL_CACHE`, else the user's cache folder.

    Raises:
        HftoolError: neither is there.
    """
    import platformdirs

    named = os.environ.get("HFTOOL_CACHE")
    return Path(named) if named else _at_home(platformdirs.user_cache_path(APP), "HFTOOL_CACHE")


def _at_home(path: Path, variable: str) -> Path:
    """A path that platformdirs found; without a home it names a folder `~` right here.

    Raises:
        HftoolError: there is no home.
    """
    if path.parts[0] == "~":
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
def load() -> Settings:
    """The settings of config.toml; empty where there is no such file.

    Raises:
        HftoolError: the file can't be read, is no TOML, or holds something other than tables.
    """
    path = config_path()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Settings()
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
    return Settings(aliases, document)


def set_alias(name: str, target: str | None) -> None:
    """Write an alias into config.toml, or remove it with None; the rest of the file stays as it is.

    Raises:
        HftoolError: the file can't be written.
    """
    import tomlkit

    from hftool.output.files import atomic_file

    path = _at_home(config_path(), "HFTOOL_CONFIG")
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

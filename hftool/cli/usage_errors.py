"""Errors in a command line, an environment variable or config.toml, in hftool's own words."""

import difflib
import inspect
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin

from typer.core import TyperGroup
from typer.exceptions import TyperException

from hftool import config
from hftool.cli import suggestions
from hftool.errors import HftoolError, UsageError
from hftool.options.ranges import OptionRange

_NO_COMMAND = re.compile("no such command '(.*)'", re.DOTALL)
MAX_SHOWN = 60  # characters of a value in a message


def from_typer(error: TyperException) -> HftoolError:
    """Return the error to show for one that Typer raised while it parsed a command line.

    Typer's message for a bad value repeats the words of the library that validates it, and names an
    option even if the value is from config.toml; it is written anew here. Its suggestions go by
    spelling alone; ours by meaning.
    """
    context = getattr(error, "ctx", None)
    parameter = getattr(error, "param", None)
    help_hint = f"see: {context.command_path} --help" if context else None
    if context and parameter and type(error).__name__ == "BadParameter":
        return _bad_value(error, context, parameter, help_hint)
    kind = type(error).__name__
    if kind == "NoSuchOption":  # its formatted message would list the options that look alike
        hint = suggestions.instead_of_option(error.option_name, context)  # type: ignore[attr-defined]
        return UsageError(_in_lower_case(error.message), hint or f"{help_hint}-all")
    message = _in_lower_case(error.format_message().partition(". Did you mean ")[0])
    if command := _NO_COMMAND.fullmatch(message):
        return UsageError(message, suggestions.instead_of_command(command[1], context) or help_hint)
    return UsageError(message, help_hint)


def _in_lower_case(message: str) -> str:
    return message[:1].lower() + message[1:].removesuffix(".")


def _bad_value(error: Any, context: Any, parameter: Any, hint: str | None) -> HftoolError:
    """Return the error for a value that its option, variable or config key cannot have."""
    allowed = _allowed(context.command, parameter.name)
    source = context.get_parameter_source(parameter.name)
    if source and source.name == "DEFAULT_MAP":
        key = [*context.command_path.split()[1:], parameter.name]
        return _bad_config_value(key, allowed, context.lookup_default(parameter.name), hint)
    if source and source.name == "ENVIRONMENT":
        name = parameter.envvar
    elif parameter.param_type_name == "argument":
        name = parameter.display_name_raw
    else:
        name = max(parameter.opts, key=len)
    # Typer raises its error from pydantic's, which has the value.
    errors = getattr(error.__cause__, "errors", None)
    given = f", not {_shown(errors()[0]['input'])}" if errors else ""
    return UsageError(f"{name} must be {allowed}{given}", hint)


def _bad_config_value(
    key: Iterable[str], allowed: str, value: Any, hint: str | None
) -> HftoolError:
    return HftoolError(
        f"config file {config.config_path()}: {'.'.join(key)} must be {allowed},"
        f" not {_shown(value)}",
        hint,
    )


def _shown(value: Any) -> str:
    """Return a value as it is written in config.toml, in a message's length."""
    text = str(value) if isinstance(value, str) else json.dumps(value, default=str)
    text = text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
    return f"'{text}'" if isinstance(value, str) else text


def _allowed(command: Any, name: str) -> str:
    """Return in words which values a command's option takes: `a whole number of at least 1`."""
    annotation = inspect.signature(command.callback).parameters[name].annotation
    annotated, option = get_args(annotation)[:2]
    kinds = [kind for kind in get_args(annotated) if kind is not NoneType]
    kind = kinds[0] if kinds and get_origin(annotated) not in (Literal, list) else annotated
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is list:
        return "a list of strings"
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return OptionRange(name, (), kind, None, option.min, option.max).allowed
    return "a path" if kind is Path else "a string"


def check_config(group: TyperGroup, defaults: Mapping[str, Any], *path: str) -> None:
    """Check what config.toml says about the commands of a group, as far as Typer does not.

    Raises:
        HftoolError: it names a command or an option that does not exist, or gives a list or a table
            to an option with one value, which Typer would turn into text.
    """
    for name, values in defaults.items():
        command = group.commands.get(name)
        if command is None:
            _raise_unknown("a command", name, group.commands)
        if not isinstance(values, dict):
            raise HftoolError(f"config file {config.config_path()}: '{name}' is not a table")
        if isinstance(command, TyperGroup):
            check_config(command, values, *path, name)
            continue
        parameters = {parameter.name: parameter for parameter in command.params}
        for option, value in values.items():
            if option not in parameters:
                _raise_unknown(f"an option of '{name}'", option, parameters)
            is_list = parameters[option].multiple or parameters[option].nargs == -1
            if isinstance(value, dict) or (isinstance(value, list) and not is_list):
                hint = f"see: {' '.join(('hftool', *path, name))} --help"
                allowed = _allowed(command, option)
                raise _bad_config_value((*path, name, option), allowed, value, hint)


def _raise_unknown(kind: str, name: str, names: Iterable[str]) -> NoReturn:
    matches = difflib.get_close_matches(name, names, n=1)
    raise HftoolError(
        f"config file {config.config_path()}: '{name}' is not {kind}",
        f"did you mean '{matches[0]}'?" if matches else None,
    )

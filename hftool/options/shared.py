"""Declarations of options and arguments, independent of the library that parses them.

A declaration belongs beside the type, as in `Annotated[int, option("--steps", help="…")]`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

Complete = Callable[[str], list[str]]
"""Returns the values that begin with the given text."""


@dataclass(frozen=True)
class Option:
    """An option of a command.

    Attributes:
        names: as they are typed; a switch can name its opposite too: `--echo/--no-echo`.
        help: a short sentence.
        panel: the heading above it in help; None for the options that one command has of its own.
        metavar: the placeholder of its value in help; None derives it from the type.
        min: the smallest number allowed.
        max: the largest number allowed.
        envvar: the environment variable with its value, where the command line has none.
        show_default: the default in words; None shows the value.
        autocompletion: completes its value in the shell.
        common: whether `--help` shows it; otherwise only `--help-all` does. A command's own options
            are always shown.
    """

    names: tuple[str, ...]
    help: str
    panel: str | None = None
    metavar: str | None = None
    min: float | None = None
    max: float | None = None
    envvar: str | None = None
    show_default: str | None = None
    autocompletion: Complete | None = None
    common: bool = False


@dataclass(frozen=True)
class Argument:
    """A positional argument of a command; the attributes are those of `Option`."""

    metavar: str
    help: str
    envvar: str | None = None
    autocompletion: Complete | None = None


def option(*names: str, **settings: Any) -> Option:
    """Declare an option by its names and the other attributes of `Option`."""
    return Option(names, **settings)


def option_name(options: Any, field: str) -> str:
    """Return how an option is typed that is a field of a dataclass, such as "--top-k"."""
    hint = get_type_hints(type(options), include_extras=True)[field]
    declared = next(each for each in get_args(hint) if isinstance(each, Option))
    return declared.names[0].partition("/")[0]

"""Find out which options a command line has."""

from typing import Any

import typer


def given_options(context: typer.Context) -> dict[str, tuple[str, Any]]:
    """Return the arguments and options on the command line by the names of their parameters: how
    each is written, and its value.

    Environment variables and config.toml do not count.
    """
    found = {}
    for parameter in context.command.params:
        name = parameter.name
        source = context.get_parameter_source(name) if name else None
        if name and source and source.name == "COMMANDLINE":
            written = max(parameter.opts, key=len) if parameter.opts[0][0] == "-" else "TEXT"
            found[name] = (written, context.params[name])
    return found

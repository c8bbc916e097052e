"""`hftool serve`"""

from typing import Annotated

import typer

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.options.output import OutputOptions


@expand_dataclasses
def daemon(
    *,
    detach: Annotated[bool, typer.Option("--detach", help="Serve in the background.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End the server.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Show the models in memory.")] = False,
    idle: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="End after so long without a request (30s, 10m, 2h)."),
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Unload what was used least recently beyond this (4GB)."),
    ] = None,
    output: OutputOptions,
) -> None:
    """Keep models in memory, so that other commands start at once.

    They use the server by themselves; --no-server, or HFTOOL_SERVER=off, is without it.

    Examples:
        hftool serve --detach --idle 30m
        # Which models it has in memory
        hftool serve --status
        hftool serve --stop
    """
    from hftool.output.views.models import LOADED_MODELS
    from hftool.output.writer import write
    from hftool.server import control

    asked = control.DaemonOptions(idle, memory_limit)
    control.require_one_of(detach, stop, status)
    if status:
        write(control.loaded_models(), LOADED_MODELS, output)
    elif stop:
        control.stop()
    elif detach:
        control.detach(asked)
    else:
        control.serve(asked)

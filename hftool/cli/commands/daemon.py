"""`hftool daemon`"""

import functools
from typing import Annotated

import typer
from typer.core import TyperGroup

from hftool.cli import log_notes, process
from hftool.cli.dataclass_options import expand_dataclasses
from hftool.cli.help import HelpfulCommand, HelpfulGroup
from hftool.options.output import OutputOptions

daemon = typer.Typer(
    cls=HelpfulGroup,
    help="Keep models in memory, so that other commands start immediately.",
    invoke_without_command=True,
)


@daemon.callback()
def _daemon(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), color=ctx.color)


@daemon.command("start", cls=HelpfulCommand)
def start_daemon(
    ctx: typer.Context,
    *,
    idle: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="End after this time without a request (30s, 10m, 2h)."),
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Beyond this, unload the least recently used models (4GB)."
        ),
    ] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay in this terminal until Ctrl-C.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes.")] = False,
) -> None:
    """Start the daemon, and return when it answers.

    Other commands use a running daemon automatically. Turn that off with --no-daemon for one
    command, or with HFTOOL_DAEMON=off.

    Examples:
        hftool daemon start --idle 30m
        # Until Ctrl-C, with at most 4 GB of models
        hftool daemon start --foreground --memory-limit 4GB
    """
    from hftool.server import control

    log_notes.configure(quiet=quiet, verbose=False)
    options = control.DaemonOptions(idle, memory_limit)
    if foreground:
        root = ctx.find_root().command
        assert isinstance(root, TyperGroup)
        control.run_in_foreground(options, root, functools.partial(process.run, root))
    else:
        control.start(options)


@daemon.command("stop", cls=HelpfulCommand)
def stop_daemon() -> None:
    """End the daemon; commands that are running finish.

    Examples:
        hftool daemon stop
    """
    from hftool.server import control

    control.stop()


@daemon.command("status", cls=HelpfulCommand)
@expand_dataclasses
def daemon_status(*, output: OutputOptions) -> None:
    """Show the models that the daemon has in memory; -v also shows where its log is.

    Examples:
        hftool daemon status
        # For a script
        hftool daemon status --json
    """
    from hftool.output.views.models import LOADED_MODELS
    from hftool.output.writer import write
    from hftool.server import control

    write(control.loaded_models(), LOADED_MODELS, output)

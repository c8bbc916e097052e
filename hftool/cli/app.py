"""The application: its commands, and the one place where an error becomes a line and a status."""

import os
import signal
import sys
from typing import Annotated, Any, NoReturn

import typer
import typer.main
from typer.exceptions import TyperException

import hftool
from hftool import config
from hftool.atomic_files import STDOUT, write_errors
from hftool.cli import process, suggestions, usage_errors
from hftool.cli.commands.bench import bench
from hftool.cli.commands.chat import chat
from hftool.cli.commands.daemon import daemon
from hftool.cli.commands.decode import decode
from hftool.cli.commands.encode import encode
from hftool.cli.commands.generate import generate
from hftool.cli.commands.models import models
from hftool.cli.commands.sample import sample
from hftool.cli.commands.score import score
from hftool.cli.commands.sentiment import sentiment
from hftool.cli.commands.topk import topk
from hftool.cli.commands.tour import tour
from hftool.cli.commands.tree import tree
from hftool.cli.commands.vocab_dump import vocab_dump
from hftool.cli.help import HelpfulCommand, HelpfulGroup, start_lines
from hftool.errors import HftoolError, UsageError, address_space_limit, is_little_memory
from hftool.terminal import show_error

# Bytes. A tiny model runs within 620 to 660 MiB (torch 2.13 on two cores).
MIN_ADDRESS_SPACE = 700 << 20


class HftoolGroup(HelpfulGroup):
    """The group of all commands, through which every error passes."""

    def main(self, *arguments: Any, **settings: Any) -> Any:
        standalone = settings.get("standalone_mode", True)
        try:
            status = super().main(*arguments, **{**settings, "standalone_mode": False})
        except BaseException as error:
            process.end_if_signalled()
            if isinstance(error, TyperException):
                shown = usage_errors.from_typer(error)
            elif isinstance(error, OSError):  # of stdout, while help or the version is written
                shown = HftoolError(error.strerror or str(error))
            else:
                raise
            show_error(shown)
            status = shown.status
        if standalone:
            sys.exit(status)
        return status

    def invoke(self, ctx: Any) -> Any:
        try:
            ctx.default_map = config.load().defaults
            usage_errors.check_config(self, ctx.default_map)
            result = super().invoke(ctx)
            with write_errors(STDOUT):
                sys.stdout.flush()
            return result
        except BrokenPipeError:
            process.end_by_signal(signal.SIGPIPE)
        except BaseException as error:
            process.end_if_signalled()
            if isinstance(error, KeyboardInterrupt):  # from a line editor, without a signal
                raise typer.Exit(process.INTERRUPTED) from None
            # A local name for the error would keep its traceback alive, and files open in it.
            status = _report(error)
            if status is None:
                raise
            raise typer.Exit(status) from None


class ComputingCommand(HelpfulCommand):
    """A command that needs torch."""

    def invoke(self, ctx: Any) -> Any:
        limit = address_space_limit()
        if limit is not None and limit < MIN_ADDRESS_SPACE:
            # Some of torch's libraries abort, or retry forever, if they get too little at start.
            raise HftoolError(
                f"not enough memory: the limit is {limit >> 20} MiB of address space, but torch"
                f" itself needs {MIN_ADDRESS_SPACE >> 20}",
                "`ulimit -v` shows and sets the limit",
            )
        return super().invoke(ctx)


def _report(error: BaseException) -> int | None:
    """Show an error and return its exit status; None for a bug, or where HFTOOL_DEBUG is set."""
    shown = error if isinstance(error, HftoolError) else _not_our_bug(error)
    if shown is None or os.environ.get("HFTOOL_DEBUG"):
        return None
    show_error(shown)
    return shown.status


def _not_our_bug(error: BaseException) -> HftoolError | None:
    """Return the error to show for a limit of the system, or a library that gives up on a file.

    Return None for any other error: it is a bug and keeps its traceback.
    """
    if is_little_memory(error):
        return HftoolError("not enough memory", "close other programs, or use a smaller model")
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return HftoolError(f"{name}{error.strerror or error}")
    if type(error).__name__ == "PanicException":  # raised by Rust libraries, which don't export it
        return HftoolError(
            f"the tokenizer fails: {str(error)[:300]}",
            "its files may be damaged; HFTOOL_DEBUG=1 shows where it fails",
        )
    return None


app = typer.Typer(
    name="hftool",
    cls=HftoolGroup,
    help=hftool.__doc__,
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "color": False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None,
    },
)


def version() -> None:
    """Show the versions of hftool and its libraries."""
    from importlib.metadata import version

    print(f"hftool {hftool.__version__}")
    for package in ("torch", "transformers", "tokenizers"):
        print(f"{package} {version(package)}", flush=True)  # a full disk is an error


def help_(
    ctx: typer.Context, command: Annotated[list[str] | None, typer.Argument()] = None
) -> None:
    """Show the help of a command, as its --help does."""
    assert ctx.parent is not None
    context: Any = ctx.parent
    for name in command or []:
        group = context.command
        if name not in getattr(group, "commands", {}):
            hint = suggestions.instead_of_command(name, context)
            raise UsageError(f"no such command '{name}'", hint or "see: hftool --help")
        context = typer.Context(group.commands[name], info_name=name, parent=context)
    typer.echo(context.get_help(), color=ctx.color)


def _show_version(value: bool) -> None:
    if value:
        version()
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    show_version: bool = typer.Option(
        False,
        "--version",
        callback=_show_version,
        is_eager=True,
        help="Show the versions and exit.",
    ),
) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo("\n".join(start_lines()), color=ctx.color)


app.command("help", cls=HelpfulCommand, hidden=True)(help_)
app.command("version", cls=HelpfulCommand, hidden=True)(version)
app.command("vocab-dump", cls=HelpfulCommand)(vocab_dump)
app.command("encode", cls=HelpfulCommand)(encode)
app.command("decode", cls=HelpfulCommand)(decode)
app.command("topk", cls=ComputingCommand)(topk)
app.command("score", cls=ComputingCommand)(score)
app.command("tree", cls=ComputingCommand)(tree)
app.command("sample", cls=ComputingCommand)(sample)
app.command("generate", cls=ComputingCommand)(generate)
app.command("chat", cls=ComputingCommand)(chat)
app.command("sentiment", cls=ComputingCommand)(sentiment)
app.command("tour", cls=ComputingCommand)(tour)
app.command("bench", cls=ComputingCommand)(bench)
app.add_typer(models, name="models")
app.add_typer(daemon, name="daemon")


def main() -> NoReturn:
    """Run the command line of this process, and exit."""
    process.run(typer.main.get_command(app))

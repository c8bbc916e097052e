"""The application: its commands, and errors turned into one line and a status."""

import difflib
import os
import signal
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any

import typer
import typer.main
from typer.core import TyperGroup
from typer.exceptions import TyperException

import hftool
from hftool import settings
from hftool.commands.chat import chat
from hftool.commands.decode import decode
from hftool.commands.encode import encode
from hftool.commands.generate import generate
from hftool.commands.models import models
from hftool.commands.sample import sample
from hftool.commands.sentiment import sentiment
from hftool.commands.serve import serve
from hftool.commands.topk import topk
from hftool.commands.vocab_dump import vocab_dump
from hftool.errors import HftoolError
from hftool.help import HelpfulCommand, HelpfulGroup, start_lines
from hftool.output.terminal import show_error

INTERRUPTED = 130


class HftoolGroup(HelpfulGroup):
    """The group of all commands; every error of theirs passes here."""

    def main(self, *arguments: Any, **settings: Any) -> Any:
        standalone = settings.get("standalone_mode", True)
        try:
            status = super().main(*arguments, **{**settings, "standalone_mode": False})
        except TyperException as error:  # wrong usage, found by Typer
            status = error.exit_code
            hint = _usage_hint(error)
            show_error(HftoolError(error.format_message(), hint))
        if standalone:
            sys.exit(status)
        return status

    def invoke(self, ctx: Any) -> Any:
        try:
            ctx.default_map = settings.load().defaults
            _check_names(self, ctx.default_map)
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except HftoolError as error:
            if os.environ.get("HFTOOL_DEBUG"):
                raise
            show_error(error)
            raise typer.Exit(error.status) from None
        except BrokenPipeError:
            _end_by_sigpipe()
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def _usage_hint(error: Any) -> str | None:
    """The way on from wrong usage: the closest name, or the command's help."""
    if possibilities := getattr(error, "possibilities", None):
        error.possibilities = None  # else they are part of the message
        return f"did you mean '{possibilities[0]}'?"
    context = getattr(error, "ctx", None)
    return f"`{context.command_path} --help` shows what there is" if context else None


def _check_names(group: TyperGroup, defaults: dict[str, Any]) -> None:
    """Raise where config.toml names a command or an option that does not exist."""
    for name, values in defaults.items():
        command = group.commands.get(name)
        if command is None:
            raise _unknown_name("command", name, group.commands)
        if not isinstance(values, dict):
            raise HftoolError(f"config file {settings.config_path()}: '{name}' is no table")
        if isinstance(command, TyperGroup):
            _check_names(command, values)
            continue
        options = [parameter.name for parameter in command.params if parameter.name]
        for option in values:
            if option not in options:
                raise _unknown_name(f"option of '{name}'", option, options)


def _unknown_name(what: str, name: str, known: Iterable[str]) -> HftoolError:
    close = difflib.get_close_matches(name, known, n=1)
    return HftoolError(
        f"config file {settings.config_path()}: '{name}' is no {what}",
        f"did you mean '{close[0]}'?" if close else None,
    )


def _end_by_sigpipe() -> None:
    """End as `cat` does when nobody reads on: by the signal, without a word.

    Python ignores SIGPIPE, which keeps a peer that hangs up in a download an ordinary error.
    """
    if not hasattr(signal, "SIGPIPE"):  # Windows
        os._exit(1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)


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
        "color": False if os.environ.get("NO_COLOR") else None,
    },
)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        print(f"hftool {version('hftool-cli')}")
        for package in ("torch", "transformers", "tokenizers"):
            print(f"{package} {version(package)}")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the versions and exit."
    ),
) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo("\n".join(start_lines()), color=ctx.color)


app.command("vocab-dump", cls=HelpfulCommand)(vocab_dump)
app.command("encode", cls=HelpfulCommand)(encode)
app.command("decode", cls=HelpfulCommand)(decode)
app.command("topk", cls=HelpfulCommand)(topk)
app.command("sample", cls=HelpfulCommand)(sample)
app.command("generate", cls=HelpfulCommand)(generate)
app.command("chat", cls=HelpfulCommand)(chat)
app.command("sentiment", cls=HelpfulCommand)(sentiment)
app.add_typer(models, name="models")
app.command("serve", cls=HelpfulCommand)(serve)


@cache
def command() -> Any:
    """The application as a group of commands, built once in a process."""
    return typer.main.get_command(app)


def main() -> None:
    """Run the command line; exits."""
    if sys.stderr is None:  # closed
        sys.stderr = open(os.devnull, "w")
    if sys.stdout is None:
        show_error(HftoolError("standard output is closed"))
        sys.exit(HftoolError.status)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    command()(prog_name="hftool")

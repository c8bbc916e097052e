"""The application: its commands, and errors turned into one line and a status."""

import difflib
import os
import sys
import traceback
from collections.abc import Iterable
from functools import cache
from typing import Any, NoReturn

import typer
import typer.main
from typer.core import TyperGroup
from typer.exceptions import TyperException

import hftool
from hftool import config
from hftool.atomic_files import STDOUT, write_errors
from hftool.cli.commands.chat import chat
from hftool.cli.commands.daemon import daemon
from hftool.cli.commands.decode import decode
from hftool.cli.commands.encode import encode
from hftool.cli.commands.generate import generate
from hftool.cli.commands.models import models
from hftool.cli.commands.sample import sample
from hftool.cli.commands.sentiment import sentiment
from hftool.cli.commands.topk import topk
from hftool.cli.commands.vocab_dump import vocab_dump
from hftool.cli.help import HelpfulCommand, HelpfulGroup, start_lines
from hftool.cli.process import (
    INTERRUPTED,
    end_by_signal,
    end_if_signalled,
    install_handlers,
    leave,
    reopen_closed_streams,
    stop,
)
from hftool.errors import HftoolError, address_space_limit, is_little_memory
from hftool.redaction import hide_token
from hftool.terminal import show_error, show_on_stderr

ADDRESS_SPACE = 700 << 20  # bytes: with 620 to 660 MiB a tiny model runs (torch 2.13, two cores)


class HftoolGroup(HelpfulGroup):
    """The group of all commands; every error of theirs passes here."""

    def main(self, *arguments: Any, **settings: Any) -> Any:
        standalone = settings.get("standalone_mode", True)
        try:
            status = super().main(*arguments, **{**settings, "standalone_mode": False})
        except BaseException as error:
            end_if_signalled()
            if isinstance(error, TyperException):  # wrong usage, found by Typer
                status = error.exit_code
                show_error(HftoolError(error.format_message(), _usage_hint(error)))
            elif isinstance(error, OSError):  # of stdout, where help or the version goes
                status = HftoolError.status
                show_error(HftoolError(error.strerror or str(error)))
            else:
                raise
        if standalone:
            sys.exit(status)
        return status

    def invoke(self, ctx: Any) -> Any:
        try:
            ctx.default_map = config.load().defaults
            _check_names(self, ctx.default_map)
            result = super().invoke(ctx)
            with write_errors(STDOUT):
                sys.stdout.flush()
            return result
        except BrokenPipeError:
            end_by_signal("SIGPIPE")
        except BaseException as error:
            end_if_signalled()
            if isinstance(error, KeyboardInterrupt):  # a key, not a signal
                raise typer.Exit(INTERRUPTED) from None
            shown = error if isinstance(error, HftoolError) else _of_the_system(error)
            if shown is None or os.environ.get("HFTOOL_DEBUG"):
                raise
            show_error(shown)
            raise typer.Exit(shown.status) from None


class ComputingCommand(HelpfulCommand):
    """A command that needs torch."""

    def invoke(self, ctx: Any) -> Any:
        limit = address_space_limit()
        if limit is not None and limit < ADDRESS_SPACE:
            # Libraries in C that get too little while they start abort, or try for ever.
            raise HftoolError(
                f"not enough memory: the limit is {limit >> 20} MiB of address space, and torch"
                f" alone takes {ADDRESS_SPACE >> 20}",
                "`ulimit -v` shows and sets the limit",
            )
        return super().invoke(ctx)


def _of_the_system(error: BaseException) -> HftoolError | None:
    """What is no bug of ours: the system's limits, and libraries that give up on a model's files.

    None for all else.
    """
    if is_little_memory(error):
        return HftoolError("not enough memory", "close other programs, or take a smaller model")
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return HftoolError(f"{name}{error.strerror or error}")
    if type(error).__name__ == "PanicException":  # of a library in Rust; it has no other name
        return HftoolError(
            f"the tokenizer fails: {str(error)[:300]}", "its files may be broken; HFTOOL_DEBUG=1"
        )
    return None


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
            raise HftoolError(f"config file {config.config_path()}: '{name}' is no table")
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
        f"config file {config.config_path()}: '{name}' is no {what}",
        f"did you mean '{close[0]}'?" if close else None,
    )


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
app.command("topk", cls=ComputingCommand)(topk)
app.command("sample", cls=ComputingCommand)(sample)
app.command("generate", cls=ComputingCommand)(generate)
app.command("chat", cls=ComputingCommand)(chat)
app.command("sentiment", cls=ComputingCommand)(sentiment)
app.add_typer(models, name="models")
app.command("serve", cls=HelpfulCommand)(daemon)


@cache
def command() -> Any:
    """The application as a group of commands, built once in a process."""
    return typer.main.get_command(app)


def main() -> NoReturn:
    """Run the command line; exits."""
    reopen_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    install_handlers(stop)
    hide_token()
    try:
        command()(prog_name="hftool")
    except SystemExit as ended:
        leave(ended)
    except BaseException as error:  # a bug, or HFTOOL_DEBUG; safe on a terminal all the same
        show_on_stderr("".join(traceback.format_exception(error)).rstrip())
        leave(SystemExit(1))
    leave(SystemExit(0))

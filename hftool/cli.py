"""The application: its commands, and errors turned into one line and a status."""

import difflib
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable
from functools import cache
from typing import Any, NoReturn

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
from hftool.errors import HftoolError, address_space_limit, is_little_memory
from hftool.help import HelpfulCommand, HelpfulGroup, start_lines
from hftool.output.files import STDOUT, write_errors
from hftool.output.terminal import show_error, show_on_stderr
from hftool.secrets import hide_token

INTERRUPTED = 130
LEAVING = ("SIGINT", "SIGTERM", "SIGHUP")  # what asks a program to end; Windows has no SIGHUP
ADDRESS_SPACE = 700 << 20  # bytes: with 620 to 660 MiB a tiny model runs (torch 2.13, two cores)
GRACE = 20  # seconds that clearing up may take


_came: list[str] = []  # the signals that have come to end this process


class _Terminated(BaseException):
    """One of the signals in `LEAVING` has come, other than SIGINT."""


class HftoolGroup(HelpfulGroup):
    """The group of all commands; every error of theirs passes here."""

    def main(self, *arguments: Any, **settings: Any) -> Any:
        standalone = settings.get("standalone_mode", True)
        try:
            status = super().main(*arguments, **{**settings, "standalone_mode": False})
        except BaseException as error:
            _end_if_told()
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
            ctx.default_map = settings.load().defaults
            _check_names(self, ctx.default_map)
            result = super().invoke(ctx)
            with write_errors(STDOUT):
                sys.stdout.flush()
            return result
        except BrokenPipeError:
            _end_by_signal("SIGPIPE")
        except BaseException as error:
            _end_if_told()
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


def _end_if_told() -> None:
    """End as the signal that has come asks for, also where a library made another error of it."""
    if "SIGINT" in _came:
        sys.exit(INTERRUPTED)
    if _came:
        _end_by_signal(_came[0])


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


def _end_by_signal(name: str) -> None:
    """End as a program does that knows nothing of the signal, without a word.

    For SIGPIPE that is what `cat` does when nobody reads on. Python ignores it, which keeps a peer
    that hangs up in a download an ordinary error.
    """
    if not hasattr(signal, name):  # Windows
        os._exit(1)
    number = getattr(signal, name)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


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
app.command("serve", cls=HelpfulCommand)(serve)


@cache
def command() -> Any:
    """The application as a group of commands, built once in a process."""
    return typer.main.get_command(app)


def main() -> NoReturn:
    """Run the command line; exits."""
    _fill_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    _heed(_stop)
    hide_token()
    try:
        command()(prog_name="hftool")
    except SystemExit as ended:
        _leave(ended)
    except BaseException as error:  # a bug, or HFTOOL_DEBUG; safe on a terminal all the same
        show_on_stderr("".join(traceback.format_exception(error)).rstrip())
        _leave(SystemExit(1))
    _leave(SystemExit(0))


def _fill_standard_streams() -> None:
    """Standard streams that were closed become the null device, the wrong way round: what is
    opened later is not taken for one of them, and what is written there is an error."""
    for descriptor, way in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, way)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)


def _heed(handler: Any) -> None:
    """Have the signals that ask for an end handled so, but for those ignored, as under nohup."""
    for name in LEAVING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _stop(number: int, frame: object) -> NoReturn:
    """Stop where we are, and clear up; end in any case, also where the exception gets lost (Python
    drops those of a `__del__`) or the clearing up hangs."""
    sys.unraisablehook = lambda lost: None
    name = signal.Signals(number).name
    _came.append(name)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, lambda number, frame: _end_by_signal(name))
        signal.alarm(GRACE)
    if name == "SIGINT":
        raise KeyboardInterrupt
    raise _Terminated(name)


def _leave(ended: SystemExit) -> NoReturn:
    """End now: Python would wait for a library's threads, such as those of a download, and would
    try again to write what could not be written."""
    _heed(signal.SIG_DFL)  # there is nothing left to clear up
    status = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    at_once = threading.active_count() > 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # said already; or the stream is closed
            at_once = True
    if at_once:
        os._exit(status)
    gc.freeze()  # else Python looks through all that torch made once more, which takes a second
    raise ended

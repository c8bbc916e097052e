"""What `--help`, the reference and the man pages say of a command: read from the command tree.

A command's docstring is its text; what follows a line `Examples:` is shown at the end, as it is.
"""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from hftool.redaction import redacted
from hftool.terminal import visible

EXAMPLES = "\n\nExamples:\n"
OWN_PANELS = ("Arguments", "Options")
NAME_WIDTH = 24  # columns; a longer name stands on a line of its own
UNBOUNDED = 2**63 - 1

START = """\
See, steer and script language models from the shell.

Type these first; they need no model hub:

  hftool encode "good morning"             text to tokens
  hftool topk "The capital of France is"   what a model expects next
  hftool sample "Once upon a time"         how a text comes about, step by step
  hftool generate "Once upon a time"       the text alone
  hftool chat                              a conversation; exit leaves
  hftool sentiment "I love programming!"   a label and a score

Then:

  hftool COMMAND --help                    a command's options, with examples
  hftool models list                       which models there are
  hftool --help                            all commands
  hftool --install-completion              commands, options, models on Tab
"""


@dataclass(frozen=True)
class Parameter:
    """An argument or an option.

    Attributes:
        names: as they are typed, short ones first; of an argument its placeholder.
        value: the placeholder or the choices of its value, empty for a flag.
        allowed: the numbers it takes, in words.
        panel: the heading it stands under.
    """

    names: tuple[str, ...]
    value: str
    help: str
    default: str | None
    environment: str | None
    allowed: str | None
    panel: str

    @property
    def title(self) -> str:
        """The names and the value: `-m, --model REF`."""
        return f"{', '.join(self.names)} {self.value}".rstrip()

    @property
    def notes(self) -> str:
        """Default, environment variable and range, in brackets; empty where there are none."""
        named = (("default", self.default), ("env", self.environment))
        notes = [f"{name}: {value}" for name, value in named if value]
        notes += [self.allowed] if self.allowed else []
        return f"[{'; '.join(notes)}]" if notes else ""


@dataclass(frozen=True)
class Page:
    """What there is to say of a command.

    `examples` are its lines: comments that begin with #, and commands.
    """

    path: str
    usage: str
    text: str
    parameters: tuple[Parameter, ...]
    examples: tuple[str, ...]
    commands: tuple["Page", ...]

    @property
    def summary(self) -> str:
        """The first paragraph of the text."""
        return " ".join(self.text.partition("\n\n")[0].split())

    @property
    def panels(self) -> Iterator[tuple[str, list[Parameter]]]:
        """The parameters under their headings, the command's own first."""
        order = list(dict.fromkeys((*OWN_PANELS, *(p.panel for p in self.parameters))))
        ordered = sorted(self.parameters, key=lambda p: order.index(p.panel))
        return ((panel, list(group)) for panel, group in groupby(ordered, lambda p: p.panel))


def page_of(command: Any, context: Any) -> Page:
    """The page of a command, and those of its subcommands."""
    text, _, examples = (command.help or "").partition(EXAMPLES)
    commands = getattr(command, "commands", {}).items()
    return Page(
        path=context.command_path,
        usage=" ".join([context.command_path, *command.collect_usage_pieces(context)]),
        text=text.strip(),
        parameters=tuple(_parameter(p, context) for p in command.get_params(context)),
        examples=tuple(textwrap.dedent(examples).strip().splitlines()),
        commands=tuple(page_of(c, _context(c, name, context)) for name, c in commands),
    )


def page_of_application(application: typer.Typer) -> Page:
    """The page of the whole application."""
    command = typer.main.get_command(application)
    return page_of(command, _context(command, "hftool", None))


def _context(command: Any, name: str, parent: Any) -> Any:
    return typer.Context(command, info_name=name, parent=parent, **command.context_settings)


def _parameter(parameter: Any, context: Any) -> Parameter:
    argument = isinstance(parameter, TyperArgument)
    if argument:
        names: list[str] = [parameter.display_name_raw]
    else:
        names = sorted(parameter.opts, key=lambda name: name.startswith("--"))
        names += parameter.secondary_opts
    return Parameter(
        names=tuple(names),
        value="" if argument or parameter.is_flag else _value(parameter, context),
        help=parameter.help or "",
        default=_default(parameter, context),
        environment=parameter.envvar,
        allowed=_allowed(parameter.min, parameter.max),
        panel=parameter.rich_help_panel or OWN_PANELS[not argument],
    )


def _value(option: Any, context: Any) -> str:
    shown = str(option.display_type(context).strip("<>"))
    return option.metavar or (shown if "|" in shown else shown.upper())


def _default(parameter: Any, context: Any) -> str | None:
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    value = parameter.get_default(context, call=False)
    if getattr(parameter, "secondary_opts", None):
        return str((parameter.opts if value else parameter.secondary_opts)[0])
    # config.toml may say anything
    return None if value in (None, False, ()) else visible(redacted(str(value)))


def _allowed(low: float | None, high: float | None) -> str | None:
    if high is None or high >= UNBOUNDED:
        return None if low is None else f"at least {low}"
    return f"at most {high}" if low is None else f"{low} to {high}"


def help_lines(page: Page, width: int) -> Iterator[str]:
    """A page as a terminal shows it, in at most `width` columns where its words allow it."""
    yield f"{_heading('Usage:')} {page.usage}"
    for paragraph in page.text.split("\n\n"):
        yield ""
        yield from textwrap.wrap(paragraph, width)
    for panel, parameters in page.panels:
        yield from ("", _heading(f"{panel}:"))
        for parameter in parameters:
            yield from _entry(parameter.title, f"{parameter.help} {parameter.notes}", width)
    if page.commands:
        yield from ("", _heading("Commands:"))
        for command in page.commands:
            yield from _entry(command.path.rpartition(" ")[2], command.summary, width)
    if page.examples:
        yield from ("", _heading("Examples:"))
        for line in page.examples:
            yield "  " + (typer.style(line, dim=True) if line.startswith("#") else line)


def _heading(text: str) -> str:
    return typer.style(text, bold=True)


def _entry(title: str, text: str, width: int) -> Iterator[str]:
    lines = textwrap.wrap(text, width - NAME_WIDTH - 4, break_on_hyphens=False) or [""]
    name = "  " + typer.style(title, fg="cyan")
    if len(title) > NAME_WIDTH:
        yield name
    else:
        yield name + " " * (NAME_WIDTH - len(title) + 2) + lines.pop(0)
    yield from (" " * (NAME_WIDTH + 4) + line for line in lines)


class _Helpful:
    def format_help(self, ctx: Any, formatter: Any) -> None:
        lines = help_lines(page_of(self, ctx), formatter.width)
        formatter.write("\n".join(lines) + "\n")


class HelpfulCommand(_Helpful, TyperCommand):
    """A command whose `--help` shows every name whole, and examples at the end."""


class HelpfulGroup(_Helpful, TyperGroup):
    """A group of commands with such a `--help`."""


def start_lines() -> Iterator[str]:
    """What `hftool` alone shows: what to type first."""
    for line in START.splitlines():
        command, gap, meaning = line.strip().partition("   ")
        if gap:
            yield f"  {typer.style(command, fg='cyan')}{gap}{meaning}"
        else:
            yield _heading(line) if line.endswith(":") else line

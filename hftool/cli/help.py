"""The help of a command, read from the command tree: for `--help`, the reference and man pages.

A command's docstring is its text; the lines after `Examples:` are shown at the end, as they are.
`--help` shows the options that people use, `--help-all` all of them under their headings.
"""

import copy
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from hftool.cli.suggestions import instead_of_words
from hftool.redaction import redacted
from hftool.terminal import visible

EXAMPLES = "\n\nExamples:\n"
ARGUMENTS, OWN_OPTIONS, HELP = "Arguments", "Options", "Help"
HELP_ALL = "--help-all"
NAME_WIDTH = 24  # columns; a longer name has a line of its own
UNBOUNDED = 2**63 - 1
NO_BREAK_SPACE = "\u00a0"

START = """\
See, steer and script language models from the shell.

Try these first; they need no download:

  hftool encode "good morning"             text to tokens
  hftool topk "The capital of France is"   the most probable next tokens
  hftool sample "Once upon a time" --pick  a text whose tokens you choose
  hftool generate "Once upon a time"       a text
  hftool chat                              a conversation; exit leaves
  hftool sentiment "I love programming!"   a label and its score

Then:

  hftool tour                              all this step by step, explained
  hftool COMMAND --help                    a command's options, with examples
  hftool models list                       models with a short name
  hftool --help                            all commands
  hftool --install-completion              complete options and names with Tab
"""


@dataclass(frozen=True)
class Parameter:
    """An argument or an option.

    Attributes:
        names: as they are typed, short ones first; the placeholder of an argument.
        value: the placeholder or the choices of its value, empty for a flag.
        allowed: the range of a number, in words.
        panel: the heading above it.
        common: whether the short help shows it.
    """

    names: tuple[str, ...]
    value: str
    help: str
    default: str | None
    environment: str | None
    allowed: str | None
    panel: str
    common: bool

    @property
    def title(self) -> str:
        """The names and the value: `-m, --model REF`."""
        return f"{', '.join(self.names)} {self.value}".rstrip()

    @property
    def short_notes(self) -> str:
        """The default in brackets; empty without one."""
        return f"[default: {self.default}]" if self.default else ""

    @property
    def notes(self) -> str:
        """The default, environment variable and range in brackets; empty without any."""
        named = (("default", self.default), ("env", self.environment))
        notes = [f"{name}: {value}" for name, value in named if value]
        notes += [self.allowed] if self.allowed else []
        return f"[{'; '.join(notes)}]" if notes else ""


@dataclass(frozen=True)
class Page:
    """The help of a command; `examples` are lines, either comments with # or commands."""

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
        """All parameters by heading: the command's own first, the help options last.

        Under each heading the common ones are first.
        """
        panels = dict.fromkeys((ARGUMENTS, OWN_OPTIONS, *(p.panel for p in self.parameters)))
        order = sorted(panels, key=lambda panel: panel == HELP)
        ordered = sorted(self.parameters, key=lambda p: (order.index(p.panel), not p.common))
        return ((panel, list(group)) for panel, group in groupby(ordered, lambda p: p.panel))

    @property
    def common_panels(self) -> Iterator[tuple[str, list[Parameter]]]:
        """The arguments, and the common options under one heading."""
        common = [p for _, parameters in self.panels for p in parameters if p.common]
        by_heading = groupby(common, lambda p: ARGUMENTS if p.panel == ARGUMENTS else OWN_OPTIONS)
        return ((heading, list(group)) for heading, group in by_heading)

    @property
    def has_more(self) -> bool:
        """Whether the short help leaves options out."""
        return not all(p.common or p.panel == HELP for p in self.parameters)


def page_of(command: Any, context: Any) -> Page:
    """Return the page of a command, with the pages of its subcommands."""
    text, _, examples = (command.help or "").partition(EXAMPLES)
    commands = [(n, c) for n, c in getattr(command, "commands", {}).items() if not c.hidden]
    # Typer puts required arguments in braces; the convention is without.
    pieces = [piece.strip("{}") for piece in command.collect_usage_pieces(context)]
    return Page(
        path=context.command_path,
        usage=" ".join([context.command_path, *pieces]),
        text=text.strip(),
        parameters=tuple(_parameter(p, context) for p in command.get_params(context)),
        examples=tuple(textwrap.dedent(examples).strip().splitlines()),
        commands=tuple(page_of(c, _context(c, name, context)) for name, c in commands),
    )


def page_of_application(application: typer.Typer) -> Page:
    """Return the page of the whole application."""
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
    panel = parameter.rich_help_panel or (ARGUMENTS if argument else OWN_OPTIONS)
    always = panel in (ARGUMENTS, OWN_OPTIONS) or "--help" in names
    # `expand_dataclasses` leaves the names of the common options on the command's function.
    common = getattr(context.command.callback, "common", ())
    return Parameter(
        names=tuple(names),
        value="" if argument or parameter.is_flag else _value(parameter, context),
        help=parameter.help or "",
        default=_default(parameter, context),
        environment=parameter.envvar,
        allowed=_allowed(parameter.min, parameter.max),
        panel=panel,
        common=always or parameter.name in common,
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
    # config.toml can set any text as a default, and a token too
    return None if value in (None, False, ()) else visible(redacted(str(value)))


def _allowed(low: float | None, high: float | None) -> str | None:
    if high is None or high >= UNBOUNDED:
        return None if low is None else f"at least {low}"
    return f"at most {high}" if low is None else f"{low} to {high}"


def help_lines(page: Page, width: int, *, everything: bool = False) -> Iterator[str]:
    """Yield a page as a terminal shows it, in at most `width` columns where its words allow it.

    Args:
        everything: all options under their headings, not only the common ones.
    """
    yield f"{_heading('Usage:')} {page.usage}"
    for paragraph in page.text.split("\n\n"):
        yield ""
        yield from textwrap.wrap(paragraph, width, break_on_hyphens=False)
    for heading, parameters in page.panels if everything else page.common_panels:
        yield from ("", _heading(f"{heading}:"))
        for parameter in parameters:
            notes = parameter.notes if everything else parameter.short_notes
            yield from _entry(parameter.title, parameter.help, width, notes)
    if page.commands:
        yield from ("", _heading("Commands:"))
        for command in page.commands:
            yield from _entry(command.path.rpartition(" ")[2], command.summary, width)
    if page.examples:
        yield from ("", _heading("Examples:"))
        for line in page.examples:
            yield "  " + (typer.style(line, dim=True) if line.startswith("#") else line)
    if page.has_more and not everything:
        yield from ("", f"{_heading('More options:')} {page.path} {HELP_ALL}")


def _heading(text: str) -> str:
    return typer.style(text, bold=True)


def _entry(title: str, text: str, width: int, notes: str = "") -> Iterator[str]:
    column = width - NAME_WIDTH - 4
    if len(notes) <= column:  # then all of it goes on one line: textwrap breaks no such space
        notes = notes.replace(" ", NO_BREAK_SPACE)
    lines = textwrap.wrap(f"{text} {notes}", column, break_on_hyphens=False) or [""]
    lines = [line.replace(NO_BREAK_SPACE, " ") for line in lines]
    name = "  " + typer.style(title, fg="cyan")
    if len(title) > NAME_WIDTH:
        yield name
    else:
        yield name + " " * (NAME_WIDTH - len(title) + 2) + lines.pop(0)
    yield from (" " * (NAME_WIDTH + 4) + line for line in lines)


class _Helpful:
    """A mixin for Typer's commands: a page as their help, and `--help-all`."""

    _help_all: Any = None

    def get_params(self, ctx: Any) -> list[Any]:
        parameters = super().get_params(ctx)  # type: ignore[misc]
        if self._help_all is None:
            # Typer puts its help option last. Made once, since Typer compares options by identity.
            help_option = parameters[-1]
            help_option.help = "Show this help and exit."
            self._help_all = copy.copy(help_option)
            self._help_all.name, self._help_all.opts = "help_all", [HELP_ALL]
            self._help_all.help = "Show all options and exit."
            self._help_all.callback = self._show_all
            for option in (help_option, self._help_all):
                option.rich_help_panel = HELP
        return [*parameters, self._help_all]

    def _show_all(self, ctx: Any, option: Any, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            lines = help_lines(page_of(self, ctx), ctx.make_formatter().width, everything=True)
            typer.echo("\n".join(lines), color=ctx.color)
            ctx.exit()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        lines = help_lines(page_of(self, ctx), formatter.width)
        formatter.write("\n".join(lines) + "\n")


class HelpfulCommand(_Helpful, TyperCommand):
    """A command whose help shows every name in full, and examples at the end."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.allow_extra_args = True
        words: list[str] = super().parse_args(ctx, args)
        if words and not ctx.resilient_parsing:
            raise instead_of_words(words, ctx)
        return words


class HelpfulGroup(_Helpful, TyperGroup):
    """A group of commands with such help."""


def start_lines() -> Iterator[str]:
    """Yield the lines that `hftool` without arguments shows: what to type first."""
    for line in START.splitlines():
        command, gap, meaning = line.strip().partition("   ")
        if gap:
            yield f"  {typer.style(command, fg='cyan')}{gap}{meaning}"
        else:
            yield _heading(line) if line.endswith(":") else line

"""A command's declared options, turned into a signature that Typer can read.

@expand_dataclasses
def encode(text: TextArgument = None, *, source: ModelOptions) -> None: ...
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from hftool.options.model import ComputeOptions
from hftool.options.output import OutputOptions
from hftool.options.shared import Argument, Option
from hftool.server import client
from hftool.terminal import show_status


def expand_dataclasses(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each dataclass in a command's signature by its fields, as keyword options.

    The result names the options that `--help` shows in its attribute `common`.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += _parameters(groups[name])
        else:
            parameters.append(
                parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            )

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        built = {
            name: group(**{item.name: values.pop(item.name) for item in fields(group)})
            for name, group in groups.items()
        }
        if output := next((v for v in built.values() if isinstance(v, OutputOptions)), None):
            from hftool.cli.log_notes import configure

            configure(quiet=output.quiet, verbose=output.verbose)
            client.log_declined()
            if not output.quiet:
                _show_loading(built.values())
        command(**values, **built)

    common = {p.name for p in parameters if getattr(_declared(p.annotation), "common", False)}
    parameters = [p.replace(annotation=_as_typer_reads(p.annotation)) for p in parameters]
    wrapper.common = frozenset(common)  # type: ignore[attr-defined]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return wrapper


def _show_loading(options: Iterable[Any]) -> None:
    """Show which model is being loaded: torch alone takes seconds to import."""
    if load := next((o for o in options if isinstance(o, ComputeOptions)), None):
        show_status(f"loading {getattr(load, 'model', None) or 'the model'} …")


def _parameters(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            item.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=item.default,
            annotation=hints[item.name],
        )
        for item in fields(group)
    ]


def _declared(hint: Any) -> Any:
    return get_args(hint)[1] if get_origin(hint) is Annotated else None


def _as_typer_reads(hint: Any) -> Any:
    """Return a type hint with Typer's declaration in place of ours."""
    declared = _declared(hint)
    settings: Any
    if isinstance(declared, Option):
        settings = typer.Option(
            *declared.names,
            help=declared.help,
            rich_help_panel=declared.panel,
            metavar=declared.metavar,
            min=declared.min,
            max=declared.max,
            envvar=declared.envvar,
            show_default=declared.show_default or True,
            autocompletion=declared.autocompletion,
        )
    elif isinstance(declared, Argument):
        settings = typer.Argument(
            help=declared.help,
            metavar=declared.metavar,
            envvar=declared.envvar,
            autocompletion=declared.autocompletion,
        )
    else:
        return hint
    return Annotated[get_args(hint)[0], settings]

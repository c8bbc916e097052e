"""Options out of dataclasses: a command's signature as Typer reads it.

@spread
def encode(text: TextArgument = None, *, source: ModelOptions) -> None: ...
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from hftool.options.output import OutputOptions
from hftool.server import client


def expand_dataclasses(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each dataclass in a command's signature by its fields, as keyword options."""
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type[Any]] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if not is_dataclass(hints[name]):
            parameters.append(
                parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            )
            continue
        group = hints[name]
        groups[name] = group
        types = get_type_hints(group, include_extras=True)
        parameters += [
            inspect.Parameter(
                item.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=item.default,
                annotation=types[item.name],
            )
            for item in fields(group)
        ]

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
        command(**values, **built)

    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return wrapper

"""Find out which model a command line needs, before it runs."""

import contextlib
import inspect
import os
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

from typer.core import TyperGroup
from typer.exceptions import Abort, Exit, TyperException

from hftool.errors import HftoolError
from hftool.options.model import (
    DEFAULT_CLASSIFIER,
    ClassifierOptions,
    ExactLoadOptions,
    LoadOptions,
    ModelOptions,
)
from hftool.server.log import log
from hftool.server.records import ModelKind

# A command that takes only `ModelOptions` needs only the tokenizer.
RequestedModel = ClassifierOptions | ExactLoadOptions | LoadOptions | ModelOptions
MODEL_KINDS: dict[type, ModelKind] = {
    ClassifierOptions: "classifier",
    ExactLoadOptions: "language-model",
    LoadOptions: "language-model",
    ModelOptions: "tokenizer",
}


def requested_model(root: TyperGroup, arguments: Sequence[str]) -> RequestedModel | None:
    """Return the options that load the model of a command line, if this machine has the model.

    Return None if the command line needs no model or is wrong: then the command runs without one,
    and reports by itself what is wrong.

    Raises:
        KeyError: there is no such command.
    """
    from hftool import config
    from hftool.models.local_files import local_folder
    from hftool.models.references import resolve_reference

    command = root.commands[arguments[0]]
    try:
        defaults = config.load().defaults.get(arguments[0])
        with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
            context = command.make_context("hftool", list(arguments[1:]), default_map=defaults)
        requested = _model_options(command.callback, context.params)
        if requested is None or context.params.get("labels") is not None:
            return None
        source = resolve_reference(requested.model or DEFAULT_CLASSIFIER, requested.revision)
        return requested if local_folder(source, requested.trust_remote_code) else None
    except (HftoolError, TyperException, Exit, Abort):
        return None  # wrong usage, or --help
    except Exception:
        log.exception("cannot tell which model a command line needs")
        return None


def _model_options(command: Any, values: dict[str, Any]) -> RequestedModel | None:
    """Return the dataclass of options that load a command's model, made from its values."""
    for annotation in get_type_hints(inspect.unwrap(command)).values():
        for options in get_args(RequestedModel):
            if isinstance(annotation, type) and issubclass(annotation, options):
                requested: RequestedModel = options(
                    **{item.name: values[item.name] for item in fields(options)}
                )
                # The model is on this machine: neither the hub nor a token is needed.
                return replace(requested, offline=True, hub_token=None)
    return None

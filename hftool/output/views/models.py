"""Views of models."""

from collections.abc import Iterable, Iterator
from typing import Any

from hftool.output.view import View, line, plain
from hftool.terminal import one_line


def facts(model: Any) -> Iterator[tuple[str, str]]:
    """A model's facts by name, in words."""
    for name, value in plain(model).items():
        if value is None:
            yield name, "-"
        elif isinstance(value, bool):
            yield name, "yes" if value else "no"
        else:
            yield name, one_line(str(value))


def _model_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import models

    return models.model(records, console)


def _loaded_models_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import models

    return models.loaded_models(records, console)


def _aliases_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import models

    return models.aliases(records, console)


def _pruned_copies_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import models

    return models.pruned_copies(records, console)


MEMORY_COLUMNS = ("float32_bytes", "bfloat16_bytes", "machine_bytes", "fits")

MODEL = View(
    columns=(
        *("ref", "name", "task", "source", "path", "architecture", "parameters"),
        *("context_length", "dtype", "size_bytes", "license", "gated", "chat_template"),
        *MEMORY_COLUMNS,
    ),
    text=lambda model: "".join(f"{name}: {value}\n" for name, value in facts(model)),
    table=_model_table,
)

LOADED_MODELS = View(
    columns=("model", "kind", "state", "memory", "requests", "idle", "process"),
    text=lambda held: line(
        held.model, held.kind, held.state, held.memory, held.requests, round(held.idle)
    ),
    table=_loaded_models_table,
)

ALIASES = View(
    columns=(
        *("alias", "model", "task", "here", "size_bytes", "purpose"),
        *("parameters", "context_length", "license", "gated", *MEMORY_COLUMNS),
    ),
    text=lambda alias: line(
        alias.alias, alias.model, alias.task or "-", "here" if alias.here else "-"
    ),
    table=_aliases_table,
)

PRUNED_COPIES = View(
    columns=("name", "source", "size_bytes", "removed"),
    text=lambda copy: line(copy.name, copy.size_bytes, copy.source or "-"),
    table=_pruned_copies_table,
)

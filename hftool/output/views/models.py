"""Views of models and of aliases."""

from collections.abc import Iterable, Iterator
from typing import Any

from hftool.output.model_facts import MEMORY_COLUMNS, facts
from hftool.output.view import View, line


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
    text=lambda m: line(m.model, m.kind, m.state, m.memory, m.requests, round(m.idle)),
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

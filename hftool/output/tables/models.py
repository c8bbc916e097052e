"""Tables of models: the facts about each, and whether it fits into this machine's memory."""

from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from hftool.output.model_facts import MEMORY_COLUMNS, facts
from hftool.output.tables.base import GAP, barred, new_table, rendered, right
from hftool.terminal import one_line

LONGEST_NUMBER = 16  # characters of a number with its unit, which is never broken over lines
LONGEST_ALIAS = 16  # characters; the list truncates a longer name
DROP = ("licence", "context", "float32", "bfloat16")  # left out of a narrow list, in this order


def aliases(records: Iterable[Any], console: Console) -> Iterator[str]:
    """Render two lines for each alias: the sizes of its model, then which model it is."""
    entries = list(records)
    rows = [_alias_cells(entry) for entry in entries]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    for name in DROP:
        if sum(widths.values()) + GAP * (len(widths) - 1) > console.width:
            del widths[name]
    table = new_table()
    for name, width in widths.items():
        table.add_column(
            name,
            width=width,
            style="bold" if name == "alias" else "",
            justify="left" if name in ("alias", "licence") else "right",
            no_wrap=True,
        )
    for row in rows:
        table.add_row(*(Text(row[name]) for name in widths))
    header, *lines = rendered(console, table).splitlines(keepends=True)
    yield header
    for line, entry in zip(lines, entries, strict=True):
        model = Text(f"{one_line(entry.model)}: {entry.purpose}", "dim", overflow="fold")
        yield line + rendered(console, Padding(model, (0, 0, 0, 2)))
    yield "\nThe float32 and bfloat16 columns show the memory that the weights need;\n"
    yield f"this machine has {size(entries[0].machine_bytes)}. Details: hftool models show NAME\n"


def _alias_cells(entry: Any) -> dict[str, str]:
    """Return the first line of an alias, by column."""
    name = one_line(entry.alias)
    return {
        "alias": name if len(name) <= LONGEST_ALIAS else name[: LONGEST_ALIAS - 1] + "…",
        "here": size(entry.size_bytes),
        "float32": size(entry.float32_bytes),
        "bfloat16": size(entry.bfloat16_bytes),
        "fits": {"float32": "yes", "bfloat16": "bfloat16", "none": "no"}.get(entry.fits, "-"),
        "context": "-" if entry.context_length is None else f"{entry.context_length:,}",
        "licence": ", ".join([entry.license or "-", *(["gated"] if entry.gated else [])]),
    }


def model(records: Iterable[Any], console: Console) -> Iterator[str]:
    """Render a line for each fact about a model, then whether it fits."""
    for record in records:
        table = new_table(show_header=False)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold", min_width=LONGEST_NUMBER)
        for name, value in facts(record):
            if name not in MEMORY_COLUMNS:
                table.add_row(name, Text(value))
        table.add_row("memory", Text(requirements(record)))
        yield rendered(console, table)


def requirements(record: Any) -> str:
    """Return a sentence about the memory a model's weights need, and whether they fit."""
    machine = f"this machine has {size(record.machine_bytes)}"
    if record.fits is None:
        return machine
    verdict = {
        "float32": "fits",
        "bfloat16": "fits in bfloat16",
        "none": "does not fit",
    }[record.fits]
    needs = f"{size(record.float32_bytes)} in float32, {size(record.bfloat16_bytes)} in bfloat16"
    return f"needs {needs}; {machine}: {verdict}"


def size(count: int | None) -> str:
    """Format a number of bytes: "542 MB", "6.4 GB"; "-" if it is unknown."""
    if count is None:
        return "-"
    return f"{count / 1e6:,.0f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"


def loaded_models(records: Iterable[Any], console: Console) -> Iterator[str]:
    """Render the models in a server's memory: the memory each takes, and how much it is used."""
    names = ("model", "kind", "state", "memory", "requests", "last used")
    rows = [
        (
            *map(Text, (one_line(loaded.model), loaded.kind, loaded.state)),
            *map(right, (size(loaded.memory), str(loaded.requests), f"{loaded.idle:.0f} s ago")),
        )
        for loaded in records
    ]
    if not rows:
        yield "no model is in memory yet\n"
        return
    yield rendered(console, barred(console, names, rows, [], "", drop=("kind", "last used")))


def pruned_copies(records: Iterable[Any], console: Console) -> Iterator[str]:
    """Render what `models prune` removes: the size of each copy, and what it was made of."""
    copies = list(records)
    if not copies:
        yield "nothing to remove: every converted copy is in use\n"
        return
    rows = [
        (Text(copy.name), right(size(copy.size_bytes)), Text(one_line(copy.source or "-")))
        for copy in copies
    ]
    yield rendered(console, barred(console, ("copy", "size", "made of"), rows, [], ""))
    total = size(sum(copy.size_bytes for copy in copies))
    removed = all(copy.removed for copy in copies)
    yield f"\n{total} removed\n" if removed else f"\n{total} to remove, without --dry-run\n"

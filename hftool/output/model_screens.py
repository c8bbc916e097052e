"""What a person sees of models: what each is, and whether it fits into this machine."""

from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from hftool.output.tables import new_table, rendered
from hftool.output.terminal import one_line

LONGEST_ALIAS = 16  # columns; a longer name is cut off in the list


def aliases(records: Iterable[Any], console: Console) -> Iterator[str]:
    """Each alias in two lines: what it needs, and what it means."""
    entries = list(records)
    table = new_table()
    table.add_column("alias", style="bold", no_wrap=True, max_width=LONGEST_ALIAS)
    for name in ("here", "float32", "bfloat16", "fits", "context"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("licence", no_wrap=True)
    for entry in entries:
        table.add_row(
            one_line(entry.alias),
            *map(size, (entry.size_bytes, entry.float32_bytes, entry.bfloat16_bytes)),
            {"float32": "yes", "bfloat16": "bfloat16", "none": "no"}.get(entry.fits, "-"),
            "-" if entry.context_length is None else f"{entry.context_length:,}",
            ", ".join([entry.license or "-", *(["gated"] if entry.gated else [])]),
        )
    heading, *rows = rendered(console, table).splitlines(keepends=True)
    yield heading
    for row, entry in zip(rows, entries, strict=True):
        meaning = Text(f"{one_line(entry.model)}: {entry.purpose}", "dim", overflow="fold")
        yield row + rendered(console, Padding(meaning, (0, 0, 0, 2)))
    yield "\nIn memory the weights take what stands under float32 or bfloat16;\n"
    yield f"this machine has {size(entries[0].machine_bytes)}. `hftool models show` tells more.\n"


def model(records: Iterable[Any], console: Console) -> Iterator[str]:
    """A model's facts, a line each, and whether it fits."""
    from hftool.output.views import MEMORY_COLUMNS, facts

    for record in records:
        table = new_table(show_header=False)
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for name, value in facts(record):
            if name not in MEMORY_COLUMNS:
                table.add_row(name, Text(value))
        table.add_row("memory", Text(requirements(record)))
        yield rendered(console, table)


def requirements(record: Any) -> str:
    """What a model's weights take, and whether this machine has it, in a sentence."""
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
    """Bytes for a person: "542 MB", "6.4 GB"; "-" where they are not known."""
    if count is None:
        return "-"
    return f"{count / 1e6:,.0f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"


def held_models(records: Iterable[Any], console: Console) -> Iterator[str]:
    """The models of a server: what each takes, and how much it is used."""
    table = new_table()
    for name, justify in (("model", "left"), ("state", "left"), ("memory", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("requests", justify="right")
    table.add_column("last used", justify="right")
    for held in records:
        ago = f"{held.idle:.0f} s ago"
        table.add_row(one_line(held.model), held.state, size(held.memory), str(held.requests), ago)
    yield rendered(console, table) if table.rows else "no model is in memory yet\n"

"""The view of `bench`."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from hftool.output.view import Row, View, escaped, line, number, plain

if TYPE_CHECKING:
    from hftool.generation.benchmark import Benchmark

SPEEDS = ("prefill", "decode", "batch")


def _table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables.bench import benchmarks

    return benchmarks(records, console)


def _text(record: "Benchmark") -> str:
    if record.error is not None:
        return line(record.precision, f"error={escaped(record.error)}")
    numbers = (record.load_seconds, *(getattr(record, name).mean for name in SPEEDS))
    seconds, *speeds = (number(value) for value in numbers if value is not None)
    return line(record.precision, seconds, str(record.memory_bytes), *speeds)


def _rows(record: "Benchmark") -> list[Row]:
    row = plain(record)
    speeds = {name: row.pop(name) or {"mean": None, "deviation": None} for name in SPEEDS}
    for name, speed in speeds.items():
        row[name], row[f"{name}_deviation"] = speed["mean"], speed["deviation"]
    return [row]


BENCHMARKS = View(
    columns=(
        *("precision", "device", "threads", "prompt_tokens", "new_tokens", "batch_size"),
        *("load_seconds", "memory_bytes", "error"),
        *(column for name in SPEEDS for column in (name, f"{name}_deviation")),
    ),
    text=_text,
    rows=_rows,
    table=_table,
)

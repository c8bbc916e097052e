"""The facts about a model in words, for the text format and for tables."""

from collections.abc import Iterator
from typing import Any

from hftool.output.view import plain
from hftool.terminal import one_line

# The facts that a table has in one sentence instead, about the memory that the weights need.
MEMORY_COLUMNS = ("float32_bytes", "bfloat16_bytes", "machine_bytes", "fits")


def facts(model: Any) -> Iterator[tuple[str, str]]:
    """Yield the name and the value of each field of a model's record."""
    for name, value in plain(model).items():
        if value is None:
            yield name, "-"
        elif isinstance(value, bool):
            yield name, "yes" if value else "no"
        else:
            yield name, one_line(str(value))

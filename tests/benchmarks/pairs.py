"""The two sides of a benchmark."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """Two ways to do the same task. Each runs it once and returns how many `unit` it processed;
    `remark`, called afterwards, reports how far the results agree."""

    what: str
    other: str
    unit: str
    run_hftool: Callable[[], int]
    run_other: Callable[[], int]
    remark: Callable[[], str] = str

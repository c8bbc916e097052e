"""What is compared in a benchmark."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """Two ways to do the same: each does it once and returns how many `unit` it has done. `remark`
    says afterwards how far their results agree."""

    what: str
    other: str
    unit: str
    run_hftool: Callable[[], int]
    run_other: Callable[[], int]
    remark: Callable[[], str] = str

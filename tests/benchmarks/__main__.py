"""Compare hftool with the usual alternatives, side by side in one run: `make bench`."""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks import (
    busy,
    constraining,
    generating,
    judging,
    quota,
    scoring,
    starting,
)
from tests.benchmarks.pairs import Pair


@dataclass(frozen=True)
class Result:
    """Both rates, in `unit` per second; `ratio` is hftool's rate divided by the other's."""

    what: str
    other: str
    unit: str
    hftool_rate: float
    other_rate: float
    ratio: float
    remark: str


def measured(pair: Pair, repeats: int) -> Result:
    """Run both in turn, `repeats` times, and return the median rates."""
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(repeats):
        for run, rates in ((pair.run_hftool, ours), (pair.run_other, theirs)):
            start = time.perf_counter()
            count = run()
            rates.append(count / (time.perf_counter() - start))
    rate, other = statistics.median(ours), statistics.median(theirs)
    return Result(pair.what, pair.other, pair.unit, rate, other, rate / other, pair.remark())


def show(results: list[Result]) -> None:
    """Print the results as a table."""
    table = Table(box=None, pad_edge=False)
    for name in ("what", "compared with"):
        table.add_column(name, overflow="fold")
    for name in ("hftool", "other", "ratio"):
        table.add_column(name, justify="right")
    table.add_column("", overflow="fold")
    for r in results:
        numbers = (_short(r.hftool_rate), _short(r.other_rate), f"{r.ratio:.2f}")
        table.add_row(r.what, r.other, *numbers, f"{r.unit}/s {r.remark}")
    Console().print(table)


def _short(rate: float) -> str:
    return f"{rate:,.{2 if rate < 10 else 1}f}"


def main() -> None:
    """Run the benchmarks named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        help="start, count, generate, large, busy, quota, constrain, sentiment, score",
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--texts", type=int, default=1000, help="for sentiment; busy has a quarter, score a tenth"
    )
    parser.add_argument("--megabytes", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--json", type=Path, default=Path("bench.json"))
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    all_pairs: dict[str, Callable[[], Iterator[Pair]]] = {
        "start": starting.pairs,
        "count": lambda: starting.counting(args.megabytes),
        "generate": lambda: generating.pairs(args.tokens),
        "large": lambda: generating.large(args.tokens),
        "busy": lambda: busy.pairs(args.tokens, args.texts // 4),
        "quota": lambda: quota.pairs(args.tokens),
        "constrain": lambda: constraining.pairs(args.tokens),
        "sentiment": lambda: judging.pairs(args.texts),
        "score": lambda: scoring.pairs(max(8, args.texts // 10)),
    }
    results = [
        measured(pair, args.repeats)
        for name in args.names or all_pairs
        for pair in all_pairs[name]()
    ]
    show(results)
    args.json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")


if __name__ == "__main__":
    main()

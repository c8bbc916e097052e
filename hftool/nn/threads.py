"""How many threads torch computes with: no more than there are cores to have.

The threads of an operation wait for one another by spinning. So if another program uses one of the
cores, or a container may not use all of them, each of the hundreds of operations for a token waits
until the slowest thread gets a turn, and a model that made 70 tokens a second makes a few.
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import psutil
import torch

CHECK_SECONDS = 0.25  # between two looks at what other programs use
CGROUPS = Path("/sys/fs/cgroup")

T = TypeVar("T")


class Threads:
    """The number of torch's threads, which follows the load of the machine."""

    def __init__(self) -> None:
        self._most: int | None = None
        self._checked, self._seen = time.monotonic(), _used_by_others()

    def adapt(self) -> None:
        """Leave torch as many threads as there are cores that other programs do not use.

        It looks at most every `CHECK_SECONDS`, at what they used since the last time. To be called
        by the thread that computes: in OpenMP each thread has a number of its own.
        """
        elapsed = time.monotonic() - self._checked
        if elapsed < CHECK_SECONDS or "OMP_NUM_THREADS" in os.environ:
            return
        used = _used_by_others()
        others = (used - self._seen) / elapsed
        self._checked, self._seen = time.monotonic(), used
        self._most = self._most or torch.get_num_threads()
        free = math.floor((os.cpu_count() or 1) - others + 0.5)
        torch.set_num_threads(max(1, min(self._most, free)))


def _used_by_others() -> float:
    """Return the seconds of CPU time that other processes have used, on all cores, since the
    machine started; time that a hypervisor gave to other machines counts too."""
    everything = psutil.cpu_times()
    idle = everything.idle + getattr(everything, "iowait", 0.0)
    # On Linux user time includes the time of guests.
    guests = getattr(everything, "guest", 0.0) + getattr(everything, "guest_nice", 0.0)
    own = os.times()
    return float(sum(everything) - guests - idle - own.user - own.system)


threads = Threads()


def for_each(compute: Callable[[T], None], items: Sequence[T], workers: int) -> None:
    """Compute all items, in as many threads as there are workers; several have one core each.

    Raises: what the first failing item raises; those that have not begun are left out.
    """
    if workers == 1:
        for item in items:
            compute(item)
        return
    torch.set_num_threads(1)  # in each worker
    pool = ThreadPoolExecutor(workers)
    try:
        for _ in pool.map(compute, items):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(workers)


def limit_to_quota() -> None:
    """Lower the number of torch's threads to the number of cores that the process's control group
    may use, unless OMP_NUM_THREADS chooses it."""
    cores = cpu_quota()
    if cores is not None and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(torch.get_num_threads(), math.ceil(cores))))


def cpu_quota(root: Path = CGROUPS, own_groups: Path = Path("/proc/self/cgroup")) -> float | None:
    """Return how many cores the process's control groups (version 1 or 2) may use, None without a
    limit.

    In a container, the files at the root are the container's own.
    """
    try:
        lines = own_groups.read_text().splitlines()
    except OSError:  # not Linux
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / controllers
        group = top / path.lstrip("/")
        folders = [g for g in (group, *group.parents) if g.is_relative_to(top)]
        quotas += [_quota(folder) for folder in folders]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(group: Path) -> float | None:
    """Return the cores that one control group may use."""
    try:
        if (group / "cpu.max").is_file():
            allowed, period = (group / "cpu.max").read_text().split()
        else:
            allowed, period = (
                (group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        return int(allowed) / int(period) if int(allowed) > 0 else None
    except (OSError, ValueError):  # no such controller, or the word "max"
        return None

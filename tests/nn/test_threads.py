"""How many threads torch gets."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from hftool.nn import threads as module
from hftool.nn.threads import CHECK_SECONDS, Threads, cpu_quota


@pytest.fixture(autouse=True)
def same_number_afterwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("cpu_", "cpu.")).write_text(text)


def test_the_quota_of_a_container(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/\n")
    assert cpu_quota(tmp_path, own) is None
    write(tmp_path, cpu_max="max 100000\n")
    assert cpu_quota(tmp_path, own) is None
    write(tmp_path, cpu_max="150000 100000\n")
    assert cpu_quota(tmp_path, own) == 1.5


def test_the_least_quota_of_all_groups_above_counts(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/user.slice/work.scope\n")
    write(tmp_path / "user.slice", cpu_max="200000 100000\n")
    write(tmp_path / "user.slice/work.scope", cpu_max="400000 100000\n")
    write(tmp_path / "other.slice", cpu_max="100000 100000\n")
    assert cpu_quota(tmp_path, own) == 2


def test_the_quota_of_version_1(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("4:memory:/a\n3:cpu,cpuacct:/docker/1\n0::/\n")
    group = tmp_path / "cpu,cpuacct/docker/1"
    write(group, cpu_cfs_quota_us="-1\n", cpu_cfs_period_us="100000\n")
    assert cpu_quota(tmp_path, own) is None
    write(group, cpu_cfs_quota_us="50000\n")
    assert cpu_quota(tmp_path, own) == 0.5
    assert cpu_quota(tmp_path, tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("busy_cores", "expected"), [(0.0, 4), (0.4, 4), (0.6, 3), (1.0, 3), (3.9, 1), (9.0, 1)]
)
def test_as_many_threads_as_there_are_free_cores(
    busy_cores: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module, "_used_by_others", lambda: busy_cores * clock[0])
    torch.set_num_threads(4)
    threads = Threads()
    threads.adapt()
    assert torch.get_num_threads() == 4
    clock[0] += 2 * CHECK_SECONDS
    threads.adapt()
    assert torch.get_num_threads() == expected


def test_programs_on_every_core_leave_one_thread() -> None:
    torch.set_num_threads(2)
    threads = Threads()
    with ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(busy.kill)
        time.sleep(4 * CHECK_SECONDS)
        threads.adapt()
    assert torch.get_num_threads() == 1
    torch.set_num_threads(2)


def test_a_number_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(module, "cpu_quota", lambda: 1.0)
    torch.set_num_threads(2)
    module.limit_to_quota()
    assert torch.get_num_threads() == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    module.limit_to_quota()
    assert torch.get_num_threads() == 1

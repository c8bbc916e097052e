"""The daemon's log."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hftool.server import log as daemon_log
from tests.server.test_daemon import fill

linux = pytest.mark.skipif(sys.platform != "linux", reason="the daemon needs Linux")


@pytest.fixture
def log_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A log that this process writes."""
    logger = daemon_log.log
    before = (logger.handlers, logger.propagate, logger.level)
    path = daemon_log.log_path(tmp_path / "daemon")
    daemon_log.start_log(path)
    yield path
    logger.handlers, logger.propagate = before[:2]
    logger.setLevel(before[2])


def test_a_log_begins_empty_and_is_private(log_file: Path) -> None:
    assert log_file.name == "daemon.log"
    daemon_log.log.warning("something")
    assert log_file.read_text().endswith(": something\n")
    log_file.chmod(0o644)
    daemon_log.start_log(log_file)
    assert log_file.read_text() == ""
    assert log_file.stat().st_mode & 0o777 == 0o600


def test_a_log_does_not_grow_without_end(log_file: Path) -> None:
    for _ in range(3 * daemon_log.MAX_BYTES // 50_000):
        daemon_log.log.warning("x" * 50_000)
        assert log_file.stat().st_size <= daemon_log.MAX_BYTES + 51_000


def test_a_log_hides_the_hub_token(log_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    try:
        raise ValueError("refused hf_0123456789")
    except ValueError:
        daemon_log.log.exception("no access")
    content = log_file.read_text()
    assert "ValueError: refused ***" in content
    assert "hf_0123456789" not in content


def _wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


@linux
def test_a_daemon_logs_models_that_fail(tmp_path: Path) -> None:
    workspace = fill(tmp_path)
    weights = workspace.folder / "model" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    workspace.start()
    try:
        expected = workspace.run("topk", "-m", "model", "a", "--no-daemon")
        assert expected.returncode == 1
        done = workspace.run("topk", "-m", "model", "a")
        assert (done.returncode, done.stderr) == (1, expected.stderr)
        assert "a model was not loaded\nTraceback" in workspace.log()
        log = workspace.socket.with_name("daemon.log")
        assert str(log) in workspace.run("daemon", "status", "-v").stderr

        weights.write_bytes(content)
        assert workspace.run("topk", "-m", "model", "a").returncode == 0
        [model] = workspace.status()
        psutil.Process(model["process"]).kill()
        _wait_for(lambda: not workspace.status())
        assert "the process of model has ended" in workspace.log()
        assert workspace.run("topk", "-m", "model", "a").returncode == 0
    finally:
        workspace.end()
    workspace.start()
    workspace.end()
    assert workspace.log() == ""

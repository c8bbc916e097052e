"""The daemon with another application than hftool: it runs whichever root command it is given."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the daemon needs Linux")

CLIENT = """
import sys
from hftool.server import client
client.run_on_daemon(sys.argv[1:])
print("not run by the daemon:", client._declined)
"""


class SmallDaemon:
    """A daemon that runs the small application."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "run" / "daemon"
        self.log = folder / "run" / "daemon.log"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HFTOOL_")},
            "HFTOOL_DAEMON": str(self.socket),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Have the daemon run a command line."""
        return subprocess.run(
            [sys.executable, "-c", CLIENT, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDaemon]:
    daemon = SmallDaemon(tmp_path_factory.mktemp("small"))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.server.small_application", str(daemon.socket)],
        env=daemon.environment,
    )
    deadline = time.monotonic() + 60
    while not daemon.socket.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    yield daemon
    process.terminate()
    assert process.wait(timeout=20) == 0
    assert not daemon.socket.exists()


def test_it_runs_the_application_it_was_given(daemon: SmallDaemon) -> None:
    done = daemon.run("encode", "hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, "HELLO\n", "")


def test_the_status_is_the_commands(daemon: SmallDaemon) -> None:
    assert daemon.run("encode", "hello", "--status", "7").returncode == 7
    done = daemon.run("encode", "hello", "--status", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: small encode" in done.stderr


def test_a_bug_of_a_command_is_shown_to_its_user(daemon: SmallDaemon) -> None:
    done = daemon.run("decode", "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert "RuntimeError: cannot decode x" in done.stderr


def test_what_goes_wrong_in_the_daemon_is_logged_and_does_not_end_it(daemon: SmallDaemon) -> None:
    assert daemon.log.stat().st_mode & 0o777 == 0o600
    assert daemon.log.read_text() == ""
    done = daemon.run("chat")
    assert done.stdout.startswith("not run by the daemon: it does not answer")
    content = daemon.log.read_text()
    assert "an unexpected error\nTraceback (most recent call last):\n" in content
    assert content.endswith("RuntimeError: a bug in the daemon\n")

    done = daemon.run("encode", "hello", "--bug")
    assert "RuntimeError: a bug in an option" in done.stderr
    content = daemon.log.read_text().removeprefix(content)
    assert "cannot tell which model a command line needs\nTraceback" in content
    assert content.endswith("RuntimeError: a bug in an option\n")

    done = daemon.run("topk")
    assert done.stdout.startswith("not run by the daemon: it does not answer")
    assert "a request is broken\nTraceback" in daemon.log.read_text()
    assert daemon.log.read_text().endswith("KeyError: 'topk'\n")
    assert daemon.run("encode", "hello").stdout == "HELLO\n"

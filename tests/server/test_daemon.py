"""Commands that the daemon runs, compared with the same commands without it."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pexpect
import psutil
import pytest

from hftool.errors import HftoolError, UsageError
from hftool.server import control
from hftool.server.control import DaemonOptions
from tests.e2e.test_processes import ANSWERING, PROMPT
from tests.tiny_models import VOCABULARY, save_classifier, save_model

HFTOOL = [sys.executable, "-m", "hftool"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the daemon needs Linux")


class Workspace:
    """A folder with models, texts and perhaps a daemon, in which commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "run" / "daemon"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("HFTOOL_", "HF_"))},
            "HFTOOL_DAEMON": str(self.socket),
            "HFTOOL_CONFIG": str(folder / "config.toml"),
            "HFTOOL_CACHE": os.environ["HFTOOL_CACHE"],
            "HF_HUB_OFFLINE": "1",
            "XDG_STATE_HOME": str(folder / "state"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "COLUMNS": "80",
        }

    def start(self, *options: str) -> None:
        result = self.run("daemon", "start", *options)
        assert result.returncode == 0, result.stderr

    def run(
        self, *arguments: str, stdin: str = "", environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*HFTOOL, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**self.environment, **(environment or {})},
            timeout=120,
        )

    def script(self, line: str, **environment: str) -> tuple[int, str, str]:
        """Run a line of bash, where $hftool is the program: status, stdout, stderr."""
        program = " ".join(HFTOOL)
        result = subprocess.run(
            ["bash", "-c", line],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**self.environment, "hftool": program, **environment},
            timeout=120,
        )
        return result.returncode, result.stdout, result.stderr

    def popen(self, *arguments: str, **settings: Any) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [*HFTOOL, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **settings,
        )

    def status(self) -> list[dict[str, Any]]:
        models: list[dict[str, Any]] = json.loads(self.run("daemon", "status", "--json").stdout)
        return models

    def log(self) -> str:
        return self.socket.with_name("daemon.log").read_text("utf-8")

    def process(self) -> psutil.Process:
        """The daemon itself: the processes of models and commands are its children."""
        for process in psutil.process_iter(["cmdline", "environ", "ppid"]):
            environment = process.info["environ"] or {}
            is_daemon = "--foreground" in (process.info["cmdline"] or [])
            if is_daemon and environment.get("HFTOOL_DAEMON") == str(self.socket):
                if "--foreground" not in _command(process.parent()):
                    return process
        raise AssertionError("no daemon")

    def end(self) -> None:
        self.run("daemon", "stop")


def _command(process: psutil.Process | None) -> list[str]:
    try:
        return process.cmdline() if process else []
    except psutil.NoSuchProcess:
        return []


def fill(folder: Path) -> Workspace:
    save_model(folder / "model", context=512)
    save_classifier(folder / "classifier")
    (folder / "texts.txt").write_text("good\nbad\n\n")
    (folder / "prompts.jsonl").write_text('{"prompt": "a"}\nbroken\n{"prompt": "b", "seed": 2}\n')
    return Workspace(folder)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    workspace = fill(tmp_path_factory.mktemp("served"))
    workspace.start()
    yield workspace
    workspace.end()


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = fill(tmp_path)
    yield workspace
    workspace.end()


def without_times(text: str) -> str:
    text = re.sub(r'("seconds"|"tokens_per_second"): [\d.e+-]+', r"\1: 0", text)
    return re.sub(r"texts in [\d.]+ s", "texts in 0 s", text)


SCRIPTS = [
    '$hftool topk -m model "good" -k 3',
    '$hftool sample -m model "good" --steps 5 --seed 3 --format jsonl',
    "$hftool score -m model -f texts.txt; $hftool tree -m model good --depth 2",
    '$hftool generate -m model "good" -n 8 --seed 1 --format jsonl --logprobs',
    "$hftool generate -m model --batch <(cat prompts.jsonl) -n 5 --seed 1 --format jsonl",
    "for label in NEGATIVE X; do $hftool sentiment -m classifier good --check $label; done",
    "cat texts.txt | $hftool sentiment -m classifier --color always --format table",
    "$hftool encode -m model 'a b' | $hftool decode -m model",
    "$hftool vocab-dump ./model | tail -2",
    "$hftool vocab-dump smollm2 | head -2; echo ${PIPESTATUS[0]}",
    "umask 027; $hftool topk -m model a -k 1 -o made.txt; stat -c %a made.txt; cat made.txt",
    "$hftool topk -m nothing a",
    "ulimit -f 1; $hftool generate -m model --lines -f <(yes good | head -300) -n 20 -o big.txt",
]
MORE_SCRIPTS = [
    "echo good | $hftool topk -m model --position all --format csv",
    "printf 'hello\\nagain\\n' | $hftool chat -m model -n 6 --seed 1",
    "$hftool encode -m model 'Grüße, 世界'",
    "HFTOOL_MODEL=model $hftool topk a -k 1 --color always --format table",
    "$hftool topk -m model",
    "$hftool topk -m model a -k 0",
    "$hftool generate -m model --help | head -3",
    "printf 'a\\xff' | $hftool topk -m model",
    "$hftool topk -m model a >&-",
    "$hftool topk -m model <&-",
]


@pytest.mark.parametrize(
    "line", [*SCRIPTS, *(pytest.param(line, marks=pytest.mark.slow) for line in MORE_SCRIPTS)]
)
@pytest.mark.usefixtures("smollm2_folder")
def test_the_same_as_without_the_daemon(line: str, served: Workspace) -> None:
    without = served.script(line, HFTOOL_DAEMON="off")
    with_daemon = served.script(line)
    assert [without_times(str(part)) for part in with_daemon] == [
        without_times(str(part)) for part in without
    ]


def test_the_daemon_runs_the_commands(served: Workspace) -> None:
    served.run("topk", "-m", "model", "a")
    before = sum(model["requests"] for model in served.status())
    result = served.run("topk", "-m", "model", "a", "-v")
    assert result.returncode == 0
    assert "not run by the daemon" not in result.stderr and "loaded" not in result.stderr
    status = served.status()
    schema = Path(__file__).parents[2] / "docs" / "schemas" / "loaded-model.json"
    for model in status:
        jsonschema.validate(model, json.loads(schema.read_text("utf-8")))
    assert sum(model["requests"] for model in status) == before + 1


def test_no_daemon_is_used_if_the_option_says_so(served: Workspace) -> None:
    result = served.run("topk", "-m", "model", "a", "-v", "--no-daemon")
    assert "loaded" in result.stderr


def test_several_clients_simultaneously(served: Workspace) -> None:
    prompts = [f"text {i}" for i in range(5)]
    arguments = [("topk", "-m", "model", prompt, "-k", "2") for prompt in prompts]
    expected = [served.run(*a, "--no-daemon").stdout for a in arguments]
    found = [""] * len(prompts)

    def ask(i: int) -> None:
        found[i] = served.run(*arguments[i]).stdout

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected
    assert len(set(found)) > 1


def test_ctrl_c_ends_a_command_and_not_the_daemon(served: Workspace) -> None:
    process = served.popen("generate", "-m", "model", "a", "-n", "400", "--greedy")
    assert process.stdout
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, written = process.communicate(timeout=30)
    assert (process.returncode, written) == (130, b"")
    assert served.run("topk", "-m", "model", "a").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_command_computes_no_more(number: signal.Signals, served: Workspace) -> None:
    endless = {"eos_token_id": VOCABULARY}
    save_model(served.folder / "endless", context=100_000, generation_config=endless)
    arguments = ("chat", "-m", "endless", "-n", "40000")
    process = served.popen(*arguments, stdin=subprocess.PIPE)
    assert process.stdin and process.stdout
    process.stdin.write(b"hello\n")
    process.stdin.flush()
    assert process.stdout.read(1)
    tree = _running(served)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == -number
    gone, alive = psutil.wait_procs(tree, timeout=20)
    assert gone and not alive


def _running(served: Workspace) -> list[psutil.Process]:
    """The processes that run commands: leaders of a session of their own, and their children."""
    daemon = served.process()
    others = [p for p in daemon.children(recursive=True) if os.getsid(p.pid) != daemon.pid]
    orphans = [
        p
        for p in psutil.process_iter(["environ", "cmdline"])
        if (p.info["environ"] or {}).get("HFTOOL_DAEMON") == str(served.socket)
        and os.getsid(p.pid) not in (daemon.pid, os.getsid(0))
    ]
    return list({p.pid: p for p in [*others, *orphans]}.values())


def test_a_chat_at_a_terminal(served: Workspace) -> None:
    endless = {"eos_token_id": VOCABULARY}
    save_model(served.folder / "endless", context=100_000, generation_config=endless)
    process = pexpect.spawn(
        HFTOOL[0],
        [*HFTOOL[1:], "chat", "-m", "endless", "-n", "40000", "--color", "never"],
        env={**served.environment, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
        cwd=str(served.folder),
        encoding="utf-8",
        timeout=30,
    )
    process.expect("/help lists the commands")
    process.expect(PROMPT)
    process.send("hello\r")
    process.expect(ANSWERING)
    process.sendintr()
    process.expect(PROMPT)
    process.send("/tokens\r")
    process.expect("40,000 at most")
    process.expect(PROMPT)
    process.sendeof()
    process.expect(pexpect.EOF)
    process.close()
    assert process.exitstatus == 0


def test_commands_run_although_the_daemon_was_killed(workspace: Workspace) -> None:
    workspace.start()
    expected = workspace.run("topk", "-m", "model", "a")
    workspace.process().kill()
    result = workspace.run("topk", "-m", "model", "a", "-v")
    assert result.stdout == expected.stdout
    assert "not run by the daemon: it does not answer" in result.stderr
    assert workspace.run("topk", "-m", "model", "a").stderr == ""
    workspace.start()  # replaces the socket that was left
    assert workspace.status() == []


def test_commands_run_although_the_daemon_hangs(workspace: Workspace) -> None:
    workspace.start()
    daemon = workspace.process()
    daemon.suspend()
    try:
        result = workspace.run("topk", "-m", "model", "a", "-v")
    finally:
        daemon.resume()
    assert result.returncode == 0 and result.stdout
    assert "not run by the daemon: it does not answer" in result.stderr


def test_the_daemon_declines_other_settings_of_the_libraries(served: Workspace) -> None:
    result = served.run("topk", "-m", "model", "a", "-v", environment={"OMP_NUM_THREADS": "7"})
    assert result.returncode == 0
    assert "not run by the daemon: it is of another version or environment" in result.stderr


def test_a_folder_that_others_can_enter(workspace: Workspace) -> None:
    workspace.start()
    workspace.socket.parent.chmod(0o755)
    result = workspace.run("topk", "-m", "model", "a", "-v")
    assert result.returncode == 0
    assert f"not run by the daemon: others can enter {workspace.socket.parent}" in result.stderr
    workspace.socket.parent.chmod(0o700)
    workspace.end()
    workspace.socket.parent.chmod(0o755)
    result = workspace.run("daemon", "start")
    assert result.returncode == 1
    folder = workspace.socket.parent
    assert result.stderr == f"Error: others can enter {folder}\nHint: chmod 700 {folder}\n"
    workspace.socket.parent.chmod(0o700)


def test_only_the_user_can_reach_the_socket(served: Workspace) -> None:
    assert served.socket.parent.stat().st_mode & 0o777 == 0o700
    assert served.socket.stat().st_uid == os.geteuid()


def test_broken_requests_are_logged_and_do_no_harm(served: Workspace) -> None:
    contents = (b"", b"\0\0\0\2[]", b"\xff\xff\xff\xff", b"\0\0\0\5{", b"GET /", b"\0\0\0\2{}")
    for content in contents:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(served.socket))
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):  # the daemon did not read it all
                while connection.recv(100):
                    pass
    log = served.log()
    assert log.count("a request is broken\nTraceback (most recent call last):") == 4
    assert "a request of 4294967295 bytes is too long" in log
    assert "KeyError: 'ask'" in log
    assert served.run("topk", "-m", "model", "a").returncode == 0


def _connection(workspace: Workspace, content: bytes) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(workspace.socket))
    connection.sendall(content)
    return connection


def test_a_client_that_hangs_keeps_no_other_waiting(served: Workspace) -> None:
    status = json.dumps({"ask": "status"}).encode()
    # Nothing, half a length, half a request, and two whole ones whose answer nobody reads.
    parts = (b"", b"\0\0", b"\0\0\0\x12" + status[:5], *[b"\0\0\0\x11" + status] * 2)
    assert len(status) == 0x11
    hanging = [_connection(served, content) for content in parts * 4]
    slow = _connection(served, b"")
    ran = [served.run("topk", "-m", "model", "a", "-v")]
    for byte in b"\0\0\0\x11" + status:  # one byte after the other, with a command between two
        slow.sendall(bytes([byte]))
        if byte in b"k\0":
            ran.append(served.run("topk", "-m", "model", "a", "-v"))
    assert {result.returncode for result in ran} == {0}
    assert not any("not run by the daemon" in result.stderr for result in ran)
    assert b"model" in slow.recv(10_000)
    for connection in (*hanging, slow):
        connection.close()


@pytest.mark.slow
def test_a_client_that_is_late_is_dropped(workspace: Workspace) -> None:
    workspace.start()
    with _connection(workspace, b"\0\0") as connection:
        connection.settimeout(60)
        assert connection.recv(1) == b""
    assert "a request did not arrive in 10 s" in workspace.log()
    assert workspace.run("topk", "-m", "model", "a").returncode == 0


def test_a_process_that_is_busy_keeps_no_other_waiting(workspace: Workspace) -> None:
    workspace.start()
    workspace.run("topk", "-m", "model", "a")
    [loaded] = workspace.status()
    busy = psutil.Process(loaded["process"])
    busy.suspend()
    # Together more than a socket holds.
    large = {f"LARGE_{i}": "x" * 100_000 for i in range(10)}
    workspace.environment |= large
    waiting = [workspace.popen("topk", "-m", "model", "a") for _ in range(3)]
    for name in large:
        del workspace.environment[name]
    ran = [workspace.run("sentiment", "-m", "classifier", "a", "-v") for _ in range(3)]
    busy.resume()
    assert all(process.communicate(timeout=60)[0] for process in waiting)
    assert {result.returncode for result in ran} == {0}
    assert not any("not run by the daemon" in result.stderr for result in ran)


@pytest.mark.slow
def test_a_conversion_that_fails_is_a_failure(workspace: Workspace) -> None:
    workspace.environment["HFTOOL_CACHE"] = str(workspace.folder / "cache")
    broken = workspace.folder / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "gpt2"}')
    (broken / "vocab.json").write_text('{"a": 0')
    (broken / "merges.txt").write_text("#version: 0.2\n")
    command = ("encode", "-m", "broken", "a")
    expected = workspace.run(*command, "--no-daemon")
    assert expected.returncode == 1
    assert "cannot read" in expected.stderr
    workspace.start()
    # A shell or a service manager may ignore SIGCHLD, and what it starts inherits that.
    ignored = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
    ignored += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    inherited = subprocess.run(
        [sys.executable, "-c", ignored, "-m", "hftool", *command, "--no-daemon"],
        cwd=workspace.folder,
        env=workspace.environment,
        capture_output=True,
        text=True,
    )
    for result in (workspace.run(*command), workspace.run(*command), inherited):
        assert (result.returncode, result.stderr) == (1, expected.stderr)
    assert [path.name for path in (workspace.folder / "cache" / "converted").iterdir()] == ["lock"]


def test_no_process_is_left_as_a_zombie(served: Workspace) -> None:
    for name in ("topk", "decode"):
        served.run(name, "-m", "model", "1")
    served.run("topk", "--help")
    deadline = time.monotonic() + 20
    zombies: list[Any] = [None]
    while zombies and time.monotonic() < deadline:
        children = served.process().children(recursive=True)
        zombies = [p for p in children if p.status() == psutil.STATUS_ZOMBIE]
    assert not zombies


def test_a_changed_model_is_loaded_again(workspace: Workspace) -> None:
    workspace.start()
    first = workspace.run("topk", "-m", "model", "a").stdout
    save_model(workspace.folder / "model", context=512, seed=9)
    second = workspace.run("topk", "-m", "model", "a").stdout
    assert second == workspace.run("topk", "-m", "model", "a", "--no-daemon").stdout
    assert second != first


def test_memory_limit_and_a_second_daemon(workspace: Workspace) -> None:
    workspace.start("--memory-limit", "1kB")
    workspace.run("topk", "-m", "model", "a")
    assert workspace.run("sentiment", "-m", "classifier", "a").returncode == 0
    deadline = time.monotonic() + 20
    while workspace.status() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workspace.status() == []
    result = workspace.run("daemon", "start")
    assert result.returncode == 1
    assert result.stderr == "Error: a daemon is running\nHint: `hftool daemon stop` ends it\n"


def test_idle(workspace: Workspace) -> None:
    workspace.start("--idle", "2s")
    process = workspace.process()
    workspace.run("topk", "-m", "model", "a")
    process.wait(timeout=30)
    assert not workspace.socket.exists()
    result = workspace.run("daemon", "status")
    assert result.returncode == 1
    assert "no daemon is running" in result.stderr


def test_a_daemon_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "daemon"
    monkeypatch.setenv("HFTOOL_DAEMON", str(path))
    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        for ask in (control.stop, lambda: list(control.loaded_models())):
            with pytest.raises(HftoolError, match="the daemon does not answer: timed out") as error:
                ask()
            assert error.value.hint == f"see its log, {path}.log"
    with pytest.raises(HftoolError, match="no daemon is running"):
        control.stop()


def test_a_daemon_that_does_not_start(workspace: Workspace) -> None:
    workspace.environment["HFTOOL_DAEMON"] = "/proc/nowhere/daemon"
    done = workspace.run("daemon", "start")
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr == "Error: cannot listen at /proc/nowhere/daemon: No such file or directory\n"
    )
    (workspace.folder / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if '--foreground' in sys.orig_argv:\n"
        "    os.write(2, b'Traceback (most recent call last):\\nRuntimeError: too old\\n')\n"
        "    os._exit(1)\n"
    )
    workspace.environment["PYTHONPATH"] += f":{workspace.folder}"
    workspace.environment["HFTOOL_DAEMON"] = str(workspace.socket)
    done = workspace.run("daemon", "start")
    assert (done.returncode, done.stderr) == (1, "Error: RuntimeError: too old\n")


def test_in_the_foreground_until_ctrl_c(workspace: Workspace) -> None:
    with workspace.popen("daemon", "start", "--foreground") as process:
        assert process.stderr
        assert b"daemon started" in process.stderr.readline()
        assert workspace.run("topk", "-m", "model", "a").returncode == 0
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
    assert not workspace.socket.exists()


@pytest.mark.parametrize(
    ("options", "seconds", "size"),
    [
        (DaemonOptions(), None, None),
        (DaemonOptions("90", "1000"), 90, 1000),
        (DaemonOptions("10m", "4GB"), 600, 4 * 10**9),
        (DaemonOptions("1.5h", "512MiB"), 5400, 512 * 2**20),
        (DaemonOptions("2d", "2g"), 172800, 2 * 10**9),
    ],
)
def test_times_and_sizes(options: DaemonOptions, seconds: float | None, size: int | None) -> None:
    assert options.idle_seconds == seconds
    assert options.memory_bytes == size


@pytest.mark.parametrize(
    "options", [DaemonOptions("soon"), DaemonOptions("-1"), DaemonOptions("5w")]
)
def test_wrong_times(options: DaemonOptions) -> None:
    with pytest.raises(UsageError, match="--idle"):
        _ = options.idle_seconds


@pytest.mark.parametrize("size", ["much", "4 apples", "-1GB", "5i", "5 iB", "GB"])
def test_wrong_sizes(size: str) -> None:
    with pytest.raises(UsageError, match="--memory-limit"):
        _ = DaemonOptions(None, size).memory_bytes

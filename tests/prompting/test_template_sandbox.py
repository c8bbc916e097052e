"""The process that renders templates: its limits are its own, and it ends with its parent."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from hftool.prompting import template_sandbox
from hftool.prompting.template_sandbox import OutOfBounds, TemplateError, render

MESSAGES = [{"role": "user", "content": "hi"}]
ECHO = "{{ messages[0].content }}"
ENDLESS = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3


@pytest.fixture
def worker() -> Iterator[psutil.Process]:
    """The process that renders, and one of its own for each test."""
    template_sandbox._forget_worker()
    assert render(ECHO, MESSAGES, {}) == "hi"
    assert template_sandbox._worker is not None
    yield psutil.Process(template_sandbox._worker._pid)
    if template_sandbox._worker is not None:
        template_sandbox._worker.end()
    template_sandbox._forget_worker()


def test_only_the_process_that_renders_is_limited(worker: psutil.Process) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    limits = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            limits.append(resource.getrlimit(resource.RLIMIT_AS))

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        with pytest.raises(OutOfBounds, match="1024 MiB"):
            render("{{ 'a' * 10 ** 10 }}", MESSAGES, {})
        done.set()
        watching.result()
    assert set(limits) == {before}
    if sys.platform == "linux":
        assert worker.rlimit(psutil.RLIMIT_AS)[0] != psutil.RLIM_INFINITY


def test_one_process_renders_all_and_is_replaced_when_it_must_end(
    worker: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TemplateError, match="no"):
        render("{{ raise_exception('no') }}", MESSAGES, {})
    assert render(ECHO, MESSAGES, {}) == "hi"
    assert template_sandbox._worker is not None
    assert template_sandbox._worker._pid == worker.pid
    monkeypatch.setattr(template_sandbox, "SECONDS", 0.5)
    with pytest.raises(OutOfBounds, match="it takes longer"):
        render(ENDLESS, MESSAGES, {})
    assert not worker.is_running()
    assert render(ECHO, MESSAGES, {}) == "hi"


def test_a_process_that_was_killed_is_replaced(worker: psutil.Process) -> None:
    worker.kill()
    with pytest.raises(OutOfBounds, match="ended"):
        render(ECHO, MESSAGES, {})
    assert render(ECHO, MESSAGES, {}) == "hi"


def test_threads_take_turns(worker: psutil.Process) -> None:
    with ThreadPoolExecutor(8) as pool:
        texts = [str(i) for i in range(200)]
        chats = ([{"role": "user", "content": text}] for text in texts)
        assert list(pool.map(lambda chat: render(ECHO, chat, {}), chats)) == texts


def test_a_forked_process_has_a_process_of_its_own(worker: psutil.Process) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.write(writing, render(ECHO, [{"content": "child"}], {}).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    assert os.read(reading, 100) == b"child"
    os.close(reading)
    assert render(ECHO, MESSAGES, {}) == "hi" and worker.is_running()


def test_it_holds_nothing_open_and_ignores_ctrl_c(worker: psutil.Process) -> None:
    reading, writing = os.pipe()
    template_sandbox._forget_worker()
    render(ECHO, MESSAGES, {})  # forked while the pipe was open
    os.close(writing)
    assert os.read(reading, 1) == b""  # nobody else can write to it
    os.close(reading)
    assert template_sandbox._worker is not None
    os.kill(template_sandbox._worker._pid, signal.SIGINT)
    assert render(ECHO, MESSAGES, {}) == "hi"


@pytest.mark.parametrize("source", [ECHO, ENDLESS], ids=["idle", "busy"])
def test_it_ends_with_its_parent(source: str, tmp_path: Path) -> None:
    program = (
        "import os, threading\n"
        "from hftool.prompting import template_sandbox as sandbox\n"
        "sandbox.SECONDS = 1\n"
        f"sandbox.render({ECHO!r}, {MESSAGES!r}, {{}})\n"
        "print(sandbox._worker._pid, flush=True)\n"
        f"sandbox._worker.connection.send_bytes(sandbox.json.dumps([{source!r}, 'render', "
        f"{MESSAGES!r}, {{}}]).encode())\n"
        "threading.Event().wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    deadline = time.monotonic() + 30
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)

"""What needs a process or a terminal of its own: pipes, signals, shell loops, chat."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.tiny_models import VOCABULARY, save_model

pytestmark = pytest.mark.usefixtures("smollm2_folder")

HFTOOL = f"{shlex.quote(sys.executable)} -m hftool"


def shell(script: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A bash script in which `hftool` is the command under test."""
    return subprocess.run(
        ["bash", "-c", f'hftool() {{ {HFTOOL} "$@"; }}\n{script}'],
        capture_output=True,
        text=True,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


def test_a_closed_pipe_ends_vocab_dump_by_sigpipe_and_silently() -> None:
    done = shell("hftool vocab-dump smollm2 | head -3; echo ${PIPESTATUS[@]}")
    assert done.stdout.splitlines() == [
        "0:<|endoftext|>",
        "1:<|im_start|>",
        "2:<|im_end|>",
        f"{128 + signal.SIGPIPE} 0",
    ]
    assert done.stderr == ""


def test_a_closed_pipe_ends_a_generation() -> None:
    done = shell("hftool generate 'One, two,' -n 2000 --greedy | head -c 1; echo ${PIPESTATUS[@]}")
    assert done.stdout.splitlines()[-1].endswith(f"{128 + signal.SIGPIPE} 0")
    assert done.stderr == ""


def test_a_shell_loop_keeps_its_stdin(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("The sky is\nOne, two,\n")
    done = shell(
        'while read -r p; do hftool generate "$p" -n 8 --greedy; done < prompts.txt', tmp_path
    )
    assert done.returncode == 0, done.stderr
    alone = [
        shell(f"hftool generate {p} -n 8 --greedy").stdout for p in ("'The sky is'", "'One, two,'")
    ]
    assert done.stdout == "".join(alone)
    assert all(alone)


def test_encode_and_decode_in_a_pipe() -> None:
    assert shell("hftool encode '大家好' | hftool decode").stdout == "大家好\n"


@pytest.mark.parametrize("runtime", ["", "file"])
def test_a_user_without_a_runtime_folder_sees_no_warning(runtime: str, tmp_path: Path) -> None:
    if runtime:  # where the folder would be is something else
        (tmp_path / f"runtime-{os.geteuid()}").touch()
    kept = 'HFTOOL_CACHE="$HFTOOL_CACHE" PATH="$PATH"'
    done = shell(f"env -i HOME={tmp_path} TMPDIR={tmp_path} {kept} {HFTOOL} encode good")
    assert (done.stdout, done.stderr, done.returncode) == ("12018\n", "", 0)


@pytest.mark.parametrize("arguments", [("--count",), (), ("--format", "jsonl")])
def test_who_waits_for_an_answer_gets_it_before_the_next_line(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "hftool", "encode", "--lines", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers = []
        for line in ("good morning", "good", ""):
            process.stdin.write(line + "\n")
            answers.append(process.stdout.readline())
        process.stdin.close()
        assert process.stdout.read() == ""
    if arguments == ("--format", "jsonl"):
        answers = [" ".join(map(str, json.loads(answer)["ids"])) + "\n" for answer in answers]
    counts = ["2\n", "1\n", "0\n"]
    assert answers == (counts if arguments == ("--count",) else ["12018 5738\n", "12018\n", "\n"])


def test_sigint_ends_with_130() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "hftool", "generate", "One, two,", "-n", "4000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in stderr


def test_an_answer_goes_to_a_pipe_token_by_token() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "hftool", "generate", "One, two,", "-n", "500", "--greedy"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout as pipe:
        first = os.read(pipe.fileno(), 10_000)
        assert process.poll() is None, "the first piece came before the end"
        assert 0 < len(first) < 100
        process.terminate()
        process.wait(timeout=60)


def test_stdout_is_utf8_in_any_locale() -> None:
    done = shell("LC_ALL=C PYTHONIOENCODING=ascii hftool decode 41479 18310 131 48392 138")
    assert (done.stdout, done.stderr) == ("大家好\n", "")


def terminal(*arguments: str, **environment: str) -> "pexpect.spawn[str]":
    """A command at a pseudo-terminal of 80 columns."""
    environment = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **environment}
    child: pexpect.spawn[str] = pexpect.spawn(
        sys.executable,
        ["-m", "hftool", *arguments],
        env=environment,
        encoding="utf-8",
        timeout=60,
        dimensions=(40, 80),
    )
    return child


def test_no_text_at_a_terminal_is_a_usage_error_that_says_the_ways() -> None:
    child = terminal("encode")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 2
    assert "Error: no text was given" in child.before
    for way in ("argument", "--file", "stdin"):
        assert way in child.before.replace("\r\n", " ")


def test_no_escape_sequence_of_a_text_reaches_the_terminal() -> None:
    hostile = "\x1b]0;title\x07 \x9b31m \x7f \u202eabc\x1b[2J"
    for arguments in (["encode", hostile], ["encode", hostile, "--json"]):
        child = terminal(*arguments, "--color", "never")
        child.expect(pexpect.EOF)
        assert not set(child.before) & set("\x1b\x07\x9b\x7f\u202e"), arguments
        assert "202e" in child.before


PROMPT = r"\x1b\[\?2004h"  # prompt_toolkit turns bracketed paste on with each prompt
ANSWERING = r"\x1b\[\?2004l[^\x1b]*\r\n[^\x1b]{8}"  # and off again before the answer


@pytest.fixture
def endless_chat(tmp_path: Path) -> Iterator["pexpect.spawn[str]"]:
    """A chat with a model that never ends by itself, at its first prompt."""
    folder = save_model(
        tmp_path / "model", context=100_000, generation_config={"eos_token_id": VOCABULARY}
    )
    child = terminal("chat", "-m", str(folder), "--seed", "1", "-n", "40000", "--color", "never")
    child.expect("/help lists the commands")
    child.expect(PROMPT)
    yield child
    child.close()


def test_a_chat_at_a_terminal(
    endless_chat: "pexpect.spawn[str]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child, saved = endless_chat, tmp_path / "chat.json"

    def says(message: str, *expected: str) -> None:
        child.send(message + "\r")
        for pattern in expected:
            child.expect(pattern)
        child.expect(PROMPT)

    def breaks_off(message: str) -> None:
        child.send(message + "\r")
        child.expect(ANSWERING)
        child.sendintr()
        child.expect(PROMPT)

    says("/help", "/clear +forget", "/tokens +show how much", "/exit")
    child.send("/sys\t")
    child.expect("tem")  # completed
    says(" Be brief.", "the system message is set")
    says("/system", "Be brief.")
    says("/set temperature 0.5", r"temperature +0\.5")
    says("/set top_p 7", "Error: top_p must be a number from 0 to 1")
    says("/foo", "Error: unknown command /foo", "Hint: ")
    says("/undo", "Error: you have not sent a message yet")
    says("/load nowhere.json", "Error: cannot load nowhere.json")
    breaks_off("My name is Ada.")
    breaks_off("/regen")
    for line in ('"""', "several", 'lines"""'):
        child.send(line + "\r")
    child.expect(ANSWERING)
    child.sendintr()
    child.expect(PROMPT)
    says("/tokens", "conversation +[0-9,]+ tokens", "left")
    says(f"/save {saved}", "saved 5 messages")
    messages = json.loads(saved.read_text())["messages"]
    asked = [message["content"] for message in messages if message["role"] == "user"]
    assert asked == ["My name is Ada.", "several\nlines"]
    assert all(message["content"] for message in messages)
    says("/undo", "forgot: several")
    says("/clear", "forgot everything but the system message")
    says("/template", "Be brief.")
    says(f"/load {saved}", "loaded 5 messages")
    child.send("half a line")
    child.sendintr()
    child.expect(PROMPT)
    child.send('"""\rnever sent\r')
    child.sendintr()
    child.expect(PROMPT)
    says("/template", "lines")
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "Traceback" not in child.before
    history = tmp_path / "state" / "hftool" / "chat-history"
    assert history.stat().st_mode & 0o777 == 0o600
    assert "+My name is Ada." in history.read_text()


def test_ctrl_z_suspends_a_chat(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    shell: pexpect.spawn[str] = pexpect.spawn(
        "bash",
        ["--norc", "--noprofile", "-i"],  # only a shell's job can be stopped
        env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "PS1": "shell$ "},
        encoding="utf-8",
        timeout=60,
        dimensions=(40, 80),
    )
    shell.sendline(f"{HFTOOL} chat -m {shlex.quote(str(folder))} -n 5 --save {tmp_path}/c.json")
    shell.expect("/help lists the commands")
    shell.expect(PROMPT)
    shell.send("half a line\x1a")
    shell.expect("Stopped")
    shell.sendline("fg")
    shell.expect(PROMPT)
    shell.send(" more\r")
    shell.expect(PROMPT)
    shell.sendeof()
    shell.expect(r"shell\$ ")
    shell.sendline("exit")
    shell.close()
    messages = json.loads((tmp_path / "c.json").read_text())["messages"]
    assert messages[0]["content"] == "half a line more"


def test_a_chat_at_a_dumb_terminal_without_a_home(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    child = terminal("chat", "-m", str(folder), "-n", "5", TERM="dumb", HOME="/nowhere")
    child.expect("\nyou> ")
    child.send("/tokens\n")
    child.expect("conversation +0 tokens")
    child.expect("\nyou> ")
    child.send("exit\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "\x1b" not in child.before


def test_a_word_while_a_model_loads_that_goes_away(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    shown = terminal("topk", "ab", "-m", str(folder), "-k", "1", "--color", "never").read()
    status, erased, rest = shown.partition("\r\x1b[K")
    assert status == f"loading {folder} …" and erased and rest.startswith("rank")


def test_help_at_a_dumb_terminal() -> None:
    assert "\x1b" not in terminal("encode", "--help", TERM="dumb").read()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -15), (signal.SIGINT, 130)])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_signal_beside_the_command_ends_the_process_silently(
    number: signal.Signals, status: int, moment: str
) -> None:
    program = f"""
import os
from hftool.cli import process
end = lambda **settings: os.kill(os.getpid(), {int(number)})
if {moment!r} == "before":
    process.hide_token = end
    end = print
process.run(end)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")

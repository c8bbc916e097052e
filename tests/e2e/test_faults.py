"""Faults, each with its status, its one line, and what is left behind.

More of them stand with what they concern: what the hub answers in test_hub.py, broken models in
test_load.py and test_hostile_models.py, prepared copies in test_prepare.py, config.toml in
test_settings.py, cut-off output in test_resume.py.
"""

import json
import math
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from hftool import config
from hftool.models.converted_copies import converted_gguf
from hftool.models.references import GgufFile
from hftool.output.run_log import complete_log
from tests import hub_server
from tests.conftest import Finished, run, run_process
from tests.hub_server import Hub, save_llama, serving, tiny_llama, write_gguf
from tests.tiny_models import save_classifier, save_model

NAME = "somebody/tiny"
TOKEN = "hf_abcdefghijklmnop"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "language")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("models") / "judge")


def errors(done: Finished) -> list[str]:
    """The lines of a failure's stderr but for notes."""
    assert done.status == 1, done
    notes = ("downloading ", "setting up ")
    return [line for line in done.stderr.splitlines() if not line.startswith(notes)]


# Where output goes


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has it")
@pytest.mark.parametrize("command", ["encode", "vocab-dump", "list", "--help", "--version"])
def test_a_full_disk_behind_stdout(command: str, model: Path) -> None:
    arguments = {
        "encode": ["encode", "a", "-m", str(model), "--json"],
        "vocab-dump": ["vocab-dump", str(model)],
        "list": ["models", "list"],
    }.get(command, [command])
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hftool", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    name = "" if command.startswith("--") else "cannot write stdout: "
    assert done.returncode == 1
    assert done.stderr == f"Error: {name}No space left on device\n"


def closed(*descriptors: int) -> Callable[[], None]:
    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return close


def test_closed_streams(model: Path, tmp_path: Path) -> None:
    encode = [sys.executable, "-m", "hftool", "encode", "a", "-m", str(model)]
    out = tmp_path / "out"
    done = subprocess.run(encode, stderr=subprocess.PIPE, text=True, preexec_fn=closed(0, 1))
    assert done.returncode == 1
    assert done.stderr == "Error: cannot write stdout: Bad file descriptor\n"
    done = subprocess.run([*encode, "-o", str(out)], preexec_fn=closed(0, 1, 2), text=True)
    assert (done.returncode, out.read_text()) == (0, "64\n")
    for more in (["encode", "-f", "-", "-m", str(model)], ["chat", "-m", str(model)]):
        done = subprocess.run(
            [sys.executable, "-m", "hftool", *more],
            capture_output=True,
            text=True,
            preexec_fn=closed(0),
        )
        assert done.returncode == (2 if more[0] == "encode" else 1) or "no text" in done.stderr
        assert done.stderr.startswith("Error: no text was given\n")


def test_a_limit_on_the_size_of_files(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_process(
        *("vocab-dump", str(model), "-o", str(out)),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert errors(done) == [f"Error: cannot write {out}: File too large"]
    assert os.listdir(tmp_path) == []


def test_a_cache_that_is_full(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file, tiny_llama())
    cache = tmp_path / "cache"
    done = run_process(
        *("encode", "a", "-m", str(file)),
        environment={"HFTOOL_CACHE": str(cache)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    copies = cache / "converted"
    line, hint = errors(done)
    assert line.startswith(f"Error: cannot write the converted copy {copies}/gguf-tokenizer-")
    assert line.endswith(": File too large")
    assert hint == "Hint: name another cache folder with HFTOOL_CACHE"
    assert os.listdir(copies) == ["lock"]


# Root heeds modes only without these.
AS_A_USER = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")


@pytest.mark.skipif(sys.platform != "linux", reason="setpriv")
def test_a_cache_that_is_read_only(tmp_path: Path) -> None:
    prefix = AS_A_USER if os.geteuid() == 0 else ()
    if prefix and subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("root can't give up its rights here")
    file, cache = tmp_path / "tiny.gguf", tmp_path / "cache"
    write_gguf(file, tiny_llama())
    arguments = ("encode", "a", "-m", str(file))
    environment = {"HFTOOL_CACHE": str(cache)}
    cache.mkdir(mode=0o500)
    done = run_process(*arguments, environment=environment, prefix=prefix)
    line, hint = errors(done)
    assert line.startswith(f"Error: cannot write the converted copy {cache}/converted/gguf-")
    assert line.endswith(": Permission denied")
    assert hint == "Hint: name another cache folder with HFTOOL_CACHE"
    assert os.listdir(cache) == []
    cache.chmod(0o700)
    assert run_process(*arguments, environment=environment).status == 0
    for path in (*cache.rglob("*"), cache):
        path.chmod(0o500 if path.is_dir() else 0o400)
    done = run_process(*arguments, environment=environment, prefix=prefix)
    assert (done.status, done.stdout, done.stderr) == (0, "64\n", "")  # a copy that is there serves
    for path in (cache, cache / "converted"):
        path.chmod(0o700)


def test_folders_and_files_of_ours_are_the_users_alone(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HFTOOL_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "tiny.gguf"
    write_gguf(file, tiny_llama())
    copy = converted_gguf(GgufFile(file), "tokenizer", "tiny")
    saved, out = tmp_path / "saved.json", tmp_path / "out.jsonl"
    chat = ("chat", "-m", str(model), "-n", "2", "--save", str(saved))
    assert run(*chat, "-o", str(out), "--format", "jsonl", stdin="hello\n").exit_code == 0
    for path in (tmp_path / "cache", tmp_path / "cache" / "converted", copy):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in (saved, out):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


# Where there is no home, no memory, an odd terminal


def test_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HFTOOL_CONFIG", "HFTOOL_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    config.load.cache_clear()
    file = tmp_path / "tiny.gguf"
    write_gguf(file, tiny_llama())
    known = run("encode", "a", "-m", str(model))
    assert known.stdout == "64\n", (known.stderr, known.exception)
    done = run("encode", "a", "-m", str(file))
    assert done.exit_code == 1
    assert done.stderr == "Error: you have no home folder\nHint: set HFTOOL_CACHE to a path\n"
    done = run("models", "alias", "mine", str(model))
    assert done.exit_code == 1
    assert done.stderr == "Error: you have no home folder\nHint: set HFTOOL_CONFIG to a path\n"
    assert os.listdir(tmp_path) == ["tiny.gguf"]


def grow(folder: Path, rows: int) -> None:
    """Give a model a vocabulary of so many rows, all zeros, in a file that is mostly a hole."""
    config = json.loads((folder / "config.json").read_text())
    config["vocab_size"] = rows
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    header, end = {}, 0
    for name, weight in weights.items():
        large = name in ("model.embed_tokens.weight", "lm_head.weight")
        shape = [rows, weight.shape[1]] if large else list(weight.shape)
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    written = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(written).to_bytes(8, "little") + written)
        file.truncate(8 + len(written) + end)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't keep to this limit")
@pytest.mark.parametrize(
    ("command", "megabytes"),
    [
        *(("topk", 300), ("sentiment", 560)),  # libraries in C abort or hang if they are tried
        *(("topk", 900), ("generate", 900)),
    ],
)
def test_a_limit_on_memory(command: str, megabytes: int, tmp_path: Path) -> None:
    """Too low for torch, and for the model."""
    folder = save_model(tmp_path / "model")
    if megabytes == 900:
        grow(folder, 5_000_000)
    done = run_process(
        *(command, "a", "-m", str(folder)),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20,) * 2),
    )
    *_, error, hint = errors(done)  # a library in C may say a word of its own before
    assert error.startswith("Error: not enough memory")
    assert hint.startswith("Hint: ")
    assert (done.stdout, "Traceback" in done.stderr) == ("", False)


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"TERM": "dumb"}, {"PYTHONUTF8": "0"}],
)
def test_text_is_utf8_whatever_the_environment(environment: dict[str, str], model: Path) -> None:
    text = "大é👩\u200d👧"
    ids = run("encode", text, "-m", str(model)).stdout
    done = run_process("encode", text, "-m", str(model), environment=environment)
    assert (done.status, done.stdout, done.stderr) == (0, ids, "")
    done = run_process("decode", "-m", str(model), stdin=ids, environment=environment)
    assert (done.status, done.stdout, done.stderr) == (0, f"{text}\n", "")


@pytest.mark.parametrize(
    "command",
    [
        ["encode", "some words of a text", "-m", "LM"],
        ["topk", "some words of a text", "-m", "LM"],
        ["topk", "some words of a text", "-m", "LM", "--position", "all"],
        ["sample", "some words", "-m", "LM", "--steps", "1", "--seed", "1"],
        ["vocab-dump", "LM"],
        ["sentiment", "some words", "-m", "JUDGE", "--all-scores"],
        ["sentiment", "some words", "-m", "JUDGE", "--summary"],
        ["models", "list"],
        ["models", "show", "LM"],
        ["topk", "--help"],
    ],
)
def test_a_terminal_of_20_columns(
    command: list[str], model: Path, judge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    places = {"LM": str(model), "JUDGE": str(judge)}
    table = [] if "--help" in command else ["--format", "table"]
    done = run(*[places.get(word, word) for word in command], *table)
    assert done.exit_code == 0, done.stderr
    assert done.stdout


def test_a_tokenizer_of_another_model(model: Path, judge: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "swapped")
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary.update({f"x{i}": len(vocabulary) + 200 + i for i in range(5)})
    vocabulary["a"] = 100_000
    (folder / "tokenizer.json").write_text(json.dumps(content))
    done = run("topk", "a", "-m", str(folder))
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: the text has the token id 100000, but the model's ")
    done = run("topk", "a", "-m", str(judge))
    assert done.stderr.startswith(f"Error: {judge} is not a language model")


# The hub


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    save_llama(folder)
    return folder


@pytest.fixture
def hub(llama: Path) -> Iterator[Hub]:
    with serving() as server:
        server.add(NAME, llama)
        yield server


def asking(hub: Hub, folder: Path) -> dict[str, str]:
    """The environment of a user of the hub; it is given up after 6 seconds of silence."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_ETAG_TIMEOUT": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
    }


@pytest.mark.parametrize("part", ["/tree/", "/resolve/"])
def test_a_hub_that_goes_silent_later(part: str, hub: Hub, tmp_path: Path) -> None:
    hub.silent.append(part)
    done = run_process("models", "pull", NAME, environment=asking(hub, tmp_path), timeout=60)
    assert errors(done) == [
        f"Error: the hub stopped sending while {NAME} was downloaded",
        "Hint: run it again: the part already downloaded is kept",
    ]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_download_can_be_stopped(how: signal.Signals, hub: Hub, tmp_path: Path) -> None:
    hub.silent.append("/resolve/")
    process = subprocess.Popen(
        [sys.executable, "-m", "hftool", "models", "pull", NAME],
        env={**os.environ, **asking(hub, tmp_path), "HF_HUB_DOWNLOAD_TIMEOUT": "60"},
        stderr=subprocess.PIPE,
    )
    while not any("/resolve/" in path for path in hub.paths()):
        time.sleep(0.02)
    process.send_signal(how)
    _, stderr = process.communicate(timeout=10)  # it has 60 seconds of patience by itself
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert b"Traceback" not in stderr


def test_a_download_that_is_cut(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    send = hub_server._Handler._send

    def half(self: hub_server._Handler, status: int, body: bytes, headers: dict[str, str]) -> None:
        if len(body) > 50_000 and self.command == "GET":
            headers = {**headers, "Content-Length": str(len(body))}
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        else:
            send(self, status, body, headers)

    environment = asking(hub, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(hub_server._Handler, "_send", half)
        done = run_process("models", "pull", NAME, environment=environment)
    assert errors(done) == [
        f"Error: the connection broke while {NAME} was downloaded",
        "Hint: run it again: the part already downloaded is kept",
    ]
    assert not list((tmp_path / "hf").rglob("snapshots/*/*.safetensors"))
    assert run_process("models", "pull", NAME, environment=environment).status == 0


def test_the_token_goes_to_the_hub_alone(hub: Hub, tmp_path: Path) -> None:
    with serving() as elsewhere:
        elsewhere.repositories = hub.repositories
        answer = hub_server._Handler._file

        def sent_away(self: hub_server._Handler, data: bytes | None, commit: str) -> None:
            if self.server.hub is hub:  # type: ignore[attr-defined]
                where = elsewhere.url.replace("127.0.0.1", "localhost") + self.path
                tag = hub_server._etag(data or b"")
                headers = {"Location": where, "ETag": f'"{tag}"', "X-Repo-Commit": commit}
                headers["X-Linked-Size"] = str(len(data or b""))
                self._send(302, b"", {**headers, "X-Linked-Etag": f'"{tag}"'})
            else:
                answer(self, data, commit)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hub_server._Handler, "_file", sent_away)
            environment = asking(hub, tmp_path)
            done = run_process("models", "pull", NAME, "--token", TOKEN, environment=environment)
        assert done.status == 0, done.stderr
        assert f"Bearer {TOKEN}" in {token for _, _, token in hub.requests}
        assert elsewhere.requests
        assert {token for _, _, token in elsewhere.requests} == {None}


@pytest.mark.parametrize("header", ["ETag", "X-Repo-Commit"])
def test_a_hub_that_names_places(
    header: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = hub_server._Handler._send

    def leading_out(
        self: hub_server._Handler, status: int, body: bytes, headers: dict[str, str]
    ) -> None:
        if header in headers:
            headers = {**headers, header: "../../../../../outside"}
        send(self, status, body, headers)

    monkeypatch.setattr(hub_server._Handler, "_send", leading_out)
    done = run_process("models", "pull", NAME, environment=asking(hub, tmp_path / "own"))
    assert errors(done)[0].startswith("Error: the hub sent a file name with a path in it: ")
    assert not list(tmp_path.rglob("outside*"))


def test_a_repository_with_names_that_lead_out(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[NAME].files[hub_server.COMMIT]["../../../../outside.safetensors"] = b"x"
    done = run_process("models", "pull", NAME, environment=asking(hub, tmp_path / "own"))
    assert errors(done)[0].startswith(f"Error: cannot download {NAME}: ")
    assert not list(tmp_path.rglob("outside*"))


# The token


def test_the_token_is_in_nothing_that_is_left_or_shown(
    hub: Hub, model: Path, tmp_path: Path
) -> None:
    hub.failures["/api/"] = 403
    secret = {**asking(hub, tmp_path), "HF_TOKEN": TOKEN}
    trace, saved = tmp_path / "trace", tmp_path / "saved.json"
    tiny = ("-m", str(model), "-n", "2", "-v", "--token", TOKEN)
    commands = [
        (("encode", "a", "-m", NAME, "-v", "--token", TOKEN), None),
        (("encode", "a", "-m", f"./{TOKEN}", "--token", TOKEN), None),
        (("encode", "a", "-m", NAME, "--token", f"{TOKEN}\n"), None),
        (("sample", "a", *tiny[:2], "--steps", "2", "--trace", str(trace), *tiny[4:]), None),
        (("chat", *tiny, "--save", str(saved)), "hello\n"),
    ]
    for arguments, stdin in commands:
        for debug in ("", "1") if arguments[0] == "encode" else ("1",):
            environment = {**secret, "HFTOOL_DEBUG": debug}
            done = run_process(*arguments, stdin=stdin, environment=environment)
            assert TOKEN not in done.stdout + done.stderr, arguments
    assert TOKEN not in trace.read_text() + saved.read_text()


def test_a_token_in_the_config_file_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f'[encode]\nhub_token = "{TOKEN}"\n')
    shown = run("encode", "--help-all").stdout
    assert TOKEN not in shown and "default: ***" in shown
    config.load.cache_clear()
    assert run("encode", "a", "-m", f"./{TOKEN}").stderr == "Error: there is no model at ./***\n"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("option", [["--token", TOKEN], [f"--token={TOKEN}"]])
def test_the_token_is_not_in_the_process_title(option: list[str], model: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "hftool", "encode", "--lines", "-m", str(model), *option],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    with process.stdin, process.stdout:
        process.stdin.write(b"a\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"64\n"
        title = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert TOKEN.encode() not in title
        assert b"*" * len(TOKEN) in title
    assert process.wait() == 0


# Runs that are killed


def starts(folder: Path, command: str) -> list[str]:
    return [sys.executable, "-m", "hftool", *command.split(" "), "-m", str(folder)]


AT_IMPORT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["AT"]:
            os.kill(os.getpid(), int(os.environ["NUMBER"]))

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "module", ["hftool.cli.app", "pydantic", "torch", "torch._C", "transformers"]
)
def test_a_signal_while_something_is_imported(
    module: str, how: signal.Signals, model: Path, tmp_path: Path
) -> None:
    """Before the command line is read, while it is (pydantic), and when the command runs."""
    (tmp_path / "sitecustomize.py").write_text(AT_IMPORT)
    places = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-m", "hftool", "generate", "a", "-n", "1", "-m", str(model)],
        env={**os.environ, "PYTHONPATH": places, "AT": module, "NUMBER": str(int(how))},
        capture_output=True,
        text=True,
    )
    ends = (130, -how) if how == signal.SIGINT else (-how,)
    assert done.returncode in ends
    assert (done.stdout, done.stderr) == ("", "")


SIGNALS = ("SIGINT", "SIGTERM", "SIGKILL", "SIGPIPE")


@pytest.mark.parametrize(
    ("command", "how", "times"),
    [
        ("generate", "SIGTERM", 2),  # of sentiment: test_killed_runs.py
        *(
            pytest.param(command, how, 20, marks=pytest.mark.slow)
            for command in ("generate", "sentiment")
            for how in SIGNALS
        ),
    ],
)
def test_a_run_killed_at_random_moments_is_completed(
    command: str, how: str, times: int, model: Path, judge: Path, tmp_path: Path
) -> None:
    count = 600 if times < 20 else 1500
    given, out = tmp_path / "in", tmp_path / "out.jsonl"
    if command == "generate":
        records = [json.dumps({"id": i, "prompt": f"{i}", "seed": i}) for i in range(count)]
        arguments = starts(model, f"generate --batch {given} -n 4 --format jsonl -o {out}")
    else:
        records = [f"text {i}" for i in range(count)]
        arguments = starts(judge, f"sentiment -f {given} --format jsonl -o {out} --batch-size 8")
    given.write_text("\n".join(records) + "\n")
    began = time.monotonic()
    whole = out.with_name("whole.jsonl")
    subprocess.run([str(whole) if word == str(out) else word for word in arguments], check=True)
    lasts = time.monotonic() - began
    draw = random.Random(how)
    partial = out.with_name(f"{out.name}.partial")
    for _ in range(times):
        process = subprocess.Popen([*arguments, "--resume"], stderr=subprocess.PIPE)
        try:
            _, stderr = process.communicate(timeout=draw.uniform(0.05, lasts * 0.9))
        except subprocess.TimeoutExpired:
            process.send_signal(getattr(signal, how))
            _, stderr = process.communicate(timeout=60)
        assert b"Traceback" not in stderr
        if process.returncode == 0:  # it was faster, or heeds no SIGPIPE
            log = complete_log(out.resolve(), out).read_bytes()
            out.with_name(f"{partial.name}.run").write_bytes(log)
            out.replace(partial)
            partial.write_bytes(partial.read_bytes()[: draw.randrange(1, 40_000)])
        else:
            ends = {"SIGINT": (130, -signal.SIGINT)}.get(how, (-getattr(signal, how),))
            assert process.returncode in ends, stderr
    subprocess.run([*arguments, "--resume"], check=True, stderr=subprocess.DEVNULL)

    def told(path: Path) -> list[tuple[object, object]]:
        records = map(json.loads, path.read_text().splitlines())
        return [(record.get("id"), record["text"]) for record in records]

    assert told(out) == told(whole)
    assert len(told(out)) == count
    left = {path.name for path in tmp_path.iterdir()}
    assert left - {".out.jsonl.partial.lock"} == {"in", "out.jsonl", "whole.jsonl"}


def test_sigterm_leaves_no_half_file(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "hftool", "encode", "--lines", "-m", str(model), "-o", str(out)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(b"a\n")
    process.stdin.flush()
    while not any(tmp_path.iterdir()):
        time.sleep(0.02)
    process.terminate()
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (-signal.SIGTERM, b"")
    assert list(tmp_path.iterdir()) == []

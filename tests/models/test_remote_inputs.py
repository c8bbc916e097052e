"""Inputs from data sets on the hub, and from the web: asked for once, and there afterwards."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hftool.errors import HftoolError
from hftool.models.remote_inputs import RemoteInputs, chosen
from hftool.options.model import SourceOptions
from tests.conftest import run, run_process
from tests.hub_server import COMMIT, Repository, serving
from tests.tiny_models import save_classifier

FILES = {
    "README.md": b"# Reviews",
    "data/train-00000-of-00002.jsonl": b'{"text": "good", "n": 1}\n',
    "data/train-00001-of-00002.jsonl": b'{"text": "bad", "n": 2}\n',
    "data/test-00000-of-00001.jsonl": b'{"text": "x", "n": 3}\n',
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_classifier(tmp_path_factory.mktemp("classifier")))


def test_a_data_set_of_the_hub(model: str, tmp_path: Path) -> None:
    environment = {"HF_HOME": str(tmp_path / "hf"), "HFTOOL_CACHE": str(tmp_path / "cache")}
    output = tmp_path / "out.jsonl"
    arguments = ("sentiment", "-m", model, "--format", "jsonl", "-f")
    train = "hf://datasets/owner/reviews/train"
    with serving() as hub:
        hub.repositories["owner/reviews"] = Repository({COMMIT: FILES})
        online = {**environment, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
        done = run_process(*arguments, train, environment=online)
        assert done.status == 0, done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert [(record["text"], record["n"]) for record in found] == [("good", 1), ("bad", 2)]
        assert f"owner/reviews at {COMMIT[:12]}: 2 files" in done.stderr
        assert not any("test-" in path or "README" in path for path in hub.paths())
        for path, cause in (
            ("hf://datasets/owner/nothing/train", "there is no data set owner/nothing"),
            ("hf://datasets/owner/reviews@v9/train", "has no revision 'v9'"),
            ("hf://datasets/owner/reviews/dev", "no split, folder or file 'dev'"),
            ("hf://owner/reviews", "names no data set"),
        ):
            wrong = run_process(*arguments, path, environment=online)
            assert wrong.status == 1 and cause in wrong.stderr, wrong.stderr
            assert "Traceback" not in wrong.stderr
        one = run_process(*arguments, "hf://datasets/owner/reviews/test", environment=online)
        assert json.loads(one.stdout)["text"] == "x"
        log = run_process(*arguments, train, "-o", str(output), environment=online)
        assert log.status == 0
    offline = {**environment, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "1"}
    again = run_process(*arguments, train, environment=offline)
    assert again.stdout == done.stdout, again.stderr
    one = run_process(*arguments, "hf://datasets/owner/reviews/test", environment=offline)
    assert json.loads(one.stdout)["text"] == "x", one.stderr
    missing = run_process(*arguments, "hf://datasets/owner/others/test", environment=offline)
    assert missing.status == 1 and "downloads are turned off" in missing.stderr
    runs = list((tmp_path / "cache" / "runs").glob("*.run"))
    settings = json.loads(runs[0].read_bytes().split(b"\n")[0])
    assert list(settings["the input"].values()) == [COMMIT]


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("train", ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"]),
        ("data", sorted(name for name in FILES if name.startswith("data/"))),
        ("data/test-00000-of-00001.jsonl", ["data/test-00000-of-00001.jsonl"]),
        ("test", ["data/test-00000-of-00001.jsonl"]),
    ],
)
def test_what_a_path_in_a_data_set_means(path: str, names: list[str]) -> None:
    assert chosen(list(FILES), path, "owner/reviews") == names
    with pytest.raises(HftoolError, match="several folders"):
        chosen(["en/train.csv", "de/train.csv"], "train", "owner/reviews")
    assert chosen(["en/train.csv", "de/train.csv"], "de", "owner/reviews") == ["de/train.csv"]


@pytest.fixture
def web() -> Iterator[dict[str, Any]]:
    """Pages by their path, and the paths that were asked for."""
    pages: dict[str, Any] = {"asked": []}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            pages["asked"].append(self.path)
            kind, body, promised = pages.get(self.path, ("text/plain", b"", None))
            known = self.headers.get("If-None-Match") == '"1"' and body
            self.send_response(304 if known else 200 if body else 404)
            self.send_header("Content-Type", kind)
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", str(0 if known else promised or len(body)))
            self.end_headers()
            if not known:
                self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        pages["url"] = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield pages
        server.shutdown()


def test_texts_are_read_as_they_arrive(model: str, tmp_path: Path) -> None:
    seen = threading.Event()
    rows = [f"good number {number}\n".encode() for number in range(20_000)]  # 370 kB

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", str(sum(map(len, rows))))
            self.end_headers()
            self.wfile.write(b"".join(rows[:-1]))
            self.wfile.flush()
            if seen.wait(60):
                self.wfile.write(rows[-1])

    arguments = ["-m", "hftool", "sentiment", "-m", model, "--format", "jsonl", "-f"]
    environment = {**os.environ, "HFTOOL_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/many.txt"
        command = [sys.executable, *arguments, url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            first = process.stdout.readline()  # before the server has sent the last text
            assert json.loads(first)["text"] == "good number 0"
            seen.set()
            assert len(process.stdout.readlines()) == len(rows) - 1
        assert process.returncode == 0
        server.shutdown()
    [kept] = tmp_path.glob("inputs/*/many.txt")
    assert kept.read_bytes() == b"".join(rows)
    offline = subprocess.run([*command, "--offline"], stdout=subprocess.PIPE, env=environment)
    assert (offline.returncode, len(offline.stdout.splitlines())) == (0, len(rows))


def test_files_of_the_web(
    web: dict[str, Any], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HFTOOL_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    web["/a/reviews.csv"] = ("text/csv", b"text,n\ngood,1\nbad,2\n", None)
    web["/page"] = ("text/html; charset=utf-8", b"<html>Sign in</html>", None)
    web["/short.csv"] = ("text/csv", b"text\ngood\n", 500)
    url = f"{web['url']}/a/reviews.csv?token=secret"
    arguments = ("sentiment", "-m", model, "--format", "jsonl", "-f")
    web["/a/reviews.csv?token=secret"] = web["/a/reviews.csv"]
    for _ in range(2):
        result = run(*arguments, url)
        assert [json.loads(line)["n"] for line in result.stdout.splitlines()] == ["1", "2"]
        assert "secret" not in result.stderr
    assert len(web["asked"]) == 2
    for path, cause in (
        ("/page", "is a web page"),
        ("/short.csv", "cannot download"),
        ("/none.csv", "responded with 404"),
    ):
        result = run(*arguments, f"{web['url']}{path}")
        assert result.exit_code == 1 and cause in result.stderr, result.output
    offline = RemoteInputs(SourceOptions(offline=True))
    assert offline.file(Path(url)).read_bytes() == b"text,n\ngood,1\nbad,2\n"
    with pytest.raises(HftoolError, match="downloads are turned off"):
        offline.file(Path(f"{web['url']}/short.csv"))
    assert len(web["asked"]) == 5

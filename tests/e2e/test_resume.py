"""Runs that are cut off and gone on with, by real processes that are really killed."""

import csv
import io
import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hftool.errors import HftoolError
from hftool.options.output import ResumableOptions
from hftool.output.resume import RESUMABLE, remaining, resumable
from hftool.output.view import View, escaped, line
from hftool.output.writer import write
from tests.conftest import run
from tests.tiny_models import save_classifier


@dataclass(frozen=True)
class Labelled:
    text: str
    number: int


VIEW = View(("text", "number"), text=lambda record: line(escaped(record.text), record.number))
TEXTS = ["a", 'quoted "b",\nof\r\nlines', "", "tab\tand \\ é大😀", "line\n", "\n\n", '"', "z" * 300]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out"


def partial_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def write_texts(target: Path, name: str, texts: list[str], *, resume: bool = False) -> None:
    """As a command does it: a record for each text; the text "!" breaks the run."""

    def records(rest: Iterator[str]) -> Iterator[Labelled]:
        for text in rest:
            if text == "!":
                raise HftoolError("broke")
            yield Labelled(text, len(text))

    options = ResumableOptions(format=name, output=target, resume=resume)  # type: ignore[arg-type]
    with resumable(options, VIEW) as partial:
        rest = remaining(partial, texts, lambda text: {"text": text})
        write(records(rest), VIEW, options, partial)


def whole(folder: Path, name: str, texts: list[str] = TEXTS) -> bytes:
    """What an uninterrupted run writes."""
    folder.mkdir(exist_ok=True)
    write_texts(folder / "whole", name, texts)
    return (folder / "whole").read_bytes()


@pytest.mark.parametrize("name", RESUMABLE)
def test_a_run_cut_at_any_byte_is_completed(name: str, tmp_path: Path) -> None:
    expected = whole(tmp_path / "w", name)
    for cut in range(len(expected) + 1):
        target = tmp_path / "out"
        partial_of(target).write_bytes(expected[:cut])
        write_texts(target, name, TEXTS, resume=True)
        assert target.read_bytes() == expected, cut
        target.unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w"]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5),
    st.sampled_from(RESUMABLE),
    st.floats(0, 1),
)
def test_any_texts_cut_anywhere(tmp_path: Path, texts: list[str], name: str, share: float) -> None:
    texts = [text for text in texts if text != "!"]
    expected = whole(tmp_path / "w", name, texts)
    target = tmp_path / "out"
    partial_of(target).write_bytes(expected[: int(share * len(expected))])
    write_texts(target, name, texts, resume=True)
    assert target.read_bytes() == expected


@pytest.mark.parametrize("name", RESUMABLE)
def test_an_error_keeps_what_is_done(name: str, target: Path) -> None:
    with pytest.raises(HftoolError, match="broke"):
        write_texts(target, name, ["a", "b", "!", "c"])
    assert [path.name for path in target.parent.iterdir()] == ["out.partial"]
    write_texts(target, name, ["a", "b", "!!", "c"], resume=True)
    assert target.read_bytes() == whole(target.parent / "w", name, ["a", "b", "!!", "c"])


@pytest.mark.parametrize("name", RESUMABLE)
def test_an_error_before_the_first_record_leaves_nothing(name: str, target: Path) -> None:
    target.write_bytes(b"before")
    with pytest.raises(HftoolError, match="broke"):
        write_texts(target, name, ["!"])
    assert [path.name for path in target.parent.iterdir()] == ["out"]
    assert target.read_bytes() == b"before"


@pytest.mark.parametrize("name", RESUMABLE)
def test_a_complete_run_is_gone_on_with_where_the_input_grew(name: str, target: Path) -> None:
    write_texts(target, name, TEXTS[:3])
    before = target.read_bytes()
    write_texts(target, name, TEXTS[:3], resume=True)
    assert target.read_bytes() == before
    with pytest.raises(HftoolError, match="broke"):
        write_texts(target, name, [*TEXTS[:3], "!"], resume=True)
    assert [path.name for path in target.parent.iterdir()] == ["out"]
    write_texts(target, name, TEXTS, resume=True)
    assert target.read_bytes() == whole(target.parent / "w", name)


def test_a_partial_file_is_not_overwritten(target: Path) -> None:
    partial_of(target).write_bytes(b"hours of work\n")
    with pytest.raises(HftoolError, match="exists: it is from an interrupted run") as caught:
        write_texts(target, "text", TEXTS)
    assert "--resume" in (caught.value.hint or "")
    assert partial_of(target).read_bytes() == b"hours of work\n"
    assert not target.exists()


@pytest.mark.parametrize("name", ["jsonl", "csv", "tsv"])
@pytest.mark.parametrize("other", [["a", "x", "c"], ["a"]])
def test_another_input_is_an_error(name: str, other: list[str], target: Path) -> None:
    with pytest.raises(HftoolError):
        write_texts(target, name, ["a", "b", "!"])
    before = partial_of(target).read_bytes()
    with pytest.raises(HftoolError, match="is from another input"):
        write_texts(target, name, other, resume=True)
    assert partial_of(target).read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("csv", b"text,label\na,b\n"),
        ("tsv", b"text\nb\n"),
        ("csv", b'text,number\n"a"b,1\nc,2\n'),
        ("tsv", b"text\tnumber\na\n"),
        ("jsonl", b"POSITIVE\t0.9\ta\n"),
        ("jsonl", b"[1]\n"),
        ("text", b"\xff\n"),
    ],
)
def test_a_partial_file_of_something_else(name: str, content: bytes, target: Path) -> None:
    partial_of(target).write_bytes(content)
    with pytest.raises(HftoolError, match=r"does not hold|has other columns"):
        write_texts(target, name, ["a", "b"], resume=True)
    assert partial_of(target).read_bytes() == content


def test_permissions_are_those_of_the_file_or_of_a_new_one(target: Path) -> None:
    before = os.umask(0o027)
    try:
        write_texts(target, "jsonl", ["a"])
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
    finally:
        os.umask(before)
    target.chmod(0o604)
    write_texts(target, "jsonl", ["a"])
    assert stat.S_IMODE(target.stat().st_mode) == 0o604


def test_a_second_process_keeps_away(target: Path) -> None:
    options = ResumableOptions(output=target)
    with resumable(options, VIEW), pytest.raises(HftoolError, match="another process is writing"):
        write_texts(target, "text", ["a"], resume=True)
    assert target.read_bytes() == b""
    assert list(target.parent.iterdir()) == [target]


def test_a_fifo_is_written_as_ever(target: Path) -> None:
    os.mkfifo(target)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(target.read_bytes()), daemon=True)
    reader.start()
    write_texts(target, "text", ["a"])
    reader.join(10)
    assert found == [b"a\t1\n"]
    assert run("sentiment", "a", "-o", str(target), "--resume").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--resume"], "--resume needs an output file"),
        (["--resume", "-o", "x", "--json"], "--resume does not work with the format json"),
        (
            ["--resume", "-o", "x", "--format", "table"],
            "--resume does not work with the format table",
        ),
    ],
)
def test_what_cannot_be_resumed_is_wrong_usage(arguments: list[str], error: str) -> None:
    result = run("sentiment", "a", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: {error}")


def sentiment(folder: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "hftool", "sentiment", "-m", str(folder), *arguments],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("bert"))


def killed(process: "subprocess.Popen[bytes]", partial: Path, how: int, growth: int) -> bool:
    """Kill the process once it has written so many bytes more; whether it had not ended before."""
    before = partial.stat().st_size if partial.exists() else 0
    while process.poll() is None:
        if partial.exists() and partial.stat().st_size >= before + growth:
            process.send_signal(how)
            break
        time.sleep(0.001)
    return process.wait() != 0


@pytest.mark.parametrize(
    ("name", "times", "how"),
    [
        ("jsonl", 1, signal.SIGKILL),
        pytest.param("csv", 2, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("tsv", 2, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("csv", 20, signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_killed_runs_lose_and_double_nothing(
    name: str, times: int, how: int, classifier: Path, tmp_path: Path
) -> None:
    texts = [f"{'text, number' * (i % 7)} {i}" for i in range(3000)]
    (tmp_path / "in.txt").write_text("\n".join(texts) + "\n")
    # One text at a time: what is in a batch together changes the last digits of its scores.
    arguments = ("-f", str(tmp_path / "in.txt"), "--batch-size", "1", "--format", name, "-o")
    whole, target = tmp_path / "whole", tmp_path / "out"
    draw = random.Random(4)
    for turn in range(times):
        process = sentiment(classifier, *arguments, str(target), *["--resume"] * (turn > 0))
        assert killed(process, partial_of(target), how, draw.randrange(1, 15_000))
        assert not target.exists()
    assert sentiment(classifier, *arguments, str(target), "--resume").wait() == 0
    assert sentiment(classifier, *arguments, str(whole)).wait() == 0
    assert target.read_bytes() == whole.read_bytes()
    assert texts_of(target.read_text(), name) == texts
    assert not partial_of(target).exists()


def texts_of(content: str, name: str) -> list[str]:
    if name == "jsonl":
        return [json.loads(each)["text"] for each in content.splitlines()]
    delimiter = "," if name == "csv" else "\t"
    return [row["text"] for row in csv.DictReader(io.StringIO(content), delimiter=delimiter)]

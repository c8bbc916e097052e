"""Runs that are interrupted and resumed. Those of real processes that are really killed are in
test_killed_runs.py."""

import os
import stat
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hftool.errors import HftoolError
from hftool.options.output import ResumableOptions
from hftool.output.resume import RESUMABLE, remaining, resumable
from hftool.output.run_log import ENTRY, complete_log, run_settings
from hftool.output.view import View, escaped, line
from hftool.output.writer import write
from tests.conftest import run


@dataclass(frozen=True)
class Labelled:
    text: str
    number: int
    error: str | None = None


VIEW = View(
    ("text", "number"),
    # Line breaks as they are, as the answers of a language model have them.
    text=lambda record: line(escaped(record.text), record.number) + record.text,
)
TEXTS = ["a", 'quoted "b",\nof\r\nlines', "", "tab\tand \\ é大😀", "line\n", "\n\n", '"', "{}"]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out"


def partial_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def log_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial.run")


def write_texts(
    target: Path,
    name: str,
    texts: list[str],
    *,
    resume: bool = False,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    """As a command does it: a record for each text; the text "!" breaks the run, "?" fails.

    Returns: how many of the records that were there before have failed.
    """

    def records(rest: Iterator[str]) -> Iterator[Labelled]:
        for text in rest:
            if text == "!":
                raise HftoolError("broke")
            yield Labelled(text, len(text), "no answer" if text == "?" else None)

    options = ResumableOptions(format=name, output=target, resume=resume)  # type: ignore[arg-type]
    with resumable(options, VIEW, lambda: settings) as partial:
        write(records(remaining(partial, texts)), VIEW, options, partial)
        return partial.failed if partial else 0


def whole(folder: Path, name: str, texts: list[str] = TEXTS) -> tuple[bytes, bytes]:
    """What an uninterrupted run writes, and its log."""
    folder.mkdir(exist_ok=True)
    write_texts(folder / "whole", name, texts)
    log = complete_log((folder / "whole").resolve(), folder / "whole")
    return (folder / "whole").read_bytes(), log.read_bytes()


def interrupt(target: Path, output: bytes, log: bytes) -> None:
    partial_of(target).write_bytes(output)
    log_of(target).write_bytes(log)


@pytest.mark.parametrize("name", RESUMABLE)
def test_a_run_cut_at_any_byte_is_completed(name: str, tmp_path: Path) -> None:
    """With all entries of the records before the cut; with one too few, and with a torn one."""
    expected, log = whole(tmp_path / "w", name)
    header = log.index(b"\n") + 1
    ends = [end for end, _, _ in ENTRY.iter_unpack(log[header:])]
    target = tmp_path / "out"
    for cut in range(len(expected) + 1):
        done = sum(end <= cut for end in ends)
        for entries in [done * ENTRY.size, max(0, done - 1) * ENTRY.size + 5][: 1 + cut % 2]:
            interrupt(target, expected[:cut], log[: header + entries])
            write_texts(target, name, TEXTS, resume=True)
            assert target.read_bytes() == expected, cut
            target.unlink()
    # The system may have lost the end of the output, but not that of the log (a power failure).
    interrupt(target, expected[: ends[3] + 1], log)
    write_texts(target, name, TEXTS, resume=True)
    assert target.read_bytes() == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "w"]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5),
    st.sampled_from(RESUMABLE),
    st.floats(0, 1),
)
def test_any_texts_cut_anywhere(tmp_path: Path, texts: list[str], name: str, share: float) -> None:
    texts = [text for text in texts if text != "!"]
    expected, log = whole(tmp_path / "w", name, texts)
    target = tmp_path / "out"
    interrupt(target, expected[: int(share * len(expected))], log)
    write_texts(target, name, texts, resume=True)
    assert target.read_bytes() == expected


@pytest.mark.parametrize("name", RESUMABLE)
def test_an_error_keeps_what_is_done(name: str, target: Path) -> None:
    with pytest.raises(HftoolError, match="broke"):
        write_texts(target, name, ["a", "?", "!", "c"])
    assert {path.name for path in target.parent.iterdir()} == {"out.partial", "out.partial.run"}
    assert write_texts(target, name, ["a", "?", "!!", "c"], resume=True) == 1
    assert target.read_bytes() == whole(target.parent / "w", name, ["a", "?", "!!", "c"])[0]


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
    with pytest.raises(HftoolError, match="its record 1 is not this input's"):
        write_texts(target, name, ["other", *TEXTS[1:]], resume=True)
    with pytest.raises(HftoolError, match="out is from another run: --seed was not given and is 4"):
        write_texts(target, name, TEXTS, resume=True, settings={"--seed": 4})
    assert [path.name for path in target.parent.iterdir()] == ["out"]
    assert target.read_bytes() == before
    write_texts(target, name, TEXTS, resume=True)
    assert target.read_bytes() == whole(target.parent / "w", name)[0]


@pytest.mark.parametrize("content", [b"", b"b\t1\nb", b"a\t1\nac\t1\nc"])
def test_a_complete_file_that_was_changed_is_not_continued(content: bytes, target: Path) -> None:
    write_texts(target, "text", ["a"])
    target.write_bytes(content)
    with pytest.raises(HftoolError, match="it was changed since") as caught:
        write_texts(target, "text", ["a", "b"], resume=True)
    assert "remove it to start over" in (caught.value.hint or "")
    assert target.read_bytes() == content
    assert list(target.parent.iterdir()) == [target]


def test_only_the_newest_logs_are_kept(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HFTOOL_CACHE", str(target.parent / "cache"))
    monkeypatch.setattr("hftool.output.run_log.MAX_COMPLETE_RUNS", 3)
    for number in range(5):
        write_texts(target, "text", ["a"] * number)
    assert len([*(target.parent / "cache" / "runs").iterdir()]) == 3


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HFTOOL_CACHE", "/dev/null/cache")
    write_texts(target, "text", ["a"])
    assert list(target.parent.iterdir()) == [target]


def test_a_partial_file_is_not_overwritten(target: Path) -> None:
    partial_of(target).write_bytes(b"hours of work\n")
    with pytest.raises(HftoolError, match="exists: it is from an interrupted run") as caught:
        write_texts(target, "text", TEXTS)
    assert "--resume" in (caught.value.hint or "")
    assert partial_of(target).read_bytes() == b"hours of work\n"
    assert not target.exists()


@pytest.mark.parametrize("name", RESUMABLE)
@pytest.mark.parametrize("other", [["a", "x", "c"], ["x", "b", "c"], ["a"], ["", "a", "b"]])
def test_another_input_is_an_error(name: str, other: list[str], target: Path) -> None:
    with pytest.raises(HftoolError):
        write_texts(target, name, ["a", "b", "!"])
    before = partial_of(target).read_bytes()
    number = 2 if other[0] == "a" else 1
    with pytest.raises(HftoolError, match=f"is from another input: its record {number} is not"):
        write_texts(target, name, other, resume=True)
    assert partial_of(target).read_bytes() == before
    write_texts(target, name, ["a", "b", "c"], resume=True)
    assert target.read_bytes() == whole(target.parent / "w", name, ["a", "b", "c"])[0]


def test_other_settings_are_an_error(target: Path) -> None:
    model = {"name": "a", "digest": "1"}
    before = {"the model": model, "--threshold": 0.5, "--greedy": False, "--system": "x" * 99}
    with pytest.raises(HftoolError):
        write_texts(target, "csv", ["a", "!"], settings=before)

    def error(changed: Mapping[str, Any], name: str = "csv") -> str:
        with pytest.raises(HftoolError) as caught:
            write_texts(target, name, ["a", "b"], resume=True, settings={**before, **changed})
        message = caught.value.message
        assert message.startswith(f"{partial_of(target)} is from another run: ")
        return message.partition("run: ")[2]

    assert error({"--threshold": 0.99}) == "--threshold was 0.5 and is 0.99"
    assert error({"--threshold": None}) == "--threshold was 0.5 and is not given"
    assert error({"--greedy": True, "--seed": 7}) == (
        "--greedy was off and is on; --seed was not given and is 7"
    )
    assert error({"the model": {"name": "b", "digest": "2"}}) == "the model was a and is b"
    assert error({"the model": {"name": "a", "digest": "2"}}) == "the model a has changed"
    assert error({"--system": "y"}) == f"--system was {'x' * 60}… and is y"
    assert error({}, "tsv") == "--format was csv and is tsv"
    # A model that was renamed, but has the same files.
    renamed = {**before, "the model": {**model, "name": "c"}}
    write_texts(target, "csv", ["a", "b"], resume=True, settings=renamed)
    assert target.read_bytes() == whole(target.parent / "w", "csv", ["a", "b"])[0]


def test_the_settings_of_a_run(tmp_path: Path) -> None:
    """What shapes the records is in them: options by name, files by their content."""
    template, tools = tmp_path / "t.jinja", tmp_path / "tools.json"
    template.write_text("{{ a }}")
    tools.write_text("[]")

    @dataclass(frozen=True)
    class Options:
        top_k: int = 5
        device: str = "cpu"
        batch_size: int = 8
        chat_template: Path = template
        files: tuple[Path, ...] = (tools,)
        stop: tuple[str, ...] = ("a", "b")
        hub_token: str = field(default="hf_secret", repr=False)

    def made() -> Mapping[str, Any]:
        return run_settings(Options(), model="m", model_digest="d", threshold=None)

    before = made()
    assert {*before} == {
        *("--top-k", "--chat-template", "--files", "--stop", "--threshold", "the model")
    }
    assert (before["--stop"], before["--threshold"]) == (["a", "b"], None)
    assert made() == before
    for path in (template, tools):
        path.write_text("other")
        assert made() != before
        before = made()


@pytest.mark.parametrize(
    "log",
    [
        None,
        b"",
        b"{}",
        b"[]\n",
        b"\xff\n",
        b"[" * 100_000 + b"\n",
        b'{"--format": "text"}\n' + ENTRY.pack(4, b"", False) + ENTRY.pack(3, b"", False),
    ],
)
def test_a_log_that_is_missing_or_broken(log: bytes | None, target: Path) -> None:
    interrupt(target, b"hours of work\n", log or b"")
    if log is None:
        log_of(target).unlink()
    with pytest.raises(HftoolError, match=r"the log of its run, out\.partial\.run, is missing"):
        write_texts(target, "text", ["a", "b"], resume=True)
    assert partial_of(target).read_bytes() == b"hours of work\n"


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
    match = "another process is writing"
    with resumable(options, VIEW, dict), pytest.raises(HftoolError, match=match):
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
    assert found == [b"a\t1\na"]
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

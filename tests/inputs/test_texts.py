"""Texts from arguments, files and stdin."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hftool.errors import HftoolError, UsageError
from hftool.inputs.texts import each_argument, lines, one_text, texts
from hftool.options.inputs import FileOptions, InputOptions
from tests.conftest import run, run_process

GOOD_MORNING = "12018 5738\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "in.txt"


def read(file: Path, data: bytes, *, by_lines: bool = False, replace: bool = False) -> list[str]:
    """Return the texts of a file with this content."""
    file.write_bytes(data)
    errors = "replace" if replace else "strict"
    return list(texts(None, InputOptions(file=file, lines=by_lines, errors=errors)))  # type: ignore[arg-type]


# Where a text comes from


def test_argument_comes_first_and_stdin_is_left_alone() -> None:
    script = 'while read -r line; do "$0" -m hftool encode "$line"; done'
    process = subprocess.run(
        ["sh", "-c", script, sys.executable],
        input="good morning\n\ngood\n",
        capture_output=True,
        text=True,
    )
    assert process.stdout == f"{GOOD_MORNING}\n{GOOD_MORNING.split()[0]}\n"
    assert process.stderr == ""


def test_file(file: Path) -> None:
    file.write_text("good morning\n")
    assert run("encode", "-f", str(file)).stdout == GOOD_MORNING
    assert run("encode", "--file", str(file), stdin="not this").stdout == GOOD_MORNING


def test_stdin_by_dash_or_by_itself() -> None:
    assert run("encode", "-f", "-", stdin="good morning\n").stdout == GOOD_MORNING
    assert run("encode", stdin="good morning\n").stdout == GOOD_MORNING


def test_stdin_of_a_process() -> None:
    finished = run_process("encode", stdin="good morning\r\n")
    assert (finished.status, finished.stdout, finished.stderr) == (0, GOOD_MORNING, "")


def test_text_that_begins_with_a_dash() -> None:
    assert run("decode", stdin=run("encode", "--", "--lines").stdout).stdout == "--lines\n"


@pytest.mark.parametrize("command", ["encode", "decode", "topk", "generate", "sentiment"])
def test_argument_and_file_exclude_each_other(command: str, file: Path) -> None:
    file.write_text("1")
    result = run(command, "1", "-f", str(file))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: a text was given twice: as an argument and with --file\n"


@pytest.mark.parametrize("command", ["encode", "sentiment"])
def test_no_text_on_a_terminal_is_an_error_that_names_three_ways(command: str) -> None:
    master, slave = pty.openpty()
    try:
        process = subprocess.run(
            [sys.executable, "-m", "hftool", command],
            stdin=slave,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.close(master)
        os.close(slave)
    assert (process.returncode, process.stdout) == (2, "")
    error, hint = process.stderr.splitlines()
    assert error == "Error: no text was given"
    assert all(way in hint for way in ("argument", "-f/--file", "stdin"))


def test_dash_reads_from_a_terminal() -> None:
    master, slave = pty.openpty()
    try:
        os.write(master, b"good morning\n\x04")
        process = subprocess.run(
            [sys.executable, "-m", "hftool", "encode", "-f", "-"],
            stdin=slave,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.close(master)
        os.close(slave)
    assert (process.stdout, process.stderr) == (GOOD_MORNING, "")


def test_closed_stdin_is_an_error() -> None:
    finished = run_process("encode", prefix=["sh", "-c", 'exec "$@" <&-', "sh"])
    assert finished.status == 2
    assert finished.stderr.startswith("Error: no text was given\n")


def test_missing_file(tmp_path: Path) -> None:
    result = run("encode", "-f", str(tmp_path / "none.txt"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: cannot read {tmp_path}/none.txt: No such file or directory\n"


def test_folder_is_not_a_file(tmp_path: Path) -> None:
    result = run("encode", "-f", str(tmp_path))
    assert result.exit_code == 1
    assert result.stderr == f"Error: cannot read {tmp_path}: Is a directory\n"


def test_each_argument_is_a_text() -> None:
    assert each_argument(["a", "b\nc"]) == ["a", "b\nc"]


def test_argument_that_is_not_utf8() -> None:
    finished = run_process("encode", "ab\udcff")
    assert (finished.status, finished.stdout) == (2, "")
    assert finished.stderr == "Error: the text given as an argument is not UTF-8\n"
    with pytest.raises(UsageError):
        one_text("\udcff", FileOptions())


# What is in it


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"a", "a"),
        (b"a\n", "a"),
        (b"a\r\n", "a"),
        (b"a\n\n", "a\n"),
        (b"a\r", "a\r"),
        (b"a\r\nb\r\n", "a\r\nb"),
        (b" a \n", " a "),
        (b"\xef\xbb\xbfa\n", "a"),
        (b"a\xef\xbb\xbf\n", "a\ufeff"),
        ("é大🇩🇪".encode(), "é大🇩🇪"),
    ],
)
def test_file_as_a_whole(file: Path, data: bytes, text: str) -> None:
    assert read(file, data) == [text]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a\nb", ["a", "b"]),
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\n\r\nb\r\n", ["a", "", "b"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),
        ("a\u2028b\x0bc\x85d\x1ce\n".encode(), ["a\u2028b\x0bc\x85d\x1ce"]),
        (b"a\rb\n", ["a\rb"]),
    ],
)
def test_file_by_lines(file: Path, data: bytes, expected: list[str]) -> None:
    assert read(file, data, by_lines=True) == expected
    assert list(lines(FileOptions(file=file))) == expected


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_lines_of_an_argument_are_those_of_a_file(file: Path, text: str) -> None:
    expected = read(file, b"\n" + text.encode(), by_lines=True)[1:]
    assert list(texts(text, InputOptions(lines=True))) == expected


def test_argument_as_a_whole_is_left_as_it_is() -> None:
    assert list(texts("a\r\n\ufeffb\n", InputOptions())) == ["a\r\n\ufeffb\n"]


# Bytes that are not UTF-8


@pytest.mark.parametrize(
    ("data", "line", "byte", "value"),
    [
        (b"\xff", 1, 1, "0xff"),
        (b"ok\nbad \xfe here\n", 2, 5, "0xfe"),
        ("é大\n".encode() * 3 + "é".encode() + b"\xc3(\n", 4, 3, "0xc3"),
        (b"cut off: \xe5\xa4", 1, 10, "0xe5"),
        (b"\n\n\n\xed\xa0\x80", 4, 1, "0xed"),
    ],
)
def test_wrong_byte_is_named_by_line_and_byte(
    file: Path, data: bytes, line: int, byte: int, value: str
) -> None:
    for by_lines in (False, True):
        with pytest.raises(HftoolError) as caught:
            read(file, data, by_lines=by_lines)
        expected = f"{file}: line {line}, byte {byte}: {value} is not UTF-8"
        assert caught.value.message == expected
        assert "--errors replace" in (caught.value.hint or "")


def test_lines_before_a_wrong_byte_are_given(file: Path) -> None:
    file.write_bytes(b"one\ntwo\n\xff\nfour\n")
    found = lines(FileOptions(file=file))
    assert [next(found), next(found)] == ["one", "two"]
    with pytest.raises(HftoolError, match="line 3, byte 1"):
        next(found)


@pytest.mark.parametrize("by_lines", [False, True])
def test_wrong_bytes_are_replaced_on_request(file: Path, by_lines: bool) -> None:
    assert read(file, b"a\xffb\xe5\xa4", by_lines=by_lines, replace=True) == ["a\ufffdb\ufffd"]


def test_wrong_byte_of_stdin() -> None:
    finished = run_process("encode", "--lines", stdin=b"good morning\nbad\xff\n")
    assert (finished.status, finished.stdout) == (1, GOOD_MORNING)
    error, hint = finished.stderr.splitlines()
    assert error == "Error: stdin: line 2, byte 4: 0xff is not UTF-8"
    assert hint.startswith("Hint: ")
    replaced = run("encode", "--errors", "replace", stdin=b"bad\xff")
    assert run("decode", stdin=replaced.stdout).stdout == "bad\ufffd\n"


# Files that are not what their names say

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12\n"
PAGE = "\n<!DOCTYPE html>\n<html><body><p>Sign in, please</p></body></html>\n"
RUNS = [
    ("reviews.csv", ("sentiment", "-f")),
    ("reviews.json", ("score", "-f")),
    ("reviews.parquet", ("sentiment", "-f")),
    ("reviews.xlsx", ("sentiment", "-f")),
    ("reviews.txt", ("sentiment", "-f")),
    ("reviews.txt", ("encode", "--lines", "-f")),
    ("prompts.jsonl", ("generate", "--batch")),
]


@pytest.mark.parametrize("command", RUNS)
@pytest.mark.parametrize(
    ("content", "cause"),
    [(POINTER, "it is only a Git LFS pointer to the file"), (PAGE, "it is a web page")],
)
def test_pointers_and_web_pages_are_named(
    content: str, cause: str, command: tuple[str, tuple[str, ...]], tmp_path: Path
) -> None:
    name, arguments = command
    (tmp_path / name).write_text(content)
    done = run(*arguments, str(tmp_path / name))
    assert done.exit_code == 1
    assert done.stdout == ""
    assert f"Error: cannot read {tmp_path / name}: {cause}" in done.stderr
    assert done.stderr.count("\n") == 2  # with a hint


def test_a_web_page_is_a_text(tmp_path: Path) -> None:
    options = InputOptions(file=tmp_path / "page.html", lines=True)
    (tmp_path / "page.html").write_text(PAGE)
    assert one_text(None, FileOptions(tmp_path / "page.html")) == PAGE.removesuffix("\n")
    assert list(texts(None, options)) == PAGE.splitlines()
    labels = run("sentiment", "--input-format", "lines", "-f", str(tmp_path / "page.html"))
    assert labels.stdout.count("\n") == PAGE.count("\n")

"""Output on a terminal: no control characters, and colours only if they are wanted."""

import os
import pty
import re
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hftool.terminal import one_line, visible
from hftool.tokenization.tokenizer import Tokenizer
from tests.conftest import run, run_process

# Unicode's property Bidi_Control (PropList.txt).
BIDI = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
CSI = re.compile(r"\x1b\[[0-9;]*m")
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
# By itself, Hypothesis would rarely generate dangerous characters.
TEXTS = st.text(
    st.one_of(
        st.characters(),
        st.integers(0, 0xA0).map(chr),
        st.sampled_from([chr(code) for code in sorted(BIDI)]),
        st.sampled_from("\u2028\u2029\\xu0123"),
    )
)


def dangerous(text: str) -> set[str]:
    """Return the characters that control a terminal (C0, DEL, C1) or reorder text."""
    return {c for c in text if unicodedata.category(c) == "Cc" or ord(c) in BIDI}


def unescaped(line: str) -> str:
    """Return the text that `one_line` escaped."""

    def character(match: re.Match[str]) -> str:
        short, code = match[1], match[2] or match[3]
        return ESCAPES[short] if short else chr(int(code, 16))

    return re.sub(r"\\(?:([ntr\\])|x([0-9a-f]{2})|u([0-9a-f]{4}))", character, line)


@settings(deadline=None, max_examples=500)
@given(TEXTS)
@example("".join(map(chr, range(0x100))))
@example("".join(map(chr, sorted(BIDI))))
def test_nothing_dangerous_is_left(text: str) -> None:
    assert dangerous(visible(text)) <= {"\n", "\t"}
    assert dangerous(one_line(text)) == set()
    assert len(one_line(text).splitlines()) <= 1


@settings(deadline=None, max_examples=500)
@given(TEXTS)
@example(r"\x1b is not an escape")
@example("\\\n\\n")
def test_one_line_can_be_unescaped(text: str) -> None:
    assert unescaped(one_line(text)) == text


@pytest.mark.parametrize(
    "text", ["", "plain", "é大 👩\u200d👧 שלום", "a\tb\nc", "back\\slash", "~\u00a0"]
)
def test_harmless_text_is_shown_as_it_is(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("\r", r"\r"),
        ("\x00\x07\x08", r"\x00\x07\x08"),
        ("\x7f\x9b31m", r"\u007f\u009b31m"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
    ],
)
def test_dangerous_text_is_shown_by_escapes(text: str, shown: str) -> None:
    assert visible(text) == one_line(text) == shown


def on_terminal(*arguments: str, **environment: str) -> str:
    """Run a command on a real terminal and return what it writes."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "hftool", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm-256color", **environment},
    )
    os.close(slave)
    data = b""
    while chunk := _read(master):
        data += chunk
    os.close(master)
    assert process.wait(60) == 0
    return data.decode().replace("\r\n", "\n")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux raises it once the other side of the terminal is closed
        return b""


EVIL = "a\x1b]0;title\x07\x9b2J\u202e[red]b[/red]"


@pytest.fixture(scope="module")
def evil_ids(tokenizer: Tokenizer) -> str:
    """Ids of tokens whose text is dangerous."""
    return " ".join(map(str, tokenizer.encode(EVIL, special=False).ids))


@pytest.mark.parametrize("name", ["table", "text", "json", "csv", "tsv", "jsonl"])
def test_terminal_gets_no_control_characters(evil_ids: str, name: str) -> None:
    out = on_terminal("decode", evil_ids, "--format", name)
    assert "[red]b[/red]" in out
    assert dangerous(out) <= {"\n", "\t"}


def test_table_of_tokens_shows_escapes() -> None:
    out = on_terminal("encode", EVIL)
    assert dangerous(CSI.sub("", out)) <= {"\n"}
    assert r"\x1b" in out and r"\u202e" in out


def test_error_at_a_terminal_shows_escapes() -> None:
    finished = run_process("encode", "a", "-m", "no\x1b[2Jmodel")
    assert finished.status == 1
    assert dangerous(finished.stderr) == {"\n"}
    assert r"no\x1b[2Jmodel" in finished.stderr


def test_pipe_gets_the_text_unchanged(evil_ids: str) -> None:
    assert run_process("decode", evil_ids).stdout == EVIL + "\n"


@pytest.mark.parametrize(
    ("color", "environment", "colored"),
    [
        ("auto", {}, True),
        ("auto", {"NO_COLOR": "1"}, False),
        ("auto", {"NO_COLOR": ""}, True),
        ("auto", {"TERM": "dumb"}, False),
        ("never", {}, False),
        ("always", {"NO_COLOR": "1"}, True),
    ],
)
def test_colours_on_a_terminal(color: str, environment: dict[str, str], colored: bool) -> None:
    out = on_terminal("encode", "good morning", "--color", color, **environment)
    assert "12018" in out
    assert bool(CSI.search(out)) == colored


@pytest.mark.parametrize(
    ("color", "colored"), [("auto", False), ("never", False), ("always", True)]
)
def test_colours_into_a_pipe(color: str, colored: bool) -> None:
    out = run("encode", "good morning", "--format", "table", "--color", color).stdout
    assert "12018" in out
    assert bool(CSI.search(out)) == colored

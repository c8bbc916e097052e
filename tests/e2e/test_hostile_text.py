"""What strangers write, on a real terminal: no escape sequence of theirs reaches it, from a text, a
file's name, a model's name, its tokens, labels and template, the config file or the hub's cache."""

import contextlib
import io
import json
import os
import pty
import re
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from hftool import config
from hftool.cli.app import app
from tests.conftest import run
from tests.tiny_models import save_classifier, save_model

# Title, clipboard, alternate screen, a colour that hftool never uses, C1, bidi, markup, DEL, SO.
EVIL = (
    "\x1b]0;title\x07\x1b]52;c;Zm9v\x07\x1b[2J\x1b[?1049h\x1b[38;5;199m\x9b31m\x9d0;x\x9c"
    "\u202e\u2066[red]b[/red]\x7f\x0e\u2028"
)
NAME = "n\x1b]0;t\x07\x9b2J\u202em"  # as EVIL, short enough for a file's name
BIDI = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
# Of the 16 colours that hftool uses; and what rich writes to renew a line of progress.
COLOR = re.compile(
    r"\x1b\[(?!38|48)[0-9;]*m|\x1b\[\?25[hl]|\r?(\x1b\[1A)?\x1b\[2K|\r(?=\x1b\[1A)|\r\x1b\[K"
)
SCRIPT = "<script>alert(1)</script>&\"'"


def edit(file: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model and a classifier that say evil things wherever a model can say something,
    and files of texts."""
    folder = tmp_path_factory.mktemp("evil")
    model = save_model(folder / NAME)
    first = json.loads((model / "tokenizer.json").read_text())["added_tokens"][0]
    own = [
        {**first, "id": 263, "content": EVIL, "special": False},
        {**first, "id": 264, "content": SCRIPT + EVIL, "special": True},
    ]
    edit(model / "tokenizer.json", lambda content: content["added_tokens"].extend(own))
    edit(model / "tokenizer_config.json", lambda content: content.update(bos_token=SCRIPT + EVIL))
    edit(model / "config.json", lambda c: c.update(architectures=[f"{EVIL}ForCausalLM"]))
    (model / "chat_template.jinja").write_text(EVIL + "{{ messages[0].content }}{{ bos_token }}")
    judge = save_classifier(folder / f"c{NAME}", [f"A{EVIL}", f"B{EVIL}"])
    assert judge.is_dir()
    (folder / f"{NAME}.txt").write_text(f"hello {EVIL}\nworld\n")
    (folder / f"{NAME}.csv").write_text(f'{EVIL},text\n{EVIL},"hello {EVIL}"\n')
    return folder


def on_terminal(*arguments: str, stdin: str | None = None) -> tuple[int, str]:
    """A command whose stdout and stderr are a terminal: its status and all it wrote there."""
    master, slave = pty.openpty()
    written = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # Linux ends a terminal whose other side is closed so
            while data := os.read(master, 65536):
                written.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("stdout", "stderr"):
            stream = open(os.dup(slave), "w", encoding="utf-8", errors="backslashreplace")
            patch.setattr(f"sys.{name}", stream)
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((stdin or "").encode())))
        patch.setenv("TERM", "xterm-256color")
        config.load.cache_clear()
        try:
            app(list(arguments), prog_name="hftool")
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        finally:
            sys.stdout.close()
            sys.stderr.close()
            os.close(slave)
    reader.join()
    os.close(master)
    return status, written.decode().replace("\r\n", "\n")


def assert_harmless(output: str) -> None:
    left = COLOR.sub("", output)
    found = {c for c in left if unicodedata.category(c) == "Cc" or ord(c) in BIDI} - {"\n", "\t"}
    assert not found, [line for line in left.split("\n") if found & set(line)][:3]


TEXT, TABLE, LM, CLASSIFIER = "TEXT", "TABLE", "LM", "CLASSIFIER"
COMMANDS = [
    ["vocab-dump", LM],
    ["vocab-dump", LM, "--raw"],
    ["vocab-dump", LM, "--stats"],
    ["vocab-dump", LM, "--format", "json"],
    ["encode", "-f", TEXT, "-m", LM],
    ["encode", "-f", TEXT, "-m", LM, "--lines", "--count"],
    ["encode", "-f", TEXT, "-m", LM, "--compare", LM],
    ["encode", "-f", TEXT, "-m", LM, "--roundtrip"],
    ["encode", "-f", TEXT, "-m", LM, "--chat", "--show-template"],
    ["encode", EVIL, "-m", LM, "--max-tokens", "3"],
    ["decode", "263 264 1", "-m", LM],
    ["decode", "263 264", "-m", LM, "--format", "table"],
    ["decode", "9999", "-m", LM],
    ["topk", "-f", TEXT, "-m", LM],
    ["topk", "-f", TEXT, "-m", LM, "--position", "all"],
    ["topk", "-f", TEXT, "-m", LM, "--target", EVIL],
    ["topk", "-f", TEXT, "-m", LM, "--compare", LM],
    ["sample", "-f", TEXT, "-m", LM, "--steps", "2", "--seed", "1"],
    ["sample", EVIL, "-m", LM, "--replay", TEXT],
    ["generate", "-f", TEXT, "-m", LM, "-n", "9", "--seed", "1", "--echo", "--keep-special"],
    ["generate", EVIL, "-m", LM, "-n", "3", "--seed", "1", "--format", "table", "--logprobs"],
    ["generate", EVIL, "-m", LM, "-n", "3", "--seed", "1", "--stop", EVIL, "-v"],
    ["generate", EVIL, "-m", LM, "-n", "3", "--seed", "1", "--chat", "--json"],
    ["generate", "a", "-m", LM, "--chat-template", TEXT],
    ["sentiment", EVIL, "x", "-m", CLASSIFIER],
    ["sentiment", "-f", TEXT, "-m", CLASSIFIER, "--format", "table", "--all-scores"],
    ["sentiment", "-f", TEXT, "-m", CLASSIFIER, "--summary"],
    ["sentiment", "-f", TABLE, "-m", CLASSIFIER],
    ["sentiment", "-f", TABLE, "-m", CLASSIFIER, "--column", EVIL],
    ["sentiment", "a", "-m", CLASSIFIER, "--check", EVIL],
    ["sentiment", "a", "-m", LM, "--labels", f"{EVIL},b"],
    ["models", "show", LM],
    ["models", "show", CLASSIFIER, "--json"],
    ["models", "alias", EVIL, LM],
    ["models", "unalias", EVIL],
    ["encode", "a", "-m", EVIL],
    ["encode", "a", "-m", "somebody/model", "--revision", EVIL],
    ["encode", "a", f"--{EVIL}"],
    ["encode", "a", "--format", EVIL],
    ["encode", "-f", f"/nowhere{EVIL}", "-m", LM],
    ["encode", "a", "-m", LM, "-o", f"/nowhere{EVIL}/x"],
    ["topk", "a", "-m", LM, "-k", EVIL],
    ["topk", "a", "-m", LM, "--device", EVIL],
    ["vocab-dump", LM, "--grep", f"({EVIL}"],
    ["vocab-dump", LM, "--ids", EVIL],
    ["vocab-dump", LM, "--script", EVIL],
    [EVIL],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(c).replace(EVIL, "EVIL")[:60])
def test_no_command_sends_what_a_stranger_wrote(command: list[str], folder: Path) -> None:
    places = {
        TEXT: str(folder / f"{NAME}.txt"),
        TABLE: str(folder / f"{NAME}.csv"),
        LM: str(folder / NAME),
        CLASSIFIER: str(folder / f"c{NAME}"),
    }
    status, output = on_terminal(*[places.get(word, word) for word in command])
    assert output
    assert "Traceback" not in output
    assert (status == 0) == ("Error: " not in output)
    assert_harmless(output)


@pytest.mark.parametrize("command", ["encode", "topk"])
def test_colours_on_a_terminal_are_ours_alone(command: str, folder: Path) -> None:
    status, output = on_terminal(command, EVIL, "-m", str(folder / NAME), "--color", "always")
    assert status == 0
    assert COLOR.search(output)
    assert_harmless(output)


def test_a_chat_sends_nothing_of_a_stranger(folder: Path, tmp_path: Path) -> None:
    model, text = str(folder / NAME), folder / f"{NAME}.txt"
    said = [f"hello {EVIL}", f"/foo {EVIL}", f"/system {EVIL}", "/system", "/template"]
    said += [f"/set x{EVIL} 3", f"/set seed {EVIL}", f"/load {text}", "/undo"]
    said += [f"/save /nowhere{EVIL}/x", f"/save {tmp_path / NAME}", f"/load {tmp_path / NAME}"]
    lines = "\n".join(line.replace("\u2028", "") for line in said)
    _, output = on_terminal("chat", "-m", model, "--seed", "1", "-n", "4", stdin=lines)
    assert "unknown command" in output
    assert "Traceback" not in output
    assert_harmless(output)


@pytest.mark.parametrize(
    "content",
    [
        '[generate]\n"a\\u001b]0;x\\u0007" = 1\n',
        '["\\u001b[2J"]\na = 1\n',
        '[aliases]\n"e\\u001b]0;x\\u0007" = "a\\u001b/b"\n',
        '[generate]\ntemperature = "\\u001b[2J"\n',
        '[generate]\nmodel = "\\u001b[2J\\u202e"\n',
        '"\\u001b" = 1\n',
        "a = \x1b[2J",
    ],
)
def test_a_config_file_is_data(
    content: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / f"{NAME}.toml"
    config.write_text(content)
    monkeypatch.setenv("HFTOOL_CONFIG", str(config))
    generate = ["generate", "a", "-m", str(folder / NAME), "-n", "1"]
    for command in (["models", "list"], generate, ["generate", "--help"]):
        _, output = on_terminal(*command)
        assert "Traceback" not in output
        assert_harmless(output)


def texts_of(picture: str) -> Iterator[str]:
    """All texts and attributes of an HTML or SVG picture."""
    body = picture.removeprefix("<!DOCTYPE html>\n")
    for name in ("meta charset", "meta name"):  # closed, so that it is XML
        body = re.sub(rf"<({name}[^>]*)>", r"<\1/>", body)
    for element in ElementTree.fromstring(body).iter():
        assert element.tag.rpartition("}")[2] != "script"
        yield from (element.text or "", element.tail or "", *element.attrib.values())


@pytest.mark.parametrize("suffix", ["svg", "html"])
@pytest.mark.parametrize(
    "command",
    [["encode"], ["topk", "--layers"], ["topk", "--position", "all"], ["sample", "--steps", "1"]],
)
def test_a_picture_holds_texts_as_texts(
    command: list[str], suffix: str, folder: Path, tmp_path: Path
) -> None:
    name, *options = command
    if name == "sample":
        options += ["--seed", "1"]
    picture = tmp_path / f"p.{suffix}"
    text = SCRIPT + EVIL
    done = run(name, text, "-m", str(folder / NAME), *options, "--save", str(picture))
    assert done.exit_code == 0, done.stderr
    content = picture.read_text()
    assert_harmless(content.replace("\u00ad", ""))
    assert "<script" not in content
    if command != ["topk", "--layers"]:  # it shows candidates alone, not the prompt
        assert SCRIPT in "".join(texts_of(content))

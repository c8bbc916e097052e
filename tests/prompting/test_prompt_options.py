"""The options that make a chat a prompt, in every command that takes one."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run
from tests.tiny_models import save_model

TEMPLATE = (
    "{% for t in tools or [] %}<{{ t.function.name }}>{% endfor %}"
    "{% for d in documents or [] %}<{{ d.text }}>{% endfor %}{{ tone }}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% if enable_thinking is false %}!{% endif %}"
    "{% endif %}"
)
SKY = {"type": "function", "function": {"name": "sky", "parameters": {}}}
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_model(tmp_path_factory.mktemp("model"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    files = {
        "tools": [SKY],
        "documents": {"documents": [{"text": "A doc"}]},
        "chat": CHAT,
        "request": {"messages": CHAT, "tools": [SKY], "chat_template_kwargs": {"tone": "calm"}},
    }
    for name, content in files.items():
        (folder / f"{name}.jsn").write_text(json.dumps(content))
    return folder


def prompt(folder: Path, *arguments: str) -> str:
    done = run("encode", "--show-template", *arguments, "-m", str(folder))
    assert (done.exit_code, done.stderr) == (0, ""), done.stderr
    return done.stdout.removesuffix("\n")


PROMPTS: list[tuple[tuple[str, ...], str]] = [
    (("Hi",), "[user]Hi[assistant]"),
    (("Hi", "--tools", "tools.jsn"), "<sky>[user]Hi[assistant]"),
    (("Hi", "--documents", "documents.jsn"), "<A doc>[user]Hi[assistant]"),
    (("Hi", "--template-arg", "tone=7"), "7[user]Hi[assistant]"),
    (("Hi", "--template-arg", "tone=so = so"), "so = so[user]Hi[assistant]"),
    (("Hi", "--template-arg", 'tone="7"'), "7[user]Hi[assistant]"),
    (("Hi", "--template-arg", "tone=[1,2]"), "[1, 2][user]Hi[assistant]"),
    (("Hi", "--no-think"), "[user]Hi[assistant]!"),
    (("Hi", "--think"), "[user]Hi[assistant]"),
    (("Hi", "--no-generation-prompt"), "[user]Hi"),
    (("Hi", "-s", "S", "--no-think"), "[system]S[user]Hi[assistant]!"),
    (("--messages", "chat.jsn"), "[system]Be brief.[user]Hi[assistant]"),
    (("--messages", "request.jsn"), "<sky>calm[system]Be brief.[user]Hi[assistant]"),
    (
        ("--messages", "request.jsn", "--template-arg", "tone=loud", "--no-think"),
        "<sky>loud[system]Be brief.[user]Hi[assistant]!",
    ),
]


@pytest.mark.parametrize(("arguments", "expected"), PROMPTS)
def test_encode_shows_the_prompt(
    arguments: tuple[str, ...], expected: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model)
    assert prompt(model, *arguments) == expected


@pytest.mark.parametrize("command", ["topk", "sample", "generate"])
def test_every_command_takes_the_same_options(
    command: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model)
    few = {"topk": "-k1", "sample": "--steps=1", "generate": "-n1"}[command]
    for arguments, expected in (PROMPTS[1], PROMPTS[7], PROMPTS[9], PROMPTS[13]):
        shown = ("--echo", "--keep-special") if command == "generate" else ()
        done = run(command, *arguments, few, *shown, "-m", str(model), "--json")
        assert done.exit_code == 0, done.stderr
        records = json.loads(done.stdout)
        if command == "topk":  # positions count from 0
            assert records[0]["position"] == len(expected) - 1
        elif command == "generate":
            assert records[0]["text"].startswith(expected)
            assert records[0]["prompt"] == "Hi"
            assert records[0]["usage"]["prompt_tokens"] == len(expected)


def test_a_batch_record_says_it_for_itself(model: Path, tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"prompt": "Hi"},
        {"prompt": "Hi", "tools": [SKY]},
        {"prompt": "Hi", "think": True},
        {"messages": CHAT, "documents": [{"text": "A doc"}], "tools": None},
        {"messages": CHAT, "chat_template_kwargs": {"tone": "calm"}},
        {"messages": CHAT, "no_generation_prompt": True},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
        {"messages": CHAT, "tools": {}},
        {"messages": CHAT, "think": "yes"},
        {"messages": CHAT, "template": "rag"},
    ]
    file = tmp_path / "batch.jsonl"
    file.write_text("\n".join(map(json.dumps, records)))
    done = run(
        *("generate", "--batch", str(file), "-n1", "--echo", "-m", str(model), "--json"),
        *("--template-arg", "tone=x", "--no-think"),
    )
    texts = [r.get("text", r.get("error")) for r in json.loads(done.stdout)]
    heads = (
        "x[user]Hi[assistant]!",
        "<sky>x[user]Hi[assistant]!",
        "x[user]Hi[assistant]",
        "<A doc>x[system]Be brief.[user]Hi[assistant]!",
        "calm[system]Be brief.[user]Hi[assistant]!",
        "x[system]Be brief.[user]Hi",
        "x[user]Hi[assistant]!",
        '"tools" must be a list',
        '"think" must be true or false',
        f"{model} has no chat template 'rag'",
    )
    assert [t[: len(h)] for t, h in zip(texts, heads, strict=True)] == list(heads)


@pytest.mark.parametrize(
    ("arguments", "status", "cause"),
    [
        (("Hi", "--template-arg", "tone"), 2, "'tone' is not a variable and its value"),
        (("Hi", "--template-arg", "tools=1"), 2, "tools is not a variable of the chat template"),
        (("Hi", "--template", "rag"), 1, "has no chat template 'rag'"),
        (("Hi", "--template", "rag", "--chat-template", "x"), 2, "--chat-template excludes"),
        (("Hi", "--tools", "missing.json"), 1, "No such file"),
        (("Hi", "--tools", "chat_template.jinja"), 1, "is not valid JSON"),
        (("Hi", "--messages", "chat.jsn"), 2, "--messages excludes a text"),
        (("--messages", "chat.jsn", "-s", "S"), 2, "--messages excludes --system"),
        (("--messages", "chat.jsn", "--lines"), 2, "--messages excludes --lines"),
    ],
)
def test_wrong_options_are_one_line(
    arguments: tuple[str, ...],
    status: int,
    cause: str,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(model)
    done = run("encode", *arguments, "-m", str(model))
    assert done.exit_code == status
    assert cause in done.stderr.splitlines()[0]


def test_several_templates_are_chosen_by_name(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model)
    folder = save_model(tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    extra = folder / "additional_chat_templates"
    extra.mkdir()
    for name in ("rag", "tool_use"):
        (extra / f"{name}.jinja").write_text(f"{name.upper()} {TEMPLATE}")
    assert prompt(folder, "Hi", "--template", "rag") == "RAG [user]Hi[assistant]"
    assert prompt(folder, "Hi", "--tools", "tools.jsn") == "TOOL_USE <sky>[user]Hi[assistant]"
    done = run("encode", "Hi", "--chat", "-m", str(folder))
    assert "has several chat templates, and none is the default" in done.stderr
    assert "--template rag, --template tool_use" in done.stderr
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    assert prompt(folder, "Hi") == "[user]Hi[assistant]"
    loaded = run("chat", "-m", str(folder), "--load", "request.jsn", stdin="/template\n")
    assert loaded.stderr.startswith("TOOL_USE <sky>calm[system]Be brief.[user]Hi")
    typed = '/system S\n/template\n/tools tools.jsn\n/template\n/tools ""\n/template\n'
    notes = run("chat", "-m", str(folder), stdin=typed).stderr.splitlines()
    assert notes[1::2] == ["[system]S", "TOOL_USE <sky>[system]S", "[system]S"]


def test_each_model_gets_its_own_template_when_compared(model: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other")
    (other / "chat_template.jinja").write_text("{{ messages[-1].content }}?")
    done = run("encode", "Hi", "--chat", "-m", str(model), "--compare", str(other), "--json")
    assert [r["count"] for r in json.loads(done.stdout)] == [len("[user]Hi[assistant]"), 3]
    assert "its own chat template" in done.stderr
    assert not run("encode", "Hi", "-m", str(model), "--compare", str(other)).stderr


def test_a_chat_uses_and_changes_them(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model)
    commands = (
        "/tools",
        "/template-arg",
        "/think",
        "/tools tools.jsn",
        "/template-arg tone=calm",
        "/think off",
        "Hi",
        "/template",
        f"/save {tmp_path / 'saved.json'}",
        '/tools ""',
        "/think default",
        "/template-arg tone=default",
        "/template-arg tools=3",
        "/think maybe",
    )
    done = run("chat", "-n1", "-m", str(model), "--greedy", stdin="\n".join(commands))
    notes = done.stderr.splitlines()
    assert notes[:6] == [
        *("no tools", "no variables", "thinking is left to the template"),
        *("sky", 'tone="calm"', "thinking is off"),
    ]
    assert notes[6].startswith("<sky>calm[user]Hi[assistant]")
    assert notes[8:11] == ["no tools", "thinking is left to the template", "no variables"]
    assert "is not a variable" in notes[11] and "/think takes on, off or default" in notes[13]
    saved = json.loads((tmp_path / "saved.json").read_text())
    assert saved["tools"] == [SKY] and saved["chat_template_kwargs"] == {"tone": "calm"}
    assert saved["think"] is False
    bare = save_model(tmp_path / "bare")
    done = run("chat", "-n1", "-m", str(bare), stdin="/think off\nHi\n")  # and goes on
    assert done.exit_code == 0 and "no switch" in done.stderr
    file = str(tmp_path / "saved.json")
    for option in ("--load", "--messages"):
        loaded = run("chat", "-m", str(model), option, file, stdin="/template\n")
        assert loaded.stderr.startswith("<sky>calm[user]Hi[assistant]")


def test_what_a_variable_changes_is_marked(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model)
    shown = prompt(model, "Hi", "--diff-arg", "tone=calm", "--diff-arg", "enable_thinking=false")
    assert shown == "{+calm+}[user]Hi[assistant]{+!+}"
    arguments = ("--template-arg", "tone=very loud", "--diff-arg", "tone=very calm")
    assert prompt(model, "Hi", *arguments) == "very [-loud-]{+calm+}[user]Hi[assistant]"
    request = ("--messages", "request.jsn", "--diff-arg", 'tone=""')
    assert prompt(model, *request) == "<sky>[-calm-][system]Be brief.[user]Hi[assistant]"
    done = run("encode", "Hi", "--show-template", *arguments, "-m", str(model), "--json")
    [record] = json.loads(done.stdout)
    assert record["text"] == "very calm[user]Hi[assistant]"
    assert [part["change"] for part in record["parts"]] == ["same", "removed", "added", "same"]
    done = run("encode", "Hi", "--diff-arg", "tone=calm", "-m", str(model))
    assert (done.exit_code, done.stderr) == (2, "Error: --diff-arg needs --show-template\n")

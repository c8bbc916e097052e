"""Chat templates: the roles they accept, what they leave out, how they begin an answer."""

from pathlib import Path

import pytest

from hftool.errors import HftoolError
from hftool.prompting.chat_template import ChatTemplate, Message, chat_template
from hftool.tokenization.tokenizer import Tokenizer
from tests.conftest import run
from tests.tiny_models import save_model, save_tokenizer

ANY = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
OPENING = "{% if add_generation_prompt %}[assistant]{% endif %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
IGNORES_SYSTEM = ANY.replace("%}[", "%}{% if m.role != 'system' %}[", 1).replace(
    "{% endfor", "{% endif %}{% endfor"
)
ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
)
STRIPS = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')[-1].strip() }}{% endfor %}"
)
THINKS = OPENING.replace("]{", "]<think>\n{")

SYSTEM = {"role": "system", "content": "Be brief."}
HELLO = {"role": "user", "content": "Hello"}
AGAIN = {"role": "user", "content": "again 大"}
YES = {"role": "assistant", "content": "Yes?"}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return Tokenizer(folder, "tiny")


@pytest.mark.parametrize(
    ("source", "messages", "rendered", "said"),
    [
        (ANY, [SYSTEM, HELLO], "[system]Be brief.[user]Hello", []),
        (ANY, [HELLO, AGAIN], "[user]Hello[user]again 大", []),
        (NO_SYSTEM + ANY, [HELLO], "[user]Hello", []),
        (NO_SYSTEM + ANY, [SYSTEM, HELLO], "[user]Be brief.\n\nHello", ["system"]),
        (IGNORES_SYSTEM, [SYSTEM, HELLO], "[user]Be brief.\n\nHello", ["system"]),
        (IGNORES_SYSTEM, [SYSTEM], "[user]Be brief.", ["system"]),
        (
            NO_SYSTEM + ANY,
            [HELLO, YES, SYSTEM, AGAIN],
            "[user]Hello[assistant]Yes?[user]Be brief.\n\nagain 大",
            ["system"],
        ),
        (ALTERNATES + ANY, [HELLO, YES, AGAIN], "[user]Hello[assistant]Yes?[user]again 大", []),
        (
            ALTERNATES + ANY,
            [HELLO, AGAIN, YES, YES, AGAIN],
            "[user]Hello\n\nagain 大[assistant]Yes?\n\nYes?[user]again 大",
            ["alternate"],
        ),
        (
            ALTERNATES + NO_SYSTEM + ANY,
            [SYSTEM, HELLO, AGAIN],
            "[user]Be brief.\n\nHello\n\nagain 大",
            ["system", "alternate"],
        ),
    ],
)
def test_messages_fit_the_template(
    ours: Tokenizer,
    notes: pytest.LogCaptureFixture,
    source: str,
    messages: list[Message],
    rendered: str,
    said: list[str],
) -> None:
    template = ChatTemplate(ours, source + OPENING)
    given = [dict(message) for message in messages]
    for _ in range(3):
        assert template.render(given) == rendered + "[assistant]"
        assert template.render(given, answer=False) == rendered
    assert given == messages
    assert len(notes.messages) == len(said)
    assert all(word in note for word, note in zip(said, notes.messages, strict=True))


def test_template_that_fails_anyway_is_an_error(ours: Tokenizer) -> None:
    template = ChatTemplate(ours, "{{ raise_exception('never') }}")
    with pytest.raises(HftoolError, match="the chat template of tiny fails: never"):
        template.render([SYSTEM, HELLO, HELLO])


def test_reasoning_is_the_templates_business(ours: Tokenizer) -> None:
    thought = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes?"}
    stripped = ChatTemplate(ours, STRIPS + OPENING).render([HELLO, thought, AGAIN])
    assert stripped == "[user]Hello[assistant]Yes?[user]again 大[assistant]"
    assert "hm" in ChatTemplate(ours, ANY + OPENING).render([HELLO, thought, AGAIN])


@pytest.mark.parametrize(
    ("source", "opens"),
    [
        (ANY + THINKS, True),
        (ANY + OPENING, False),
        (ANY + THINKS + "</think>", False),
        ("{{", False),
    ],
)
def test_template_that_opens_the_reasoning(ours: Tokenizer, source: str, opens: bool) -> None:
    assert ChatTemplate(ours, source).opens_thinking == opens


def test_plain_frame(tmp_path: Path, notes: pytest.LogCaptureFixture) -> None:
    save_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    ours = Tokenizer(tmp_path, "bare")
    with pytest.raises(HftoolError, match="bare has no chat template") as caught:
        chat_template(ours)
    assert "--chat-template FILE" in (caught.value.hint or "")
    for _ in range(2):
        template = chat_template(ours, plain=True)
    said = {"role": "assistant", "content": " Yes?\n"}
    assert (
        template.render([SYSTEM, HELLO, said, AGAIN])
        == "Be brief.\n\nUser: Hello\nAssistant: Yes?\nUser: again 大\nAssistant:"
    )
    assert template.stop == "\nUser:"
    [note] = notes.messages
    assert note == "bare has no chat template: hftool uses a plain frame, User: and Assistant:"


@pytest.mark.parametrize(
    "command", [("encode", "--show-template"), ("generate", "-n", "1", "--keep-special")]
)
def test_template_out_of_a_file(tmp_path: Path, command: tuple[str, ...]) -> None:
    folder = save_model(tmp_path / "model")
    file = tmp_path / "own.jinja"
    file.write_text(NO_SYSTEM + ANY + OPENING, encoding="utf-8")
    arguments = (command[0], "大", "-m", str(folder), *command[1:], "--chat-template", str(file))
    done = run(*arguments, "--json", "-s", "Be brief.")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("takes no system message") == 1
    if command[0] == "encode":
        assert "[user]Be brief.\\n\\n大[assistant]" in done.stdout
    else:
        rendered = "[user]Be brief.\n\n大[assistant]"
        assert f'"prompt_tokens": {len(rendered.encode())}' in done.stdout


@pytest.mark.parametrize(
    ("content", "cause"), [(None, "No such file"), (b"\xff", "not UTF-8"), (b"{% if", "fails")]
)
def test_broken_template_file_is_one_line(
    tmp_path: Path, content: bytes | None, cause: str
) -> None:
    save_tokenizer(tmp_path)
    file = tmp_path / "own.jinja"
    if content is not None:
        file.write_bytes(content)
    done = run("encode", "a", "-m", str(tmp_path), "--chat-template", str(file))
    assert done.exit_code == 1
    assert cause in done.stderr and len(done.stderr.splitlines()) == 1

"""Chat templates: the roles they accept, what they leave out, how they begin an answer."""

from pathlib import Path

import pytest

from hftool.errors import HftoolError
from hftool.prompting.chat_template import ChatTemplate, chat_template
from hftool.prompting.messages import Chat, Message
from hftool.prompting.reasoning import opens_thought
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
        (
            NO_SYSTEM + ANY,
            [SYSTEM, {"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
            "[user]Be brief.\n\nHello",
            ["system"],
        ),
        (IGNORES_SYSTEM, [SYSTEM], "[user]Be brief.", ["system"]),
        (
            NO_SYSTEM + ANY,
            [HELLO, YES, SYSTEM, AGAIN],
            "[user]Hello[assistant]Yes?[system]Be brief.[user]again 大",
            [],
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
        assert template.render(Chat(given)) == rendered + "[assistant]"
        assert template.render(Chat(given, answer=False)) == rendered
    assert given == messages
    assert len(notes.messages) == len(said)
    assert all(word in note for word, note in zip(said, notes.messages, strict=True))


DROPS = "[{{ messages[-1].role }}]{{ messages[-1].content }}"
TOOLS = [{"type": "function", "function": {"name": "sky", "parameters": {}}}]


def test_a_text_that_is_not_in_the_prompt_is_named(
    ours: Tokenizer, notes: pytest.LogCaptureFixture
) -> None:
    template = ChatTemplate(ours, DROPS)
    chat = Chat([HELLO, YES, AGAIN], TOOLS, [{"title": "T", "text": "X Y"}], {"language": "de"})
    for _ in range(2):
        assert template.render(chat) == "[user]again 大"
    assert notes.messages == [
        "the chat template of tiny has no variable language, so it has no effect",
        "the chat template of tiny leaves out the text of message 1 (user): Hello",
        "the chat template of tiny leaves out the text of message 2 (assistant): Yes?",
        "the chat template of tiny does not use the tools: they are not in the prompt",
        "the chat template of tiny does not use the documents: they are not in the prompt",
    ]


@pytest.mark.parametrize(
    "change",
    ["{{ m.content | trim }}", "{{ m.content | tojson }}", "{{ m.content.split() | join(' ') }}"],
)
def test_a_text_may_be_trimmed_and_escaped(
    change: str, ours: Tokenizer, notes: pytest.LogCaptureFixture
) -> None:
    template = ChatTemplate(ours, ANY.replace("{{ m.content }}", change))
    quoted = {"role": "user", "content": """ "大\n\n\ta'  "\\ """}
    template.render(Chat([quoted, YES, AGAIN]))
    assert not notes.messages


def test_a_text_that_is_said_twice_must_be_there_twice(
    ours: Tokenizer, notes: pytest.LogCaptureFixture
) -> None:
    source = ANY.replace("{% endfor", "{% if loop.first %}{% break %}{% endif %}{% endfor")
    ChatTemplate(ours, source).render(Chat([HELLO, YES, HELLO]))
    assert [note.partition("out ")[2] for note in notes.messages] == [
        "the text of message 1 (user): Hello",
        "the text of message 2 (assistant): Yes?",
        "the text of message 3 (user): Hello",
    ]


def test_a_text_that_only_the_template_has_is_missing(
    ours: Tokenizer, notes: pytest.LogCaptureFixture
) -> None:
    tools = [{"function": {"name": "time", "description": "Tell the time"}}]
    source = (
        "This is it. {{ tools | tojson }}{% for m in messages[1:] %}{{ m.content }}{% endfor %}"
    )
    ChatTemplate(ours, source).render(Chat([{"role": "user", "content": "is"}, AGAIN]))
    ChatTemplate(ours, source).render(Chat([{"role": "user", "content": "time"}, AGAIN], tools))
    ChatTemplate(ours, ANY + "is").render(Chat([{"role": "user", "content": "is"}]))
    assert [note.partition("out ")[2] for note in notes.messages] == [
        "the text of message 1 (user): is",
        "the text of message 1 (user): time",
    ]


@pytest.mark.parametrize(
    ("messages", "rendered"),
    [
        # Neither a tool's results nor fields that differ are joined away.
        ([HELLO, {"role": "tool", "content": "a"}, {"role": "tool", "content": "b"}], None),
        ([{**HELLO, "name": "ann"}, {**AGAIN, "name": "bob"}], None),
        ([{**HELLO, "name": "ann"}, {**AGAIN, "name": "ann"}], "[user]Hello\n\nagain 大"),
    ],
)
def test_what_cannot_be_joined_stays(
    messages: list[Message], rendered: str | None, ours: Tokenizer
) -> None:
    template = ChatTemplate(
        ours,
        "{% for m in messages %}{% if not loop.first and loop.previtem.role == m.role %}"
        "{{ raise_exception('twice') }}{% endif %}{% endfor %}" + ANY,
    )
    if rendered is None:
        with pytest.raises(HftoolError, match="twice"):
            template.render(Chat(messages))
    else:
        assert template.render(Chat(messages)) == rendered


def test_an_answer_in_text_joins_the_call_that_follows(ours: Tokenizer) -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "sky", "arguments": {}}}]}
    template = ChatTemplate(ours, ALTERNATES + ANY + "{{ messages[-1].tool_calls }}")
    prompt = template.render(Chat([HELLO, YES, call]))
    assert prompt == f"[user]Hello[assistant]Yes?{call['tool_calls']}"


def test_a_developer_becomes_the_system_where_the_template_has_none(
    ours: Tokenizer, notes: pytest.LogCaptureFixture
) -> None:
    developer = {"role": "developer", "content": "Be brief."}
    known = ANY.replace("%}[", "%}{% if m.role in ('user', 'system') %}[", 1)
    template = ChatTemplate(ours, known.replace("{% endfor", "{% endif %}{% endfor"))
    assert template.render(Chat([developer, HELLO])) == "[system]Be brief.[user]Hello"
    assert ChatTemplate(ours, ANY).render(Chat([developer, HELLO])).startswith("[developer]")
    assert ["developer" in note for note in notes.messages] == [True]


def test_a_finished_chat_is_closed(ours: Tokenizer) -> None:
    template = ChatTemplate(ours, ANY.replace("{% endfor", "<end>{% endfor") + OPENING)
    assert template.render(Chat([HELLO, YES])) == "[user]Hello<end>[assistant]Yes?"
    closed = Chat([HELLO, YES], answer=False)
    assert template.render(closed) == "[user]Hello<end>[assistant]Yes?<end>"


@pytest.mark.parametrize(
    ("given", "end"),
    [
        ("so</think>", "[assistant]<think>\nso</think>"),
        ("<think>so</think>OK ", "[assistant]<think>so</think>OK "),
        ("", "[assistant]<think>\n"),
    ],
)
def test_beginning_that_the_template_cuts_follows_the_prompt(
    given: str, end: str, ours: Tokenizer
) -> None:
    template = ChatTemplate(ours, STRIPS + THINKS)
    chat = Chat([HELLO, {"role": "assistant", "content": given}])
    assert template.render(chat) == "[user]Hello" + end


@pytest.mark.parametrize(
    ("source", "switched"),
    [
        ("{% if enable_thinking is defined and not enable_thinking %}OFF{% endif %}", ("", "OFF")),
        ("{% if thinking %}ON{% endif %}", ("ON", "")),
        ("{% if skip_thinking %}OFF{% endif %}", ("", "OFF")),
        ("{{ reasoning_effort or 'medium' }}", ("high", "low")),
        ("{% if reasoning_effort == 'none' %}OFF{% endif %}", ("", "OFF")),
        ("{% if thinking_budget == 0 %}OFF{% endif %}", ("", "OFF")),
        ("{% if thinking_mode == 'disabled' %}OFF{% endif %}", ("", "OFF")),
        ("{% if thinking_option == 'on' %}ON{% endif %}", ("ON", "")),
        ("{% if thinking %}{% endif %}{% if use_reasoning %}ON{% endif %}", ("ON", "")),
    ],
)
def test_think_sets_the_variable_that_the_template_has(
    source: str, switched: tuple[str, str], ours: Tokenizer
) -> None:
    template = ChatTemplate(ours, source)
    assert (*(template.render(Chat([HELLO], think=on)) for on in (True, False)),) == switched


@pytest.mark.parametrize("source", [ANY, "{{ messages[0].thinking }}{{ keep_past_thinking }}"])
def test_think_is_refused_where_the_template_has_no_switch(source: str, ours: Tokenizer) -> None:
    with pytest.raises(HftoolError, match="no switch that turns thinking on or off"):
        ChatTemplate(ours, source).render(Chat([HELLO], think=False))


def test_a_mistyped_variable_has_a_guess(ours: Tokenizer, notes: pytest.LogCaptureFixture) -> None:
    chat = Chat([HELLO], variables={"enable_thinkin": False})
    ChatTemplate(ours, ANY + "{{ enable_thinking }}").render(chat)
    assert [note.partition("(")[2] for note in notes.messages] == ["did you mean enable_thinking?)"]


@pytest.mark.parametrize("source", ["\n\n{% for %}", "\n\n{{ raise_exception('no') }}"])
def test_a_failure_names_the_line(source: str, ours: Tokenizer) -> None:
    with pytest.raises(HftoolError, match=r"\(line 3\)$"):
        ChatTemplate(ours, source).render(Chat([HELLO]))


def test_template_that_fails_anyway_is_an_error(ours: Tokenizer) -> None:
    template = ChatTemplate(ours, "{{ raise_exception('never') }}")
    with pytest.raises(HftoolError, match="the chat template of tiny fails: never"):
        template.render(Chat([SYSTEM, HELLO, HELLO]))


def test_reasoning_is_the_templates_business(ours: Tokenizer) -> None:
    thought = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes?"}
    stripped = ChatTemplate(ours, STRIPS + OPENING).render(Chat([HELLO, thought, AGAIN]))
    assert stripped == "[user]Hello[assistant]Yes?[user]again 大[assistant]"
    assert "hm" in ChatTemplate(ours, ANY + OPENING).render(Chat([HELLO, thought, AGAIN]))


@pytest.mark.parametrize(
    ("source", "opens"),
    [
        (ANY + THINKS, True),
        (ANY + OPENING, False),
        (ANY + THINKS + "</think>", False),
    ],
)
def test_template_that_opens_the_reasoning(ours: Tokenizer, source: str, opens: bool) -> None:
    assert opens_thought(ours, ChatTemplate(ours, source).ids(Chat([HELLO]))) == opens


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
        template.render(Chat([SYSTEM, HELLO, said, AGAIN]))
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

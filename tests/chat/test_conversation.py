"""A chat's messages, its cache between turns, and what happens when the context is full."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hftool.chat.conversation import Conversation
from hftool.chat.turns import Turn
from hftool.errors import HftoolError
from hftool.generation.records import Piece
from hftool.models.language_model import LanguageModel
from hftool.options.generation import AnswerOptions, Overflow
from hftool.output.formats import text_lines
from hftool.output.tables.base import table_console
from hftool.output.views.generation import TURNS
from hftool.prompting.chat_template import PLAIN_FRAME, ChatTemplate, chat_template
from hftool.prompting.messages import Message
from hftool.terminal import visible
from tests.conftest import run
from tests.tiny_models import (
    ARCHITECTURES,
    CHAT_TEMPLATE,
    VOCABULARY,
    greedy_ids,
    load_model,
    save_model,
    transformers_model,
    transformers_tokenizer,
)

CONTEXT = 64
HELLO = {"role": "user", "content": "Hello"}
ENDLESS = {"eos_token_id": VOCABULARY}  # an id that never comes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    return save_model(path, context=CONTEXT, generation_config=ENDLESS)


@pytest.fixture(scope="module")
def tiny(folder: Path) -> LanguageModel:
    return load_model(folder)


def talk(
    model: LanguageModel, tokens: int, *, system: str | None = None, overflow: Overflow = "drop"
) -> Conversation:
    """Return a greedy conversation whose answers have at most `tokens` tokens."""
    return Conversation(
        model,
        chat_template(model.tokenizer, plain=True),
        AnswerOptions(greedy=True, max_new_tokens=tokens),
        system=system,
        overflow=overflow,
    )


def say(conversation: Conversation, text: str) -> Turn:
    """Return the answer to a message, after comparing it with its pieces."""
    user, *pieces, turn = conversation.answer(text)
    assert user == Turn("user", text)
    assert isinstance(turn, Turn)
    assert text_of(pieces) == turn.content
    assert turn.role == "assistant"
    return turn


def text_of(pieces: Iterable[Piece | Turn]) -> str:
    """Return the text of events, all of which must be pieces."""
    texts = []
    for piece in pieces:
        assert isinstance(piece, Piece)
        texts.append(piece.text)
    return "".join(texts)


@contextmanager
def computed_tokens(language_model: LanguageModel) -> Iterator[list[int]]:
    """Count the tokens that each pass of the model computes."""
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
@pytest.mark.parametrize("context", [1024, 150])  # the smaller one drops turns on the way
def test_kept_cache_changes_nothing(architecture: str, context: int, tmp_path: Path) -> None:
    folder = save_model(tmp_path, architecture, context=context)
    reference, tokenizer = transformers_model(folder), transformers_tokenizer(folder)
    conversation = talk(load_model(folder), 12)
    answered = 0
    for action in "say say regen say undo say stop say regen stop say undo say say".split():
        if action == "undo":
            conversation.undo()
            continue
        answered += 1
        if action == "stop":
            answer = conversation.answer("Count!")
            heard = [next(answer), next(answer)]
            with pytest.raises(KeyboardInterrupt):
                answer.throw(KeyboardInterrupt)
                next(answer)
            assert conversation.messages[-1]["content"] == text_of(heard[1:])
            continue
        again = action == "regen"
        *_, turn = conversation.regenerate() if again else conversation.answer("Hello " * 3)
        assert isinstance(turn, Turn)
        # Transformers computes all that the model saw, without a cache.
        seen = conversation.messages[:-1]
        ids = tokenizer.apply_chat_template(seen, add_generation_prompt=True, return_dict=False)
        expected = greedy_ids(reference, ids, 12)
        stable = tokenizer.decode(expected, skip_special_tokens=True).rstrip("\ufffd")
        assert turn.content.startswith(stable)
        assert (turn.prompt_tokens, turn.completion_tokens) == (len(ids), len(expected))
    assert answered == 12
    assert (len(conversation.turns) < 2 * (answered - 4)) == (context == 150)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_template_that_shortens_earlier_answers(architecture: str, tmp_path: Path) -> None:
    """Qwen3's does so: it leaves out their reasoning."""
    folder = save_model(tmp_path, architecture, context=512)
    template = CHAT_TEMPLATE.replace(
        "{{ message['content'] }}", "{{ message['content'][-30 if loop.last else -2:] }}"
    )
    (folder / "chat_template.jinja").write_text(template)
    reference, tokenizer = transformers_model(folder), transformers_tokenizer(folder)
    conversation = talk(load_model(folder), 8)
    for text in ("Hello", "What is it?", "Go on", "大"):
        turn = say(conversation, text)
        seen = conversation.messages[:-1]
        ids = tokenizer.apply_chat_template(seen, add_generation_prompt=True, return_dict=False)
        expected = tokenizer.decode(greedy_ids(reference, ids, 8), skip_special_tokens=True)
        assert turn.content.startswith(expected.rstrip("\ufffd"))
        assert turn.prompt_tokens == len(ids)
        assert conversation.messages[-1]["content"] == turn.content


def test_a_turn_computes_only_what_is_new(smollm2: LanguageModel) -> None:
    conversation = talk(smollm2, 12)
    for number in range(5):
        before = conversation.budget().conversation if number else 0
        with computed_tokens(smollm2) as counts:
            turn = say(conversation, "Tell me more.")
        assert turn.prompt_tokens is not None
        if number:  # the new message, its frame, and what closes the last answer
            assert counts[0] <= turn.prompt_tokens - before + 4
        assert set(counts[1:]) == {1}


def test_clear_forgets_all_but_the_system_message(tiny: LanguageModel) -> None:
    conversation = talk(tiny, 6, system="S")
    first = say(conversation, "one")
    second = say(conversation, "one")
    assert second.prompt_tokens != first.prompt_tokens
    conversation.clear()
    assert conversation.messages == [{"role": "system", "content": "S"}]
    assert say(conversation, "one") == first


def size(turns: list[Message]) -> int:
    """Return the number of tokens of messages in the tiny template, with an opened answer."""
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
        {"role": "assistant", "content": text_of(heard)},
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
    expected = "".join(r["content"] + "\n" for r in records[1::2])
    for name in ("text", "table"):
        shown = run(*arguments, "--format", name, stdin="one\n\ntwo\n").stdout
        assert shown == (expected if name == "text" else visible(expected))


def test_text_of_turns() -> None:
    """The text has the answers, with pieces or without, and a line for an answer that failed after
    some pieces and therefore has no turn."""
    user, answer = Turn("user", "?"), Turn("assistant", "b", reasoning="a")
    thought = Piece("<think>\na\n</think>\n\n", is_reasoning=True)
    streamed = [user, thought, Piece("b"), answer]
    failed = [user, Piece("half"), Piece("\n")]
    view = TURNS
    assert view.table is not None
    for whole in ([user, answer], streamed):
        events = [*whole, *failed, *whole]
        assert "".join(text_lines(events, view)) == "b\nhalf\nb\n"
        shown = "".join(view.table(events, table_console("never", terminal=False)))
        assert shown == f"{thought.text}b\nhalf\n{thought.text}b\n"


# Undo, regenerate, interrupt


def test_undo_and_regenerate(tiny: LanguageModel) -> None:
    conversation = talk(tiny, 4, system="S")
    with pytest.raises(HftoolError, match="have not sent a message"):
        conversation.undo()
    with pytest.raises(HftoolError, match="have not sent a message"):
        list(conversation.regenerate())
    say(conversation, "one")
    after_one = conversation.messages
    say(conversation, "two")
    after_two = conversation.messages
    *_, again = conversation.regenerate()
    assert isinstance(again, Turn) and again.content == after_two[-1]["content"]
    assert conversation.messages == after_two
    assert conversation.undo() == {"role": "user", "content": "two"}
    assert conversation.messages == after_one


@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_ctrl_c_gives_the_turn_and_goes_through(pieces: int, tiny: LanguageModel) -> None:
    conversation = talk(tiny, 20)
    answer = conversation.answer("Hello")
    next(answer)
    text = text_of(next(answer) for _ in range(pieces))
    turn = answer.throw(KeyboardInterrupt)
    assert turn == Turn("assistant", text, "interrupted", size([HELLO]), None, None)
    assert conversation.messages == [HELLO, {"role": "assistant", "content": text}]
    with pytest.raises(KeyboardInterrupt):
        next(answer)


def test_answer_that_fails_changes_nothing(tmp_path: Path) -> None:
    conversation = talk(load_model(save_model(tmp_path, weights=float("nan"))), 4)
    for _ in range(2):
        with pytest.raises(HftoolError, match="not numbers"):
            list(conversation.answer("Hello"))
        assert conversation.messages == []


# Seeds and settings


def test_each_answer_has_a_seed_of_its_own(tiny: LanguageModel) -> None:
    def seeds(options: AnswerOptions) -> list[int | None]:
        conversation = Conversation(tiny, chat_template(tiny.tokenizer), options)
        turns = [say(conversation, "one"), say(conversation, "two")]
        *_, again = conversation.regenerate()
        assert isinstance(again, Turn) and again.content != turns[1].content
        assert conversation.messages[-1]["content"] == again.content
        return [turn.seed for turn in (*turns, again)]

    assert seeds(AnswerOptions(seed=7, max_new_tokens=8)) == [7, 8, 9]
    drawn = seeds(AnswerOptions(max_new_tokens=8))
    assert len(set(drawn)) == 3 and None not in drawn


def test_first_answer_is_that_of_generate(folder: Path) -> None:
    arguments = ("-m", str(folder), "--dtype", "float32", "--seed", "7", "-n", "8", "--json")
    answer = json.loads(run("chat", *arguments, stdin="Hello\n").stdout)[1]
    alone = json.loads(run("generate", "--chat", "Hello", *arguments).stdout)[0]
    assert (answer["content"], answer["seed"]) == (alone["text"], alone["seed"])


# When the context is full


def test_overflow_stop_refuses_with_the_numbers(tiny: LanguageModel) -> None:
    conversation = talk(tiny, 4, overflow="stop")
    while size([*conversation.messages, HELLO]) + 4 <= CONTEXT:
        say(conversation, "Hello")
    before = conversation.messages
    with pytest.raises(HftoolError) as caught:
        list(conversation.answer("Hello"))
    for number in (size([*before, HELLO]), 4, CONTEXT):
        assert f" {number}" in caught.value.message
    assert "/undo" in (caught.value.hint or "")
    assert conversation.messages == before
    conversation.undo()
    say(conversation, "Hello")


@pytest.mark.parametrize("roles", ["uuuuuuuu", "auauauau", "uuauaaua"])
def test_turns_are_dropped_from_a_users_message_on(
    roles: str, tiny: LanguageModel, notes: pytest.LogCaptureFixture
) -> None:
    conversation = talk(tiny, 4)
    names = {"u": "user", "a": "assistant"}
    loaded = [{"role": names[r], "content": f"message {i}"} for i, r in enumerate(roles)]
    conversation.messages = loaded
    say(conversation, "Hello")
    kept = conversation.messages[:-2]
    assert kept == loaded[-len(kept) :] and kept[0]["role"] == "user"
    assert size([*kept, HELLO]) + 4 <= CONTEXT
    earlier = [i for i in range(len(loaded) - len(kept)) if not i or roles[i] == "u"]
    assert size([*loaded[earlier[-1] :], HELLO]) + 4 > CONTEXT
    assert len(notes.messages) == 1


def test_system_message_longer_than_the_context(tiny: LanguageModel) -> None:
    conversation = talk(tiny, 4, system="x" * 100)
    with pytest.raises(HftoolError, match="110 tokens"):
        list(conversation.answer("Hello"))
    conversation.system = None
    say(conversation, "Hello")


# A model without a template


def test_chat_without_a_template(tmp_path: Path) -> None:
    folder = save_model(tmp_path, context=256)
    (folder / "chat_template.jinja").unlink()
    arguments = ("chat", "-m", str(folder), "--greedy", "-n", "6", "--dtype", "float32", "--json")
    done = run(*arguments, "-s", "Be brief.", stdin="Hello\nagain\n/template\n")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("has no chat template") == 1
    turns = [turn["content"] for turn in json.loads(done.stdout)]
    frame = f"Be brief.\n\nUser: Hello\nAssistant: {turns[1].strip()}\nUser: again\nAssistant: "
    assert frame in done.stderr
    reference, tokenizer = transformers_model(folder), transformers_tokenizer(folder)
    ids = tokenizer("Be brief.\n\nUser: Hello\nAssistant:")["input_ids"]
    expected = tokenizer.decode(greedy_ids(reference, ids, 6), skip_special_tokens=True)
    assert turns[1].startswith(expected.lstrip().rstrip("\ufffd"))


def test_frame_that_ends_an_answer(tiny: LanguageModel) -> None:
    def answer(stop: str | None) -> Turn:
        template = ChatTemplate(tiny.tokenizer, PLAIN_FRAME, stop=stop)
        options = AnswerOptions(greedy=True, max_new_tokens=8)
        return say(Conversation(tiny, template, options), "Hello")

    whole = answer("never").content
    cut = answer(whole[3:5])
    assert (cut.content, cut.finish_reason) == (whole[: whole.index(whole[3:5])], "stop")
    assert whole == whole.lstrip()


def test_stop_texts_end_answers_with_and_without_a_frame(folder: Path) -> None:
    def content(*arguments: str) -> dict[str, Any]:
        said = run(
            *("chat", "-m", str(folder), "--greedy", "-n", "8", "--json", *arguments),
            stdin=b"Hello\n",
        )
        assert said.exit_code == 0
        return dict(json.loads(said.stdout)[1])

    whole = content()["content"]
    cut = content("--stop", "never said", "--stop", whole[3:5])
    assert (cut["content"], cut["finish_reason"]) == (whole[: whole.index(whole[3:5])], "stop")
    refused = run("chat", "-m", str(folder), "--stop", "", stdin=b"Hello\n")
    assert (refused.exit_code, refused.stderr) == (2, "Error: a stop text is empty\n")


def test_bytes_that_are_no_utf8(folder: Path) -> None:
    command = ("chat", "-m", str(folder), "--greedy", "-n", "2", "--json")
    refused = run(*command, stdin=b"H\xff\n")
    assert refused.exit_code == 1
    assert "--errors replace" in refused.stderr
    replaced = run(*command, "--errors", "replace", stdin=b"H\xff\n")
    assert json.loads(replaced.stdout)[0]["content"] == "H\ufffd"

"""The token ids of prompts, plain and as chats, against transformers."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from hftool.errors import HftoolError
from hftool.options.inputs import PromptOptions
from hftool.prompting.chat_template import chat_template
from hftool.prompting.messages import Chat
from hftool.prompting.prompt import chat_of_text, prompt_ids
from hftool.tokenization.tokenizer import Tokenizer
from tests.tokenization.test_tokenizer import byte_level, gemma_like


@pytest.fixture(scope="module")
def theirs(smollm2_folder: Path) -> Any:
    """Transformers' tokenizer for SmolLM2."""
    return AutoTokenizer.from_pretrained(smollm2_folder)


@pytest.mark.parametrize("system", [None, "You are a pirate.", ""])
@pytest.mark.parametrize("prefill", [None, "Arr", "Arr, ", "two\nlines\n"])
def test_chat_equals_transformers(
    tokenizer: Tokenizer, theirs: Any, system: str | None, prefill: str | None
) -> None:
    options = PromptOptions(chat=True, system=system, prefill=prefill)
    messages = [{"role": "user", "content": " hi {{ x }} <|im_end|>"}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    if prefill is not None:
        messages.append({"role": "assistant", "content": prefill})
    how = {"add_generation_prompt": True} if prefill is None else {"continue_final_message": True}
    assert chat_of_text(" hi {{ x }} <|im_end|>", options) == Chat(messages)
    expected = theirs.apply_chat_template(messages, tokenize=False, **how)
    assert chat_template(tokenizer).render(Chat(messages)) == expected
    ids = theirs.apply_chat_template(messages, return_dict=False, **how)
    assert prompt_ids(tokenizer, " hi {{ x }} <|im_end|>", options) == ids


def test_system_or_prefill_imply_chat() -> None:
    assert PromptOptions(system="").templated and PromptOptions(prefill="").templated
    assert not PromptOptions().templated


def chatty(folder: Path, template: str) -> Tokenizer:
    """A tokenizer that puts <bos> before a text, with a chat template."""
    gemma_like(folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return Tokenizer(folder, "chatty")


def test_template_that_writes_bos_gets_no_second(tmp_path: Path) -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    ours = chatty(tmp_path, template)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    ids = prompt_ids(ours, "the hat", PromptOptions(chat=True))
    assert ids == theirs.apply_chat_template(
        [{"role": "user", "content": "the hat"}], return_dict=False
    )
    assert ids.count(ours.backend.token_to_id("<bos>") or 0) == 1


def test_plain_prompt_gets_bos_unless_told_otherwise(tmp_path: Path) -> None:
    ours = Tokenizer(gemma_like(tmp_path), "gemma")
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert prompt_ids(ours, "the hat", PromptOptions()) == theirs.encode("the hat")
    plain = theirs.encode("the hat", add_special_tokens=False)
    assert prompt_ids(ours, "the hat", PromptOptions(special=False)) == plain
    assert theirs.encode("the hat") == [2, *plain]


@pytest.mark.parametrize(
    ("template", "cause"),
    [
        ("{{ raise_exception('system role not supported') }}", "system role not supported"),
        ("{% for m in messages %}", "end of template"),
        ("{{ nothing.at.all }}", "undefined"),
        ("{{ 1 / 0 }}", "division"),
        ("{{ messages[0].content + 1 }}", "str"),
        ("{{ [].pop() }}", "pop"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "range"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "recursion"),
    ],
)
def test_template_that_fails_is_an_error_with_its_cause(
    tmp_path: Path, template: str, cause: str
) -> None:
    with pytest.raises(HftoolError, match="the chat template of chatty fails") as caught:
        prompt_ids(chatty(tmp_path, template), "hi", PromptOptions(chat=True))
    assert cause in caught.value.message.lower()


def test_prefill_that_the_template_drops_follows_the_prompt(tmp_path: Path) -> None:
    ours = chatty(tmp_path, "{{ messages[0].content }}")
    ids = prompt_ids(ours, "hi", PromptOptions(prefill="Sure"))
    assert ours.decode(ids) == "hiSure"


def test_model_without_a_template(tmp_path: Path) -> None:
    with pytest.raises(HftoolError, match="plain has no chat template") as caught:
        prompt_ids(Tokenizer(byte_level(tmp_path), "plain"), "hi", PromptOptions(chat=True))
    assert "--chat" in (caught.value.hint or "")


def test_empty_prompt_is_an_error(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(HftoolError, match="the prompt is empty"):
        prompt_ids(tokenizer, "", PromptOptions())
    assert prompt_ids(Tokenizer(gemma_like(tmp_path), "gemma"), "", PromptOptions()) == [2]

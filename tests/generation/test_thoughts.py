"""Reasoning in every way of generating: apart from the answer, and ended by --think-tokens."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from hftool.errors import HftoolError
from hftool.generation.batch import generate_batch
from hftool.generation.beam_search import search
from hftool.generation.filters import build_filters
from hftool.generation.records import BeamSettings, Generation, Piece, Request
from hftool.generation.sampling import SamplingSettings
from hftool.generation.sequential import generate_each
from hftool.generation.speculative import prompt_lookup_generator
from hftool.models.language_model import LanguageModel
from hftool.tokenization.incremental_decoder import IncrementalDecoder
from tests.conftest import run
from tests.tiny_models import CHAT_TEMPLATE, TOKENS, load_model, save_model

THINK, END_THINK = TOKENS, TOKENS + 1  # the rows of the embedding without a token
OPENING = CHAT_TEMPLATE.replace("<|assistant|>{% endif %}", "<|assistant|><think>\n{% endif %}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with <think> and </think>, whose template opens the reasoning."""
    folder = save_model(tmp_path_factory.mktemp("thinking"))
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>")])
    assert backend.token_to_id("</think>") == END_THINK
    backend.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(OPENING)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return load_model(folder)


def asked(model: LanguageModel, text: str, opened: bool, **settings: Any) -> Request:
    ids = tuple(model.tokenizer.encode(text, special=False).ids)
    greedy = SamplingSettings(greedy=True, seed=None, ignore_eos=True, **settings)
    return Request("", ids, greedy, 12, opened_thought=opened)


def text_of(model: LanguageModel, ids: list[int]) -> str:
    stream = IncrementalDecoder(model.tokenizer, skip_special=True)
    return "".join(map(stream.step, ids)) + stream.end()


def record_of(events: Any) -> Generation:
    *_, record = events
    assert isinstance(record, Generation)
    return record


@pytest.mark.parametrize("most", [0, 1, 5])
@pytest.mark.parametrize("opened", [True, False])
def test_a_thought_ends_after_its_tokens(model: LanguageModel, most: int, opened: bool) -> None:
    prompt = "<|user|>a<|assistant|>" + "<think>\n" * opened
    settings: dict[str, Any] = {"ban": ("</think>",)}  # it would think for ever
    if not opened:
        settings["further"] = {"sequence_bias": [[[THINK], 99.0]]}
    request = asked(model, prompt, opened, think_tokens=most, **settings)
    request = replace(request, logprobs=0)
    events = list(generate_each(model, [request]))
    record = record_of(events)
    assert record.logprobs is not None
    ids = [token.id for token in record.logprobs if token.id is not None]
    assert ids.index(END_THINK) == most + (not opened)
    thought, _, answer = text_of(model, ids).partition("</think>")
    assert record.reasoning == thought.removeprefix("" if opened else "<think>").strip()
    assert record.text == answer.lstrip()
    pieces = [event for event in events if isinstance(event, Piece)]
    assert "".join(p.text for p in pieces if not p.is_reasoning) == record.text
    assert "".join(p.text for p in pieces) == text_of(model, ids)
    others = [
        record_of(generate_each(model, [request], prompt_lookup_generator(3))),
        *(r for r in generate_batch(model, [request, replace(request, ids=request.ids[2:])])),
    ]
    for other in others[:2]:
        assert isinstance(other, Generation)
        assert (other.text, other.reasoning) == (record.text, record.reasoning)
    if not opened:
        return  # a beam that does not think would win
    [beam] = search(model, request, BeamSettings(2, 1, 1.0))
    assert beam.logprobs is not None and beam.reasoning is not None
    assert beam.logprobs[most].id == END_THINK


def test_a_model_that_does_not_think(tmp_path: Path) -> None:
    other = load_model(save_model(tmp_path))
    settings = SamplingSettings(greedy=True, seed=None, think_tokens=3)
    with pytest.raises(HftoolError, match="does not think"):
        build_filters(settings, other, [1])


def test_on_the_command_line(folder: Path) -> None:
    options = ("--greedy", "--ignore-eos", "--ban", "</think>", "-n", "9", "-m", str(folder))
    arguments = ("generate", "--chat", "a", *options)
    [record] = json.loads(run(*arguments, "--think-tokens", "4", "--json").stdout)
    text = run(*arguments, "--think-tokens", "4").stdout
    assert text == record["text"] + "\n" and record["reasoning"] is not None
    table = run(*arguments, "--think-tokens", "4", "--format", "table").stdout
    assert "</think>" in table
    cut = run(*arguments)
    assert cut.stdout == "\n" and "still thinking after 9 tokens" in cut.stderr
    line = json.dumps({"messages": [{"role": "user", "content": "a"}], "think_tokens": 4})
    batched = json.loads(run("generate", "--batch", "-", *options, stdin=line).stdout)
    assert (batched["text"], batched["reasoning"]) == (record["text"], record["reasoning"])
    turns = run("chat", *options, "--think-tokens", "4", "--json", stdin="a\n").stdout
    assert json.loads(turns)[1]["reasoning"] == record["reasoning"]
    steps = run("sample", "--chat", "a", "--steps", "6", *options[:4], "--think-tokens", "4", "-m",
                str(folder), "--json")  # fmt: skip
    assert json.loads(steps.stdout)[4]["id"] == END_THINK
    assert "think_tokens" in json.loads(steps.stdout)[4]["candidates"][0]["after"]

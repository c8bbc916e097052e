"""Thoughts between the tags of several families of models, in answers as these models write them,
token by token."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken

from hftool.generation.constraint_state import ConstraintState
from hftool.generation.generate import Continuation
from hftool.generation.records import Request
from hftool.generation.sampling import SamplingSettings
from hftool.generation.thought_budget import ThoughtBudget
from hftool.options.constraints import Constraint
from hftool.prompting.reasoning import known_tags, opens_thought
from tests.generation.test_constraint_state import byte_level, save

GREEDY = SamplingSettings(greedy=True, seed=None)
HARMONY = ["<|start|>", "<|end|>", "<|channel|>", "<|message|>"]
COMMAND = ["<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"]
# Special tokens, what a template writes, what a model writes; its reasoning and its answer.
FAMILIES: dict[str, tuple[list[str], str, str, str | None, str]] = {
    "gpt-oss": (
        HARMONY,
        "",
        "<|channel|>analysis<|message|>hm. a|b<|end|>"
        "<|start|>assistant<|channel|>final<|message|>b",
        "hm. a|b",
        "b",
    ),
    "gpt-oss, twice": (
        HARMONY,
        "",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>analysis<|message|>oh"
        "<|end|><|start|>assistant<|channel|>final<|message|>b",
        "hm\noh",
        "b",
    ),
    "gpt-oss, at once": (HARMONY, "", "<|channel|>final<|message|>b", None, "b"),
    "gemma 4": (["<|channel>", "<channel|>"], "", "<|channel>thought\nhm<channel|>b", "hm", "b"),
    "command": (
        COMMAND,
        "",
        "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>b<|END_RESPONSE|>",
        "hm",
        "b",
    ),
    "magistral": (["[THINK]", "[/THINK]"], "", "[THINK]hm[/THINK]b", "hm", "b"),
    "no tokens": ([], "<think></think>", "<think>\nhm <</thin</think>\n\nb", "hm <</thin", "b"),
    "granite": (
        [],
        "Here is my thought process: Here is my response:",
        "Here is my thought process: hm\n\nHere is my response:\n\nb",
        "hm",
        "b",
    ),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    special, template, written, reasoning, answer = FAMILIES[request.param]
    backend = byte_level()
    backend.add_special_tokens([AddedToken(token, special=True) for token in special])
    (tmp_path / "chat_template.jinja").write_text(template)
    model = save(backend, tmp_path, tags=())
    prompt = model.tokenizer.encode("<turn>a<turn>", special=False).ids
    ids = model.tokenizer.encode(written, special=False).ids
    return model, prompt, ids, reasoning, answer


def test_reasoning_is_apart_from_the_answer(family: Any) -> None:
    model, prompt, ids, reasoning, answer = family
    assert not opens_thought(model.tokenizer, prompt)
    request = Request("", tuple(prompt), GREEDY, 999, opened_thought=False)
    text = Continuation(model, request)
    pieces = [piece for i in ids for piece in text.pieces(text.add(i))]
    pieces += text.pieces(text.end())
    record = text.record()
    assert (record.reasoning, record.text) == (reasoning, answer)
    assert "".join(piece.text for piece in pieces if not piece.is_reasoning) == answer
    assert "".join(piece.text for piece in pieces).startswith(model.tokenizer.decode(ids[:3]))


def test_only_the_answer_is_constrained(family: Any) -> None:
    model, prompt, ids, _, answer = family
    state = ConstraintState(model, Constraint("choice", '["b"]'), prompt)
    name = model.tokenizer.decode(ids[:1])
    first = state.allowed(model.embedding_rows).nonzero()[:, 0].tolist()
    spelled = model.tokenizer.encode(name[0], special=False).ids[0]
    assert spelled not in first or len(name) == 1  # where there is a token for the tag
    text = model.tokenizer.decode(ids)
    last = len(model.tokenizer.encode(text[: text.rindex(answer)], special=False).ids)
    for number, token_id in enumerate(ids[: last + 1]):
        allowed = state.allowed(model.embedding_rows).nonzero()[:, 0].tolist()
        assert token_id in allowed, number
        assert not state.complete and not state.violated
        state.add(token_id)
    assert state.complete
    state.advance(ids[:2])  # as a beam search does
    state.advance(ids[: last + 1])
    assert state.complete
    state.advance([*ids[:last], *model.tokenizer.encode("a", special=False).ids])
    assert state.violated and not state.allowed(model.embedding_rows).any()


def test_a_budget_leads_to_the_answer(family: Any) -> None:
    model, prompt, ids, reasoning, _ = family
    tags = known_tags(model.tokenizer)
    assert tags is not None
    if reasoning is None:
        return
    budget = ThoughtBudget(model.tokenizer, prompt, 2)
    opening = model.tokenizer.encode(tags.opening, special=False).ids
    text, forced = [*opening, *ids[len(opening) : len(opening) + 2]], []
    for _ in range(60):
        logits = budget([*prompt, *text], torch.zeros(model.embedding_rows))
        if len(finite := logits.isfinite().nonzero()[:, 0].tolist()) > 1:
            break
        text += finite
        forced += finite
    assert model.tokenizer.decode(forced) == tags.closing + tags.turn + tags.answer

"""Explanations of tokens, against the tokens that tokenizers gives, and worked out by hand."""

import random
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from hftool.errors import HftoolError
from hftool.tokenization.explain import ExplainedStep, Explainer
from hftool.tokenization.tokenizer import Tokenizer
from tests.tokenization.test_random_tokenizers import a_text, a_tokenizer
from tests.tokenization.test_tokenizer import gemma_like, saved, unigram


def test_merges_by_hand(tmp_path: Path) -> None:
    """Sennrich et al. 2016: the pair that was merged first in training goes first."""
    tokens = ["l", "o", "w", "e", "r", "lo", "low", "er", "we"]
    merges = [("e", "r"), ("l", "o"), ("w", "e"), ("lo", "w")]
    model = models.BPE({t: i for i, t in enumerate(tokens)}, merges)
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<s>"])
    explainer = Explainer(Tokenizer(saved(backend, tmp_path), "low"))
    explanation = explainer.explain("lower <s> we")
    assert [(part.text, part.added) for part in explanation.parts] == [
        ("lower", False),
        ("<s>", True),
        ("we", False),
    ]
    first = explanation.parts[0]
    assert first.start == ("l", "o", "w", "e", "r")
    assert first.steps == (
        ExplainedStep("er", "e", "r", 0, ("l", "o", "w", "er")),
        ExplainedStep("lo", "l", "o", 1, ("lo", "w", "er")),
        ExplainedStep("low", "lo", "w", 3, ("low", "er")),
    )
    assert explanation.parts[2].steps[0].rank == 2


def test_bytes_of_an_unknown_character(tmp_path: Path) -> None:
    explanation = Explainer(Tokenizer(gemma_like(tmp_path), "gemma")).explain("é Ω the")
    assert explanation.normalized == "é▁Ω▁the"
    assert explanation.parts[0].start[:4] == ("é", "▁", "<0xCE>", "<0xA9>")


def test_scores_of_the_best_path(tmp_path: Path) -> None:
    tokenizer = Tokenizer(unigram(tmp_path), "t5")
    explanation = Explainer(tokenizer).explain("the hat ☃ cat")
    steps = [step for part in explanation.parts for step in part.steps]
    assert [step.token for step in steps] == tokenizer.backend.encode(
        "the hat ☃ cat", add_special_tokens=False
    ).tokens
    assert all((step.score is None) == ("☃" in step.token) for step in steps)
    assert all(step.score is None or step.score < 0 for step in steps)


@pytest.mark.parametrize("seed", range(60))
def test_the_steps_lead_to_the_tokens(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    tokenizer = Tokenizer(saved(a_tokenizer(draw), tmp_path), "random")
    explainer = Explainer(tokenizer)
    explained = 0
    for text in (a_text(draw) for _ in range(6)):
        try:
            encoding = tokenizer.encode(text, special=False)
            explanation = explainer.explain(text)
        except HftoolError:
            continue
        explained += 1
        assert [i for part in explanation.parts for i in part.ids] == encoding.ids
        for part in explanation.parts:
            if explanation.model == "BPE" and not part.added:
                steps = part.steps
                assert (steps[-1].tokens if steps else part.start) == part.tokens
            elif not part.added:
                assert tuple(step.token for step in part.steps) == part.tokens

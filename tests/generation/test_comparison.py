"""`score --against`: the numbers of transformers' own logits, compared here by hand."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from tests.conftest import run
from tests.tiny_models import (
    VOCABULARY,
    all_logits,
    save_tokenizer,
    transformers_model,
    transformers_tokenizer,
)

TEXTS = ["the sun rises", "大家好 🙂", "", "one two three", "x" * 40]


def saved(folder: Path, seed: int, rows: int = VOCABULARY) -> Path:
    torch.manual_seed(seed)
    auto: Any = AutoModelForCausalLM
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        initializer_range=0.25,
        bos_token_id=None,
    )
    auto.from_config(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model"), 1)


def test_two_models(folder: Path, tmp_path: Path) -> None:
    """The second has more rows of embeddings than tokens, as models of one family may."""
    other = saved(tmp_path, 2, VOCABULARY + 5)
    (tmp_path / "t.txt").write_text("\n".join(TEXTS))
    command = ("score", "-m", str(folder), "--against", str(other), "-f", str(tmp_path / "t.txt"))
    done = run(*command, "--json")
    (record,) = json.loads(done.stdout)

    own: list[float] = []
    theirs: list[float] = []
    divergences: list[float] = []
    same: list[bool] = []
    for text in TEXTS:
        ids = transformers_tokenizer(folder)(text).input_ids
        if len(ids) < 2:
            continue
        q, p = (all_logits(transformers_model(f), ids[:-1]).double() for f in (folder, other))
        own += (-torch.log_softmax(q, -1)[range(len(ids) - 1), ids[1:]]).tolist()
        theirs += (-torch.log_softmax(p, -1)[range(len(ids) - 1), ids[1:]]).tolist()
        q, p = torch.log_softmax(q, -1), torch.log_softmax(p[:, :VOCABULARY], -1)
        kl = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none")
        divergences += kl.sum(1).tolist()
        same += (q.argmax(1) == p.argmax(1)).tolist()
    root = math.sqrt(len(own))
    x, y = math.exp(np.mean(own)), math.exp(np.mean(theirs))
    covariance = np.cov(own, theirs) / len(own)
    gradient = np.array([x, -y])
    expected = {
        "texts": len(TEXTS),
        "tokens": len(own),
        "divergence": np.mean(divergences),
        "divergence_error": np.std(divergences, ddof=1) / root,
        "divergence_quantile_99": np.quantile(divergences, 0.99),
        "same_best": np.mean(same),
        "same_best_error": np.std(same, ddof=1) / root,
        "perplexity": x,
        "perplexity_error": x * np.std(own, ddof=1) / root,
        "against_perplexity": y,
        "against_perplexity_error": y * np.std(theirs, ddof=1) / root,
        "perplexity_difference": x - y,
        "perplexity_difference_error": math.sqrt(gradient @ covariance @ gradient),
    }
    assert {name: record[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert (record["precision"], record["against_precision"]) == ("float32", "float32")
    table = run(*command, "--format", "table").stdout
    assert f"{expected['divergence']:.4f} ±" in table


def test_a_model_and_itself(folder: Path) -> None:
    done = run("score", "-m", str(folder), "--against", str(folder), *TEXTS, "--format", "csv")
    values = dict(zip(*(line.split(",") for line in done.stdout.splitlines()), strict=True))
    assert float(values["divergence"]) == float(values["perplexity_difference"]) == 0
    assert float(values["same_best"]) == 1


def test_what_cannot_be_compared(folder: Path, tmp_path: Path) -> None:
    other = saved(tmp_path, 2, VOCABULARY + 1)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 263, "content": "<x>"})
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    done = run("score", "-m", str(folder), "--against", str(other), "the sun")
    assert (done.exit_code, done.stdout) == (1, "")
    assert " differ in 1 token\n" in done.stderr
    for options in (["--by", "word"], ["--resume", "-o", str(tmp_path / "x.csv")]):
        done = run("score", "-m", str(folder), "--against", str(folder), "the sun", *options)
        assert (done.exit_code, done.stdout) == (2, "")
    done = run("score", "-m", str(folder), "--against", str(folder), "x")
    assert done.exit_code == 1 and "no text has a token to score" in done.stderr

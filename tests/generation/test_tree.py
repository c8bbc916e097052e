"""Trees of continuations: every probability is that of transformers' logits for the path alone."""

import json
import math
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, MambaConfig, MistralConfig, T5Config

from tests.conftest import run
from tests.tiny_models import (
    END,
    PAD,
    VOCABULARY,
    all_logits,
    save_tokenizer,
    transformers_model,
    transformers_tokenizer,
)

PROMPT = "the sun rises over the sea"
LIMIT = 32
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "bos_token_id": None,
    "pad_token_id": PAD,
    "eos_token_id": END,
    "initializer_range": 0.4,
}
HEADS: dict[str, Any] = {"num_attention_heads": 4, "intermediate_size": 48}
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES, **HEADS, max_position_embeddings=LIMIT),
    "window": MistralConfig(**SIZES, **HEADS, sliding_window=8, num_key_value_heads=2),
    "stateful": MambaConfig(**SIZES, state_size=8),
}
Record = dict[str, Any]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from transformers import AutoModelForCausalLM

    made = {}
    for name, config in CONFIGS.items():
        torch.manual_seed(2)
        made[name] = tmp_path_factory.mktemp(name)
        auto: Any = AutoModelForCausalLM
        auto.from_config(config).save_pretrained(made[name])
        save_tokenizer(made[name])
    return made


def tree(*arguments: str) -> tuple[list[Record], list[Record]]:
    """The nodes and the texts."""
    done = run("tree", *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    records = json.loads(done.stdout)
    return [r for r in records if "depth" in r], [r for r in records if "depth" not in r]


def require_whole(nodes: list[Record], depth: int, name: str = "prob") -> None:
    """Check that siblings sum to 1, that paths are products, and that nothing is missing."""
    after: dict[tuple[int, ...], list[Record]] = defaultdict(list)
    paths = {(): 1.0}
    for node in nodes:
        path = tuple(node["path"])
        assert node["depth"] == len(path) + (node["id"] is None)
        parent = path if node["id"] is None else path[:-1]
        after[parent].append(node)
        product_ = paths[parent] * node[name]
        assert node[name.replace("prob", "path_prob")] == pytest.approx(product_)
        if node["id"] is not None:
            assert path[-1] == node["id"]
            paths[path] = product_
    for siblings in after.values():
        assert sum(node[name] for node in siblings) == pytest.approx(1.0)
        assert [node["id"] is None for node in siblings] == [False] * (len(siblings) - 1) + [True]
    leaves = [n for n in nodes if n["id"] is None or tuple(n["path"]) not in after]
    assert sum(n[name.replace("prob", "path_prob")] for n in leaves) == pytest.approx(1.0)
    assert all(n["ended"] or n["depth"] == depth for n in leaves if n["id"] is not None)


@pytest.mark.parametrize("name", CONFIGS)
def test_each_probability_is_that_of_the_path_alone(name: str, folders: dict[str, Path]) -> None:
    folder = folders[name]
    nodes, _ = tree(PROMPT, "-m", str(folder), "--depth", "3", "--branch", "2")
    require_whole(nodes, 3)
    model = transformers_model(folder)
    ids = transformers_tokenizer(folder)(PROMPT).input_ids
    for node in nodes:
        path = node["path"]
        if node["id"] is None:
            continue
        probs = torch.softmax(all_logits(model, [*ids, *path[:-1]])[-1].double(), -1)
        assert node["prob"] == pytest.approx(float(probs[node["id"]]), rel=1e-3)
        assert node["id"] in probs.topk(2).indices
    assert sum(node["depth"] == 3 and node["id"] is not None for node in nodes) == 8


def test_the_most_probable_paths_cover(folders: dict[str, Path]) -> None:
    folder = folders["llama"]
    branch = str(VOCABULARY)
    arguments = (*("-m", str(folder)), *("--depth", "2", "--branch", branch, "--cover", "0.4"))
    nodes, _ = tree(PROMPT, *arguments)
    require_whole(nodes, 2)
    model = transformers_model(folder)
    ids = transformers_tokenizer(folder)(PROMPT).input_ids
    with torch.inference_mode():
        second = model(torch.tensor([[*ids, i] for i in range(VOCABULARY)])).logits[:, -2:]
    first = torch.softmax(second[0, 0].double(), -1)
    of_both = first[:, None] * torch.softmax(second[:, 1].double(), -1)
    pairs = product(range(VOCABULARY), repeat=2)
    probs = {pair: float(of_both[pair]) for pair in pairs if pair[0] != END}
    probs[END,] = float(first[END])
    expected, total = set(), 0.0
    for path in sorted(probs, key=lambda path: -probs[path]):
        if total >= 0.4:
            break
        expected.add(path)
        total += probs[path]
    found = {tuple(n["path"]) for n in nodes if n["id"] is not None}
    assert {path for path in found if path in probs} == expected
    assert len(expected) > 3


def test_a_cover_out_of_reach_is_reported(folders: dict[str, Path]) -> None:
    done = run("tree", "ab", "-m", str(folders["llama"]), "--branch", "1", "--cover", "0.99")
    assert "not 0.99: try a larger --branch" in done.stderr
    assert done.exit_code == 0


def test_filters(folders: dict[str, Path]) -> None:
    options = ("--temperature", "0.5", "--top-k", "2", "--repetition-penalty", "1.5")
    nodes, _ = tree(PROMPT, "-m", str(folders["llama"]), "--depth", "2", *options)
    require_whole(nodes, 2, "sampled_prob")
    require_whole(nodes, 2)
    for node in (node for node in nodes if node["id"] is not None and node["depth"] == 2):
        first = next(n for n in nodes if n["path"] == node["path"][:1] and n["id"] is not None)
        text = PROMPT + first["text"]
        if "\ufffd" in text or "<0x" in text:
            continue
        arguments = ("-m", str(folders["llama"]), *options, "--json", "-k", "2")
        best = {r["id"]: r for r in json.loads(run("topk", text, *arguments).stdout)}
        assert node["sampled_prob"] == pytest.approx(best[node["id"]]["sampled_prob"], rel=1e-3)
    rest = [node for node in nodes if node["id"] is None]
    assert all(node["sampled_prob"] == pytest.approx(0.0, abs=1e-12) for node in rest)
    assert all(node["prob"] > 0.01 for node in rest)  # what the filters removed


def test_the_paths_stop_at_the_context(folders: dict[str, Path]) -> None:
    folder = str(folders["llama"])
    done = run("tree", "x" * (LIMIT - 1), "-m", folder, "--branch", "1", "--depth", "9", "--json")
    assert done.stderr == "Warning: the paths have 2 tokens: the context is full\n"
    assert max(record["depth"] for record in json.loads(done.stdout)) == 2


def test_paths_of_an_encoder_decoder(tmp_path: Path) -> None:
    from transformers import T5ForConditionalGeneration

    torch.manual_seed(2)
    sizes: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    ids: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "eos_token_id": END}
    make_config: Any = T5Config
    config = make_config(**sizes, **ids, decoder_start_token_id=PAD, initializer_factor=3.0)
    make: Any = T5ForConditionalGeneration
    model = make(config).eval()
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    nodes, _ = tree(PROMPT, "-m", str(tmp_path), "--depth", "2", "--branch", "2")
    require_whole(nodes, 2)
    source = torch.tensor([transformers_tokenizer(tmp_path)(PROMPT).input_ids])
    for node in (node for node in nodes if node["id"] is not None):
        begin = torch.tensor([[PAD, *node["path"][:-1]]])
        with torch.inference_mode():
            logits = model(input_ids=source, decoder_input_ids=begin).logits[0, -1]
        expected = float(torch.softmax(logits.double(), -1)[node["id"]])
        assert node["prob"] == pytest.approx(expected, rel=1e-3)


def test_the_paths_have_the_probabilities_of_score(smollm2_folder: Path) -> None:
    prompt = "The capital of France is"
    arguments = ("--until", ".", "--depth", "3", "--branch", "4", "--cover", "0.7")
    nodes, texts = tree(prompt, *arguments)
    require_whole(nodes, 3)
    complete = [n for n in nodes if n["id"] is not None and (n["ended"] or n["depth"] == 3)]
    scores = json.loads(
        run("score", "--given", prompt, *(n["text"] for n in complete), "--json").stdout
    )
    same = 0
    for node, scored in zip(complete, scores, strict=True):
        if scored["tokens"] == node["depth"]:  # the text is split as the path is
            assert math.log(node["path_prob"]) == pytest.approx(scored["logprob"], rel=1e-4)
            same += 1
    assert same > 3
    sums: dict[str, float] = defaultdict(float)
    for node in complete:
        if "." in node["text"]:
            assert node["ended"]
            sums[node["text"].split(".")[0] + "."] += node["path_prob"]
    assert {text["text"]: text["prob"] for text in texts} == pytest.approx(sums)
    assert texts[0]["text"] == " Paris."


def test_drawn(folders: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "tree.html"
    arguments = ("tree", "ab", "-m", str(folders["llama"]), "--depth", "2", "--branch", "2")
    done = run(*arguments, "--format", "table", "--save", str(page))
    lines = done.stdout.splitlines()
    assert lines[0] == "ab"
    below = ["│  ├─ ", "│  ├─ ", "│  └─ "]
    guides = ["├─ ", *below, "├─ ", *below, "└─ "]
    assert len(lines) == 2 + len(guides) + 1
    assert all(map(str.startswith, lines[2:], guides))
    assert lines[-1].startswith("4 paths with probability 0.")
    html = page.read_text("utf-8")
    assert html.count("<details") == html.count("</details>") == 2
    assert html.count('class="leaf rest"') == 3
    assert "http" not in html


def test_lines_of_text(folders: dict[str, Path]) -> None:
    arguments = ("tree", "ab", "-m", str(folders["llama"]), "--depth", "1", "--branch", "1")
    node, rest = run(*arguments, "--format", "text").stdout.splitlines()
    depth, token_id, prob, path_prob, *_ = node.split("\t")
    assert (depth, prob) == ("1", path_prob)
    assert int(token_id) < VOCABULARY
    assert rest.split("\t")[1] == ""
    assert rest.endswith(f"\t{VOCABULARY - 1} left out")
    header, row, last = run(*arguments, "--format", "csv").stdout.splitlines()
    assert header == "depth,path,id,token,text,prob,path_prob,ended,left_out"
    assert row.startswith(f"1,{token_id},{token_id},")
    assert last.startswith("1,,,,,0.")

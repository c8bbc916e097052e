"""The records of every command, against their JSON Schemas in docs/schemas."""

import json
from pathlib import Path

import jsonschema
import pytest

from tests.conftest import run
from tools import make_formats

DOCS = Path(__file__).parents[2] / "docs"
BATCH = '{"prompt": "One, two,", "max_new_tokens": 3, "id": 7, "top_logprobs": 2}\n{"nothing": 1}\n'
RUNS: list[tuple[tuple[str, ...], list[str], str]] = [
    (("vocabulary",), ["vocab-dump", "smollm2", "--ids", "0-300"], ""),
    (("vocabulary",), ["vocab-dump", "minilm-sst2", "--kind", "special"], ""),
    (("vocabulary-statistics",), ["vocab-dump", "smollm2", "--stats"], ""),
    (("tokenizer-difference",), ["vocab-dump", "smollm2", "--diff", "minilm-sst2"], ""),
    (("finding",), ["vocab-dump", "minilm-sst2", "--audit", "--ids", "0-1500"], ""),
    (("encoded",), ["encode", "--lines"], "good morning\n大家好\n\n"),
    (("count",), ["encode", "--lines", "--count"], "good morning\n大家好\n\n"),
    (
        ("compared", "compared-total"),
        ["encode", "--lines", "--compare", "minilm-sst2"],
        "good\n\n",
    ),
    (
        ("compared-count", "compared-total"),
        ["encode", "--count", "--compare", "minilm-sst2"],
        "good 大家\n",
    ),
    (("explanation",), ["encode", "--explain"], "good morning<|im_end|>\n"),
    (("explanation",), ["encode", "--explain", "-m", "minilm-sst2"], "tokenizers\n"),
    (("round-trip",), ["encode", "Good 大", "--roundtrip", "-m", "minilm-sst2"], ""),
    (("template",), ["encode", "hi", "--show-template"], ""),
    (("template-diff",), ["encode", "hi", "--show-template", "--diff-arg", "eos_token=x"], ""),
    (("decoded",), ["decode", "--lines"], "260 1015\n178\n"),
    (("text-score",), ["score", "a cat", "b"], ""),
    (("word-score",), ["score", "a small cat", "--by", "word"], ""),
    (("candidate",), ["topk", "1+1=", "-k", "3", "--target", "two dogs", "--top-p", "0.5"], ""),
    (("candidate",), ["topk", "--lines", "-k", "2"], "One,\n你\n"),
    (("scored-token", "perplexity"), ["score", "One, two, 三", "--by", "token"], ""),
    (("candidate",), ["topk", "One, two", "--position", "all", "-k", "2"], ""),
    (("text-score",), ["score", "One, two, three"], ""),
    (("word-score",), ["score", "One, two, three", "--by", "word"], ""),
    (("layer",), ["topk", "One, two", "--layers", "-k", "2"], ""),
    (("benchmark",), ["bench", "--quantize", "int8", "-n", "2", "--prompt-tokens", "8"], ""),
    (("head-attention",), ["topk", "One, two", "--attention"], ""),
    (("tree-node",), ["tree", "One,", "--depth", "2", "--top-k", "2"], ""),
    (("tree-node", "tree-text"), ["tree", "A, B,", "--depth", "2", "--until", ","], ""),
    (("model-comparison",), ["score", "One, two", "--against", "smollm2"], ""),
    (("step",), ["sample", "One,", "--steps", "2", "--seed", "1", "--top-p", "0.5"], ""),
    (("step",), ["sample", "One,", "--steps", "2", "--greedy"], ""),
    (("generation",), ["generate", "One, two,", "-n", "3", "--greedy"], ""),
    (("generation",), ["generate", "One, two,", "-n", "3", "--top-logprobs", "2"], ""),
    (
        ("generation",),
        ["generate", "One", "--choice", "A", "--choice", "B", "--top-logprobs", "2"],
        "",
    ),
    (("step",), ["sample", "One,", "--steps", "2", "--choice", " two"], ""),
    (("generation", "batch-error"), ["generate", "--batch", "-"], BATCH),
    (("turn",), ["chat", "--seed", "3", "-n", "4"], "Hello\nAnd you?\n"),
    (("classification",), ["sentiment"], "I love it\n\nI hate it\n"),
    (("classification",), ["sentiment", "--input-format", "csv"], "id,text\n1,good\n"),
    (("summary",), ["sentiment", "--summary"], "I love it\n\nI hate it\n"),
    (
        ("evaluation",),
        [*("sentiment", "--input-format", "csv", "--gold", "label", "--mistakes", "9")],
        "text,label\ngood,NEGATIVE\nbad,NEGATIVE\n",
    ),
    (("model",), ["models", "show", "smollm2"], ""),
    (("model",), ["models", "show", "owner/name"], ""),
    (("alias",), ["models", "list"], ""),
]


def test_page_and_schemas_are_up_to_date() -> None:
    files = make_formats.generated()
    assert {*(DOCS / "schemas").iterdir(), DOCS / "formats.md"} == set(files)
    for path, text in files.items():
        assert path.read_text("utf-8") == text, f"{path.name} is not up to date: make reference"


def test_every_schema_is_tested_with_a_command() -> None:
    held = {name for names, _, _ in RUNS for name in names}
    held.add("loaded-model")  # in tests/server/test_daemon.py
    held.add("failed-text")  # in tests/tokenization/test_unknown.py
    held.add("pruned-copy")  # in tests/models/test_prune.py
    assert held == {path.stem for path in (DOCS / "schemas").iterdir()}


@pytest.mark.parametrize(("names", "arguments", "stdin"), RUNS, ids=lambda v: " ".join(v)[:40])
@pytest.mark.usefixtures("smollm2_folder", "minilm_folder")
def test_real_records_match_their_schema(
    names: tuple[str, ...], arguments: list[str], stdin: str
) -> None:
    done = run(*arguments, "--format", "jsonl", stdin=stdin)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert records, done.stderr
    validators = []
    for name in names:
        schema = json.loads((DOCS / "schemas" / f"{name}.json").read_text("utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)
        validators.append(jsonschema.Draft202012Validator(schema))
    matched = {i for record in records for i, v in enumerate(validators) if v.is_valid(record)}
    assert matched == set(range(len(names)))
    for record in records:
        assert any(v.is_valid(record) for v in validators), record

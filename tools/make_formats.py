"""Generate the Formats page and a JSON Schema for each record class: `make reference`."""

import inspect
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from hftool.chat.turns import Turn
from hftool.classification.classify import Classification
from hftool.classification.evaluation import Evaluation
from hftool.classification.summary import LabelSummary
from hftool.generation.attention import HeadAttention
from hftool.generation.benchmark import Benchmark
from hftool.generation.candidates import Candidate, Step
from hftool.generation.comparison import ModelComparison
from hftool.generation.layers import Layer
from hftool.generation.records import FailedRequest, Generation
from hftool.generation.scored_tokens import Perplexity, ScoredToken
from hftool.generation.scoring import TextScore, WordScore
from hftool.generation.tree_nodes import TreeNode, TreeText
from hftool.models.info import AliasEntry, ModelEntry
from hftool.models.prune import PrunedCopy
from hftool.server.records import LoadedModel
from hftool.tokenization.audit import Finding
from hftool.tokenization.difference import TokenizerDifference
from hftool.tokenization.explain import Explanation
from hftool.tokenization.records import (
    Compared,
    ComparedCount,
    ComparedTotal,
    Counted,
    Decoded,
    Encoded,
    FailedText,
    Rendered,
    RenderedDiff,
    RoundTrip,
)
from hftool.tokenization.vocabulary import VocabularyEntry, VocabularyStats

DOCS = Path(__file__).parent.parent / "docs"
RECORDS: dict[str, tuple[str, type[Any]]] = {
    "vocabulary": ("vocab-dump", VocabularyEntry),
    "tokenizer-difference": ("vocab-dump --diff", TokenizerDifference),
    "vocabulary-statistics": ("vocab-dump --stats", VocabularyStats),
    "finding": ("vocab-dump --audit", Finding),
    "encoded": ("encode", Encoded),
    "count": ("encode --count", Counted),
    "compared": ("encode --compare", Compared),
    "compared-count": ("encode --compare --count", ComparedCount),
    "compared-total": ("encode --compare, at the end", ComparedTotal),
    "explanation": ("encode --explain", Explanation),
    "round-trip": ("encode --roundtrip", RoundTrip),
    "template": ("encode --show-template", Rendered),
    "template-diff": ("encode --show-template --diff-arg", RenderedDiff),
    "failed-text": ("encode --lines, a text that failed", FailedText),
    "decoded": ("decode", Decoded),
    "candidate": ("topk", Candidate),
    "layer": ("topk --layers", Layer),
    "head-attention": ("topk --attention", HeadAttention),
    "scored-token": ("score --by token", ScoredToken),
    "perplexity": ("score --by token, at the end", Perplexity),
    "text-score": ("score", TextScore),
    "word-score": ("score --by word", WordScore),
    "benchmark": ("bench", Benchmark),
    "tree-node": ("tree", TreeNode),
    "tree-text": ("tree --until, at the end", TreeText),
    "model-comparison": ("score --against", ModelComparison),
    "step": ("sample", Step),
    "generation": ("generate", Generation),
    "batch-error": ("generate --batch or --lines, a line that failed", FailedRequest),
    "turn": ("chat", Turn),
    "classification": ("sentiment", Classification),
    "summary": ("sentiment --summary", LabelSummary),
    "evaluation": ("sentiment --gold", Evaluation),
    "model": ("models show, models pull", ModelEntry),
    "alias": ("models list", AliasEntry),
    "pruned-copy": ("models prune", PrunedCopy),
    "loaded-model": ("daemon status", LoadedModel),
}
INTRODUCTION = """\
# Formats

<!-- made by `make reference` from the records' classes -->

`--format json` writes one array of records; `jsonl` writes one record per line as soon as it is
complete. Both keep numbers in full precision. `csv` and `tsv` write one row per record (`encode`
writes one row per token). `table` is for people and may change; `text` is for programs such as
`cut` and `read`, and stays stable.

Each record has a JSON Schema in `docs/schemas`. A number that is not finite is `null`.
Probabilities are between 0 and 1; `logprob` is a natural logarithm; `entropy` and `surprisal` are
in bits; offsets count characters, not bytes.
"""


def schema_of(record: type[Any]) -> dict[str, Any]:
    """Return the JSON Schema of the records of a class as hftool writes them."""
    schema = TypeAdapter(record).json_schema(mode="serialization")
    optional = {f.name for f in fields(record) if f.metadata.get("optional")}
    has_input_columns = record in (Classification, TextScore)  # the other columns of the text's row
    if has_input_columns:
        del schema["properties"]["columns"]
    schema["required"] = [name for name in schema["properties"] if name not in optional]
    schema["additionalProperties"] = has_input_columns
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_untitled(schema)}


def _untitled(schema: Any) -> Any:
    """Return a schema without titles, defaults and descriptions; keep a field called "title"."""
    if isinstance(schema, list):
        return [_untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: schema[key] for key in schema if key not in ("title", "default", "description")}
    named = {key: kept.pop(key) for key in ("properties", "$defs") if key in kept}
    named = {key: {n: _untitled(v) for n, v in of.items()} for key, of in named.items()}
    return {key: _untitled(value) for key, value in kept.items()} | named


def _in_json(text: str) -> str:
    return re.sub(r"\bNone\b", "null", text)


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return "object"
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f'"{value}"' for value in schema["enum"])
    if "prefixItems" in schema:
        return f"[{', '.join(_type(part) for part in schema['prefixItems'])}]"
    if schema.get("type") == "array":
        return f"array of {_type(schema['items'])}"
    return str(schema.get("type", "anything"))


def generated() -> dict[Path, str]:
    """Return the path and the text of each generated file."""
    files = {}
    page = [INTRODUCTION]
    for name, (command, record) in RECORDS.items():
        schema = schema_of(record)
        file = DOCS / "schemas" / f"{name}.json"
        files[file] = json.dumps(schema, indent=2) + "\n"
        page += [f"## `{command}`", "", _in_json(inspect.cleandoc(record.__doc__ or "")), ""]
        page += ["| field | type |", "|---|---|"]
        for field, kind in schema["properties"].items():
            absent = "" if field in schema["required"] else "; may be absent"
            page.append(f"| `{field}` | {_type(kind)}{absent} |")
        page += ["", f"Schema: [{file.name}](schemas/{file.name})", ""]
    files[DOCS / "formats.md"] = "\n".join(page)
    return files


def main() -> None:
    """Write the files, and remove the schemas of records that no longer exist."""
    files = generated()
    (DOCS / "schemas").mkdir(exist_ok=True)
    for old in set((DOCS / "schemas").iterdir()) - set(files):
        old.unlink()
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Benchmarks of constraints: the masks of a text against the model's steps for the same tokens."""

import json
from collections.abc import Iterator

import torch

from hftool.generation.constraint_state import ConstraintState
from hftool.generation.prefix_cache import CachedModel
from hftool.models.language_model import LanguageModel
from hftool.models.load import load_language_model
from hftool.options.constraints import Constraint
from hftool.options.model import LoadOptions
from tests.benchmarks.pairs import Pair

PROMPT = "Invent a person as JSON: "
ADDRESS = {
    "type": "object",
    "properties": {
        "street": {"type": "string"},
        "zip": {"type": "string", "pattern": "^[0-9]{5}$"},
    },
    "required": ["street", "zip"],
}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "born": {"type": "string", "format": "date"},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "long tag"]}},
        "address": ADDRESS,
    },
    "required": ["name", "age", "born", "tags", "address"],
    "additionalProperties": False,
}
CONSTRAINTS = {
    "--schema": Constraint("schema", json.dumps(PERSON)),
    "--regex": Constraint("regex", "[A-Z][a-z]+ [A-Z][a-z]+, born (19|20)[0-9]{2} in .{3,80}"),
}


def pairs(tokens: int) -> Iterator[Pair]:
    """Yield a pair for each constraint and precision."""
    for name, options in {
        "float32": LoadOptions(dtype="float32"),
        "bfloat16": LoadOptions(dtype="bfloat16"),
        "int4": LoadOptions(quantize="int4"),
    }.items():
        language_model = load_language_model(options)
        for option, constraint in CONSTRAINTS.items():
            yield _pair(language_model, f"{option}, {name}", constraint, tokens)


def _pair(language_model: LanguageModel, what: str, constraint: Constraint, tokens: int) -> Pair:
    prompt = language_model.tokenizer.encode(PROMPT, special=False).ids
    written: list[int] = []
    state = ConstraintState(language_model, constraint, prompt)
    cached_model = CachedModel(language_model)
    while len(written) < tokens and not state.complete:
        allowed = state.allowed(language_model.embedding_rows)
        logits = cached_model.next_logits([*prompt, *written])
        written.append(int(logits.masked_fill(~allowed, -torch.inf).argmax()))
        state.add(written[-1])

    def masks() -> int:
        state = ConstraintState(language_model, constraint, prompt)
        for token_id in written:
            state.allowed(language_model.embedding_rows)
            state.add(token_id)
        return len(written)

    def model_steps() -> int:
        cached_model = CachedModel(language_model)
        for count in range(len(written)):
            cached_model.next_logits([*prompt, *written[:count]])
        return len(written)

    return Pair(what, "the model's steps", "tokens", masks, model_steps)

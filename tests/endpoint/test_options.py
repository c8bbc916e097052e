"""Which field each server gets for each option; where it knows none, the option is refused."""

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest

from hftool.endpoint.client import Client
from hftool.endpoint.parameters import remote_request
from hftool.endpoint.server import Endpoint
from hftool.errors import HftoolError
from hftool.options.constraints import Constraint
from hftool.options.endpoint import EndpointOptions
from hftool.options.generation import GenerateOptions, GenerationOptions
from hftool.options.inputs import PromptOptions
from hftool.options.sampling import SamplingOptions
from tests.endpoint.published import PUBLISHED
from tests.endpoint_server import Server

SERVERS = ("OpenAI", "llama-server", "Ollama", "vLLM", "SGLang", "TGI", "llama-cpp-python")
SAME = "same"
REPEAT = "repeat_penalty"
# A value, then by server the field of a completion: SAME for the option's name, None if refused.
COMPLETION: dict[str, tuple[Any, tuple[str | None, ...]]] = {
    "temperature": (0.5, (SAME,) * 7),
    "top_p": (0.5, (SAME,) * 7),
    "seed": (3, (SAME,) * 7),
    "stop": (["x"], (SAME,) * 7),
    "max_new_tokens": (3, ("max_tokens",) * 7),
    "top_k": (3, (None, SAME, None, SAME, SAME, None, SAME)),
    "min_p": (0.1, (None, SAME, None, SAME, SAME, None, SAME)),
    "typical_p": (0.5, (None, SAME, None, None, None, None, None)),
    "top_n_sigma": (1.0, (None, SAME, None, None, None, None, None)),
    "xtc_probability": (0.5, (None, SAME, None, None, None, None, None)),
    "xtc_threshold": (0.2, (None, SAME, None, None, None, None, None)),
    "dry_multiplier": (0.8, (None, SAME, None, None, None, None, None)),
    "dry_base": (1.5, (None, SAME, None, None, None, None, None)),
    "dry_allowed_length": (3, (None, SAME, None, None, None, None, None)),
    "repetition_penalty": (1.1, (None, REPEAT, None, SAME, SAME, SAME, REPEAT)),
    "frequency_penalty": (0.5, (SAME,) * 7),
    "presence_penalty": (0.5, (SAME, SAME, SAME, SAME, SAME, None, SAME)),
    "ignore_eos": (True, (None, SAME, None, SAME, SAME, None, None)),
    "min_new_tokens": (2, (None, None, None, *("min_tokens",) * 2, None, "min_tokens")),
    "ban": (["x"], (None, None, None, "bad_words", None, None, None)),
    "think_tokens": (2, (None,) * 7),
    "logprobs": (True, (SAME, SAME, SAME, SAME, SAME, None, SAME)),
    "top_logprobs": (2, (*("logprobs",) * 5, None, "logprobs")),
    "skip_special": (False, (None, None, None, *("skip_special_tokens",) * 2, None, None)),
    **{
        name: (value, (None,) * 7)
        for name, value in {
            **{"top_h": 0.5, "epsilon_cutoff": 0.1, "eta_cutoff": 0.1, "bias": ["x=1"]},
            **{"no_repeat_ngram_size": 2, "any_case": True, "samplers": "top_k", "num_beams": 2},
            **{"length_penalty": 2.0, "assistant_model": "x", "prompt_lookup": 2},
        }.items()
    },
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
STRICT = {"name": "text", "schema": SCHEMA, "strict": True}
OPENAI_FORMAT = {"response_format": {"type": "json_schema", "json_schema": STRICT}}
TEXTS = ["yes", "no (1+1)"]
ESCAPED = r"(yes|no \(1\+1\))"
GBNF = 'root ::= "yes" | "no (1+1)"'
GRAMMAR = 'start: "a"'
# By kind of constraint and server: what is sent for a completion, and for a chat.
CONSTRAINTS: dict[str, dict[str, tuple[Any, Any]]] = {
    "schema": {
        "OpenAI": (None, OPENAI_FORMAT),
        "llama-server": ({"json_schema": SCHEMA}, OPENAI_FORMAT),
        "Ollama": (None, OPENAI_FORMAT),
        "vLLM": ({"structured_outputs": {"json": SCHEMA}},) * 2,
        "SGLang": ({"json_schema": json.dumps(SCHEMA)}, OPENAI_FORMAT),
        "TGI": (None, {"response_format": {"type": "json", "value": SCHEMA}}),
        "llama-cpp-python": (
            None,
            {"response_format": {"type": "json_object", "schema": SCHEMA}},
        ),
    },
    "regex": {
        "vLLM": ({"structured_outputs": {"regex": "[0-9]+"}},) * 2,
        "SGLang": ({"regex": "[0-9]+"},) * 2,
        "TGI": (None, {"response_format": {"type": "regex", "value": "[0-9]+"}}),
    },
    "choice": {
        "llama-server": ({"grammar": GBNF},) * 2,
        "vLLM": ({"structured_outputs": {"choice": TEXTS}},) * 2,
        "SGLang": ({"regex": ESCAPED},) * 2,
        "TGI": (None, {"response_format": {"type": "regex", "value": ESCAPED}}),
        "llama-cpp-python": ({"grammar": GBNF},) * 2,
    },
    "grammar": {"vLLM": ({"structured_outputs": {"grammar": GRAMMAR}},) * 2},
}
TEXT_OF = {
    **{"schema": json.dumps(SCHEMA), "regex": "[0-9]+", "choice": json.dumps(TEXTS)},
    **{"grammar": GRAMMAR},
}


@pytest.fixture(params=SERVERS)
def endpoint(request: pytest.FixtureRequest, server: Server) -> Iterator[Endpoint]:
    """An endpoint that says it is each of these servers."""
    server.owner, server.fields = PUBLISHED[request.param]
    yield Endpoint(server.address, Client(server.address.partition("#")[0], EndpointOptions()))


def body(endpoint: Endpoint, options: GenerateOptions, *, chat: bool = False) -> dict[str, Any]:
    """The request for a text, without what every request has."""
    prompting = PromptOptions(chat=chat)
    sent = remote_request(endpoint, "a", replace(options, prompting=prompting)).body
    return {k: v for k, v in sent.items() if k not in ("model", "prompt", "messages")}


def test_every_option_is_sent_or_refused(
    endpoint: Endpoint, request: pytest.FixtureRequest
) -> None:
    plain = GenerateOptions(PromptOptions(), SamplingOptions(seed=1), GenerationOptions())
    before = body(endpoint, plain)
    covered = {"greedy", "echo", "num_return_sequences"}  # these mean something else here
    place = SERVERS.index(request.node.callspec.params["endpoint"])
    for group in ("sampling", "generation"):
        of_group = getattr(plain, group)
        for item in fields(of_group):
            if item.name in covered:
                continue
            value, names = COMPLETION[item.name]
            given = replace(of_group, **{item.name: value})
            options = replace(plain, **{group: given})
            name = item.name if names[place] == SAME else names[place]
            if name is None:
                with pytest.raises(HftoolError, match=r"does not know --|no log-probabilities"):
                    body(endpoint, options)
                continue
            changed = {k: v for k, v in body(endpoint, options).items() if before.get(k) != v}
            value = 0 if item.name == "logprobs" else value  # no token beside the chosen one
            assert changed == {name: value}, item.name


@pytest.mark.parametrize("kind", CONSTRAINTS)
@pytest.mark.parametrize("chat", [False, True])
def test_every_constraint_is_sent_or_refused(
    kind: Any, chat: bool, endpoint: Endpoint, request: pytest.FixtureRequest
) -> None:
    greedy = GenerateOptions(PromptOptions(), SamplingOptions(greedy=True), GenerationOptions())
    options = replace(greedy, constraint=Constraint(kind, TEXT_OF[kind]))
    name = request.node.callspec.params["endpoint"]
    expected = CONSTRAINTS[kind].get(name, (None, None))[chat]
    if expected is None:
        with pytest.raises(HftoolError, match=f"does not know --{kind}"):
            body(endpoint, options, chat=chat)
        return
    sent = body(endpoint, options, chat=chat)
    assert {k: v for k, v in sent.items() if k not in ("max_tokens", "temperature")} == expected


def test_a_budget_for_thoughts_goes_to_vllms_chats(server: Server) -> None:
    server.owner, server.fields = PUBLISHED["vLLM"]
    vllm = Endpoint(server.address, Client(server.address.partition("#")[0], EndpointOptions()))
    sampling = SamplingOptions(seed=1, think_tokens=9)
    sent = body(vllm, GenerateOptions(PromptOptions(), sampling, GenerationOptions()), chat=True)
    assert sent["thinking_token_budget"] == 9

"""Translate options into the fields of a request; what a server does not know is refused."""

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from hftool.endpoint.server import Endpoint, Path
from hftool.errors import HftoolError, UsageError
from hftool.options.constraints import Constraint
from hftool.options.generation import DEFAULT_MAX_NEW_TOKENS, GenerateOptions, GenerationOptions
from hftool.options.inputs import PromptOptions
from hftool.options.shared import option_name
from hftool.prompting.messages import Chat, Message, with_arguments
from hftool.prompting.prompt import GivenIds, Prompt, chat_of_text
from hftool.tokenization.chat_templates import read_template

FIELDS: Mapping[str, tuple[str, ...]] = {
    "typical_p": ("typical_p", "typ_p"),
    "repetition_penalty": ("repetition_penalty", "repeat_penalty"),
    "min_new_tokens": ("min_tokens",),
    "max_new_tokens": ("max_tokens",),
    "ban": ("bad_words",),
    "think_tokens": ("thinking_token_budget",),
}
"""The fields of requests whose names differ from those of the options; the server knows one."""
SENT = (
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty", "stop"),
    *("no_repeat_ngram_size", "presence_penalty", "frequency_penalty", "max_new_tokens"),
    *("min_new_tokens", "ignore_eos", "top_n_sigma", "xtc_probability", "xtc_threshold"),
    *("dry_multiplier", "dry_base", "dry_allowed_length", "ban", "think_tokens"),
)
"""The options whose values are sent as they are."""
PROMPTING = (
    *("chat", "system", "prefill", "messages", "no_generation_prompt", "special"),
    *("chat_template", "template", "tools", "documents", "template_arg", "think"),
)
"""The options for the prompt that have a place in a request, or an error of their own."""
OWN = ("greedy", "seed", "logprobs", "top_logprobs", "echo", "skip_special", "num_return_sequences")
"""The options that mean something else in a request, or nothing."""
# What `transformers serve` takes as a generation_config.
GENERATION_CONFIG = (
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty"),
    *("no_repeat_ngram_size", "min_new_tokens", "epsilon_cutoff", "eta_cutoff"),
)
_NOT_SENT = ("prompting", "show_probs", "constraint")
"""The fields of `GenerateOptions` that are not sent as options by their names."""
MAX_SEED = 2**31
METACHARACTERS = r"[\\.^$|?*+()\[\]{}]"  # of regular expressions in all dialects


@dataclass(frozen=True)
class RemoteRequest:
    """A request to an endpoint.

    Attributes:
        prompt: what records show of the prompt.
        echo: what to put before the generated text.
        logprobs: how many of the most probable tokens the record has at each step beside the
            chosen one; None if it has no log-probabilities.
        constraint: what the text must look like.
    """

    path: Path
    body: Mapping[str, Any]
    prompt: str
    seed: int | None
    echo: str = ""
    logprobs: int | None = None
    constraint: Constraint | None = None


def remote_request(
    endpoint: Endpoint,
    prompt: Prompt,
    options: GenerateOptions,
    default_tokens: int = DEFAULT_MAX_NEW_TOKENS,
) -> RemoteRequest:
    """Return the request for a prompt.

    Raises:
        HftoolError: the server does not know what an option asks for.
        UsageError: the options exclude each other.
    """
    if isinstance(prompt, GivenIds) or options.prompting.no_parse_special:
        name = "--ids" if isinstance(prompt, GivenIds) else "--no-parse-special"
        raise UsageError(f"{name} does not work with an endpoint, which reads texts")
    if isinstance(prompt, str) and options.prompting.templated:
        prompt = chat_of_text(prompt, options.prompting)
    require_known_prompting(endpoint, options.prompting)
    path: Path = "completions" if isinstance(prompt, str) else "chat/completions"
    seed = _seed(endpoint, path, options)
    body: dict[str, Any] = {"model": endpoint.name}
    if isinstance(prompt, str):
        if not prompt:
            raise HftoolError("the prompt is empty: the model needs at least one token")
        body |= {"prompt": prompt, **_of_text(endpoint, options.prompting)}
    else:
        body |= _of_chat(endpoint, prompt, options.prompting)
    body |= _of_generation(endpoint, path, options, default_tokens)
    if seed is not None:
        body["seed"] = seed
    echo = ""
    if options.generation.echo:
        if not isinstance(prompt, str):
            raise UsageError("--echo with a chat does not work with an endpoint")
        echo = prompt
    return RemoteRequest(
        *(path, body, prompt if isinstance(prompt, str) else prompt.text, seed, echo),
        logprobs=top_logprobs(options.generation),
        constraint=options.constraint,
    )


def top_logprobs(options: GenerationOptions) -> int | None:
    """Return how many tokens to report at each step beside the chosen one, None for no
    log-probabilities."""
    top = options.top_logprobs
    return 0 if top is None and options.logprobs else top


def require_known_prompting(endpoint: Endpoint, options: PromptOptions) -> None:
    """Raise where an option for the prompt was given that has no place in a request.

    Raises:
        HftoolError: with the option.
    """
    for item in fields(options):
        given = getattr(options, item.name) != item.default
        if given and item.name not in PROMPTING:
            raise unknown(endpoint, option_name(options, item.name))


def _seed(endpoint: Endpoint, path: Path, options: GenerateOptions) -> int | None:
    sampling = options.sampling
    if sampling.greedy or sampling.temperature == 0:
        return None
    if not endpoint.knows(path, "seed"):
        if sampling.seed is not None:
            raise unknown(endpoint, "--seed")
        return None
    return random.randrange(MAX_SEED) if sampling.seed is None else sampling.seed


def _of_generation(
    endpoint: Endpoint, path: Path, options: GenerateOptions, default_tokens: int
) -> dict[str, Any]:
    """Return the fields for how the text is chosen, and where it ends."""
    greedy = options.sampling.greedy or options.sampling.temperature == 0
    if "" in (options.generation.stop or ()):
        raise UsageError("a stop text is empty")
    config: dict[str, Any] = {}
    body: dict[str, Any] = {"max_tokens": default_tokens}
    for group, name, value in _given(options):
        if name in OWN:
            continue
        fields_of = [f for f in FIELDS.get(name, (name,)) if endpoint.knows(path, f)]
        if endpoint.kind == "transformers" and name in GENERATION_CONFIG:
            config[name] = value
        elif name not in SENT or not fields_of:
            raise unknown(endpoint, option_name(group, name))
        else:
            body[fields_of[0]] = value
    if endpoint.kind == "transformers":  # without it, the model's own configuration may be greedy
        config = {} if greedy else config
        body["generation_config"] = json.dumps({**config, "do_sample": not greedy})
    elif greedy:
        body["temperature"] = 0
    if options.constraint is not None:
        body |= _of_constraint(endpoint, path, options.constraint)
    body |= _of_logprobs(endpoint, path, options.generation)
    if not options.generation.skip_special:
        body |= _known(endpoint, path, "skip_special_tokens", False, "--keep-special")
    return body


def _of_constraint(endpoint: Endpoint, path: Path, constraint: Constraint) -> dict[str, Any]:
    """Return the field for a constraint, in the form that the server knows."""
    is_text = constraint.kind in ("regex", "grammar")
    value: Any = constraint.text if is_text else json.loads(constraint.text)
    name = "json" if constraint.kind == "schema" else constraint.kind
    if endpoint.knows(path, "structured_outputs"):  # vLLM
        return {"structured_outputs": {name: value}}
    if endpoint.knows(path, f"guided_{name}"):  # its earlier versions
        return {f"guided_{name}": value}
    body: dict[str, Any] | None = None
    if name == "json":
        body = _of_schema(endpoint, path, value)
    elif name == "regex":
        body = _of_regex(endpoint, path, value)
    elif name == "choice" and endpoint.knows(path, "grammar"):
        body = {"grammar": choice_grammar(value)}
    elif name == "choice":
        body = _of_regex(endpoint, path, choice_regex(value))
    if body is None:
        raise unknown(endpoint, f"--{constraint.kind}")
    return body


def _of_schema(endpoint: Endpoint, path: Path, schema: Any) -> dict[str, Any] | None:
    """Return the field for a JSON Schema: TGI's, OpenAI's, llama-cpp-python's, or that of llama.cpp
    and SGLang."""
    formats = endpoint.response_formats(path)
    if formats.get("json") == "value":
        return {"response_format": {"type": "json", "value": schema}}
    if formats.get("json_schema") == "json_schema":
        form = {"name": "text", "schema": schema, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": form}}
    if formats.get("json_object") == "schema":
        return {"response_format": {"type": "json_object", "schema": schema}}
    if endpoint.knows(path, "json_schema"):
        return {"json_schema": schema if endpoint.kind == "llama.cpp" else json.dumps(schema)}
    return None


def _of_regex(endpoint: Endpoint, path: Path, regex: str) -> dict[str, Any] | None:
    """Return the field for a regular expression: SGLang's or TGI's."""
    if endpoint.knows(path, "regex"):
        return {"regex": regex}
    if endpoint.response_formats(path).get("regex") == "value":
        return {"response_format": {"type": "regex", "value": regex}}
    return None


def choice_grammar(texts: Sequence[str]) -> str:
    r"""Return the GBNF grammar of one of several texts: `root ::= "yes" | "no"`."""
    return f"root ::= {' | '.join(map(_gbnf_literal, texts))}"


def _gbnf_literal(text: str) -> str:
    escapes = {'"': '\\"', "\\": "\\\\"}
    shown = (escapes.get(c, c if c.isprintable() else f"\\U{ord(c):08X}") for c in text)
    return f'"{"".join(shown)}"'


def choice_regex(texts: Sequence[str]) -> str:
    """Return the regular expression of one of several texts: `(yes|no)`."""
    escaped = [re.sub(METACHARACTERS, r"\\\g<0>", text) for text in texts]
    return f"({'|'.join(escaped)})"


def _given(options: GenerateOptions) -> Iterator[tuple[Any, str, Any]]:
    """Yield each option that was given, except for those of the prompt: its dataclass, field and
    value."""
    groups = [getattr(options, item.name) for item in fields(options) if item.name not in _NOT_SENT]
    for group in groups:
        for item in fields(group):
            value = getattr(group, item.name)
            if value != item.default and value not in ([], ()):
                yield group, item.name, value


def _of_logprobs(endpoint: Endpoint, path: Path, options: GenerationOptions) -> dict[str, Any]:
    top = top_logprobs(options)
    if top is None:
        return {}
    names = ("logprobs",) if path == "completions" else ("logprobs", "top_logprobs")
    if not all(endpoint.knows(path, name) for name in names):
        raise HftoolError(f"{endpoint.client.server} gives no log-probabilities")
    return {"logprobs": top} if path == "completions" else {"logprobs": True, "top_logprobs": top}


def _of_text(endpoint: Endpoint, options: PromptOptions) -> dict[str, Any]:
    if options.special:
        return {}
    return _known(endpoint, "completions", "add_special_tokens", False, "--no-special")


def _of_chat(endpoint: Endpoint, chat: Chat, options: PromptOptions) -> dict[str, Any]:
    """Return the messages, and what the template gets beside them."""
    path: Path = "chat/completions"
    messages = [wire_message(message) for message in chat.messages]
    body: dict[str, Any] = {"messages": messages}
    if chat.tools:
        raise HftoolError(
            "tools do not work with an endpoint, which answers with calls instead of text"
        )
    if options.template is not None:
        raise unknown(endpoint, "--template")
    if chat.think is not None:
        raise HftoolError(
            f"{endpoint.client.server} has no switch for --think or --no-think",
            "most models have one in their template: --template-arg enable_thinking=false",
        )
    if not options.special:
        raise UsageError("--no-special does not go with a chat")
    if chat.documents:
        body |= _known(endpoint, path, "documents", chat.documents, "--documents")
    if chat.variables:
        variables = dict(chat.variables)
        body |= _known(endpoint, path, "chat_template_kwargs", variables, "--template-arg")
    if options.chat_template is not None:
        template = read_template(options.chat_template)
        body |= _known(endpoint, path, "chat_template", template, "--chat-template")
    if messages[-1].get("role") == "assistant" and chat.answer:
        body |= _known(endpoint, path, "continue_final_message", True, "--prefill")
        if endpoint.knows(path, "add_generation_prompt"):
            body["add_generation_prompt"] = False
    elif not chat.answer:
        name = "add_generation_prompt"
        body |= _known(endpoint, path, name, False, "--no-generation-prompt")
    return body


def wire_message(message: Message) -> Message:
    """Return a message as servers read it: the arguments of tool calls are JSON text."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    return {**message, "tool_calls": [with_arguments(call, _as_json) for call in calls]}


def _as_json(arguments: Any) -> Any:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _known(endpoint: Endpoint, path: Path, field: str, value: Any, name: str) -> dict[str, Any]:
    if not endpoint.knows(path, field):
        raise unknown(endpoint, name)
    return {field: value}


def unknown(endpoint: Endpoint, name: str) -> HftoolError:
    """Return the error that a server does not know what an option asks for."""
    return HftoolError(f"{endpoint.client.server} does not know {name}", "leave it out")

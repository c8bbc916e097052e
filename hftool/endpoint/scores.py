"""Probabilities from an endpoint, where the server gives log-probabilities."""

import logging
import math
from collections.abc import Iterator, Sequence

from hftool.endpoint.answers import Answer, read_answer
from hftool.endpoint.generate import in_order
from hftool.endpoint.parameters import remote_request, unknown
from hftool.endpoint.server import Endpoint
from hftool.errors import HftoolError
from hftool.generation.next_token import Candidate
from hftool.generation.records import TokenLogprob, Usage
from hftool.options.generation import GenerateOptions, GenerationOptions
from hftool.options.inputs import PromptOptions
from hftool.options.sampling import SamplingOptions
from hftool.prompting.prompt import Prompt

log = logging.getLogger("hftool")


def next_tokens(
    endpoint: Endpoint, prompt: Prompt, prompting: PromptOptions, k: int
) -> Iterator[Candidate]:
    """Yield the `k` most probable tokens after a prompt. An endpoint tells no ids and no entropy.

    Raises:
        HftoolError: the server gives no log-probabilities, or fails.
    """
    generation = GenerationOptions(max_new_tokens=1, top_logprobs=k)
    options = GenerateOptions(prompting, SamplingOptions(greedy=True), generation)
    request = remote_request(endpoint, prompt, options)
    answer = read_answer(endpoint.client.post(request.path, request.body))
    best = answer.logprobs[0].top[:k] if answer.logprobs else ()
    if not best:
        raise HftoolError(f"{endpoint.client.server} gives no log-probabilities")
    if len(best) < k:
        log.warning("the server gives only %d of %d tokens", len(best), k)
    position = _usage(endpoint, answer).prompt_tokens - 1
    cumulative = 0.0
    for rank, token in enumerate(best, 1):
        prob = math.exp(token.logprob)
        cumulative = min(1.0, cumulative + prob)
        found = (position, rank, None, token.token, prob, token.logprob, cumulative, None)
        yield Candidate(*found)


def _usage(endpoint: Endpoint, answer: Answer) -> Usage:
    if answer.usage is None:
        raise HftoolError(f"{endpoint.client.server} does not count tokens")
    return answer.usage


def logprobs_of_text(
    endpoint: Endpoint, text: str, given: str = "", *, special: bool = True
) -> list[float]:
    """Return the log-probability of each token of a text after what is given; not of the first
    token, if nothing precedes it.

    Raises:
        HftoolError: the server gives no log-probabilities of a prompt, or fails.
    """
    tokens = _echoed(endpoint, given + text, special=special)
    start = 0
    if given:
        start = len(tokens)
        seen = ""
        while start and len(seen) < len(text):
            start -= 1
            seen = tokens[start].token + seen
        if not seen.endswith(text):
            raise HftoolError(
                f"the tokens of {endpoint.client.server} do not show where the text begins"
            )
    values = [token.logprob for token in tokens[start:]]
    return [value for value in values if not math.isnan(value)]


def _echoed(endpoint: Endpoint, prompt: str, *, special: bool) -> Sequence[TokenLogprob]:
    """Return the tokens of a prompt with their log-probabilities."""
    if not prompt:
        return ()
    for field in ("echo", "logprobs"):
        if not endpoint.knows("completions", field):
            raise HftoolError(
                f"{endpoint.client.server} gives no log-probabilities of a text",
                "vLLM and llama-cpp-python do",
            )
    body = {"model": endpoint.name, "prompt": prompt, "echo": True, "logprobs": 0}
    if not special:
        if not endpoint.knows("completions", "add_special_tokens"):
            raise unknown(endpoint, "--no-special")
        body["add_special_tokens"] = False
    answer = read_answer(
        endpoint.client.post("completions", {**body, "max_tokens": 1, "temperature": 0})
    )
    tokens = answer.logprobs or ()
    count = _usage(endpoint, answer).prompt_tokens
    if not answer.text.startswith(prompt) or not tokens or len(tokens) < count:
        raise HftoolError(f"{endpoint.client.server} does not give the tokens of the prompt")
    if any(math.isnan(token.logprob) for token in tokens[1:count]):
        raise HftoolError(f"{endpoint.client.server} leaves out log-probabilities of the prompt")
    return tokens[:count]


def logprobs_of_texts(
    endpoint: Endpoint, pairs: Sequence[tuple[str, str]], concurrency: int
) -> list[list[float]]:
    """Return `logprobs_of_text` of each pair of a text and what is given.

    Raises: as `logprobs_of_text`.
    """
    return list(in_order(lambda pair: logprobs_of_text(endpoint, *pair), pairs, concurrency))

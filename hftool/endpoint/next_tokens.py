"""The most probable next tokens by an endpoint, where the server gives log-probabilities.

This module imports nothing heavy.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from hftool.endpoint.answers import Answer, read_answer
from hftool.endpoint.parameters import remote_request
from hftool.endpoint.server import Endpoint
from hftool.errors import HftoolError
from hftool.generation.candidates import Candidate
from hftool.generation.records import Usage
from hftool.options.generation import GenerateOptions, GenerationOptions
from hftool.options.inputs import PromptOptions
from hftool.options.sampling import SamplingOptions
from hftool.prompting.prompt import Prompt

log = logging.getLogger("hftool")

MOST_TOTAL = 1.02  # of probabilities: they are rounded, to three digits in bfloat16


def next_token_records(
    endpoint: Endpoint, prompts: Sequence[Prompt], prompting: PromptOptions, k: int
) -> Iterator[Candidate]:
    """Yield the `k` most probable tokens after each prompt.

    Raises: as `next_tokens`.
    """
    for index, prompt in enumerate(prompts):
        for candidate in next_tokens(endpoint, prompt, prompting, k):
            yield replace(candidate, index=index if len(prompts) > 1 else None)


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
    position = usage_of(endpoint, answer).prompt_tokens - 1
    probs = [math.exp(token.logprob) for token in best]
    for rank, (token, prob) in enumerate(zip(best, probs, strict=True), 1):
        cumulative = total_of(probs[:rank])
        found = (position, rank, None, token.token, prob, token.logprob, cumulative, None)
        yield Candidate(*found)


def total_of(probs: Sequence[float]) -> float:
    """Return the sum of some probabilities of a distribution.

    Raises:
        HftoolError: they are of none.
    """
    total = math.fsum(probs)
    if total > MOST_TOTAL:
        raise HftoolError(f"the probabilities that the server gives add up to {total:.4f}")
    return min(1.0, total)


def usage_of(endpoint: Endpoint, answer: Answer) -> Usage:
    """Return how many tokens an answer has.

    Raises:
        HftoolError: the server does not say.
    """
    if answer.usage is None:
        raise HftoolError(f"{endpoint.client.server} does not count tokens")
    return answer.usage

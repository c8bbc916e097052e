"""The steps of a text that an endpoint generates, with the best tokens of each."""

import logging
import math
from collections.abc import Iterator

from hftool.endpoint.answers import read_answer, with_reasoning
from hftool.endpoint.next_tokens import total_of
from hftool.endpoint.parameters import RemoteRequest
from hftool.endpoint.server import Endpoint
from hftool.errors import HftoolError
from hftool.generation.candidates import Step, StepCandidate
from hftool.generation.records import TokenLogprob

log = logging.getLogger("hftool")

LONGEST_CHARACTER = 4  # tokens, each with a byte of it: their texts are not that of the character


def steps(endpoint: Endpoint, request: RemoteRequest) -> Iterator[Step]:
    """Yield the steps of a text, which the server generates in one go.

    Raises:
        HftoolError: the server gives no log-probabilities, or fails.
    """
    answer = read_answer(endpoint.client.post(request.path, request.body))
    if not answer.logprobs or any(math.isnan(token.logprob) for token in answer.logprobs):
        raise HftoolError(f"{endpoint.client.server} gives no log-probabilities")
    fewest = min(len(token.top) for token in answer.logprobs)
    if fewest < (request.logprobs or 0):
        log.warning("the server gives only %d of %d tokens", fewest, request.logprobs)
    whole, end = with_reasoning([answer]), 0
    for number, token in enumerate(answer.logprobs, 1):
        end = _end_of(token.token, whole, end)
        yield _step(number, token, whole[:end], request.logprobs or 0)


def _step(number: int, chosen: TokenLogprob, text: str, k: int) -> Step:
    """Return a step: the `k` best tokens, then the chosen one if it is not among them."""
    best = [(each.token, math.exp(each.logprob)) for each in chosen.top[:k]]
    prob = math.exp(chosen.logprob)
    ranks = {token: rank for rank, (token, _) in reversed([*enumerate(best, 1)])}
    rank = ranks.get(chosen.token)
    listed: list[tuple[int | None, str, float]] = [(i, *each) for i, each in enumerate(best, 1)]
    if rank is None:
        listed.append((None, chosen.token, prob))
    total = total_of([each for _, _, each in listed])
    return Step(
        *(number, None, chosen.token, prob, None, None, rank, None, None, None, None, text),
        candidates=tuple(
            StepCandidate(rank, None, token, each, {}, None, None, None)
            for rank, token, each in listed
        ),
        unseen=1.0 - total,
    )


def _end_of(token: str, text: str, start: int) -> int:
    """Return where a token ends in a text of which `start` characters are before it: at the start
    if it is a part of a character, or has no text."""
    found = text.find(token, start, start + len(token) + LONGEST_CHARACTER)
    return start if found < 0 else found + len(token)

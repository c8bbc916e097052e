"""Scores of texts by an endpoint, where the server gives their log-probabilities."""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile

from hftool.endpoint.answers import read_answer
from hftool.endpoint.in_order import in_order
from hftool.endpoint.next_tokens import usage_of
from hftool.endpoint.parameters import unknown
from hftool.endpoint.server import Endpoint
from hftool.errors import HftoolError
from hftool.generation.records import TokenLogprob
from hftool.generation.scored_sequences import text_in
from hftool.generation.scoring import TextScore, text_score
from hftool.inputs.row_errors import stopping_error
from hftool.inputs.tables import TextRow
from hftool.options.output import OnError
from hftool.options.score import ScoreOptions

log = logging.getLogger("hftool")

PROBES = ("One, two, three, four,", "The capital of France is", "a b c d e f g", "1 + 1 =")
TOLERANCE = 0.5  # between two computations of a log-probability, in the lowest precision


def require_right_logprobs(endpoint: Endpoint) -> None:
    """Raise where a server gives other log-probabilities for the tokens of a prompt than when it
    chose them, as llama-cpp-python 0.3.36 does.

    Raises:
        HftoolError: it does; or the server gives none, or fails.
    """
    if not endpoint.knows("completions", "logprobs"):
        raise no_logprobs(endpoint)
    for prompt in PROBES:
        body = {"model": endpoint.name, "prompt": prompt, "max_tokens": 3, "temperature": 0}
        answer = read_answer(endpoint.client.post("completions", {**body, "logprobs": 1}))
        chosen = list(takewhile(lambda token: token.token.isascii(), answer.logprobs or ()))
        text = "".join(token.token for token in chosen)
        if not text or not answer.text.startswith(text):
            continue  # a token that ends the text, or a part of a character
        echoed = _echoed(endpoint, prompt + text, special=True)[-len(chosen) :]
        if [token.token for token in echoed] == [token.token for token in chosen]:
            differences = map(lambda a, b: abs(a.logprob - b.logprob), echoed, chosen)
            if max(differences) <= TOLERANCE:
                return
            raise HftoolError(
                f"{endpoint.client.server} gives wrong log-probabilities for the tokens of a"
                " prompt: other ones than when it chose them"
            )


def no_logprobs(endpoint: Endpoint) -> HftoolError:
    """Return the error that a server does not tell the log-probabilities of a text."""
    return HftoolError(
        f"{endpoint.client.server} gives no log-probabilities of a text", "vLLM does"
    )


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
            raise no_logprobs(endpoint)
    body = {"model": endpoint.name, "prompt": prompt, "echo": True, "logprobs": 1}
    if not special:
        if not endpoint.knows("completions", "add_special_tokens"):
            raise unknown(endpoint, "--no-special")
        body["add_special_tokens"] = False
    answer = read_answer(
        endpoint.client.post("completions", {**body, "max_tokens": 1, "temperature": 0})
    )
    tokens = answer.logprobs or ()
    count = usage_of(endpoint, answer).prompt_tokens
    if not answer.text.startswith(prompt) or not tokens or len(tokens) < count:
        raise HftoolError(f"{endpoint.client.server} does not give the tokens of the prompt")
    if any(math.isnan(token.logprob) for token in tokens[1:count]):
        raise HftoolError(f"{endpoint.client.server} leaves out log-probabilities of the prompt")
    return tokens[:count]


def score_texts(
    endpoint: Endpoint,
    rows: Iterable[TextRow],
    options: ScoreOptions,
    *,
    special: bool,
    concurrency: int,
    on_error: OnError = "stop",
    first_index: int = 0,
) -> Iterator[TextScore]:
    """Yield the score of each row's text, in order.

    Args:
        special: whether the server adds special tokens.
        first_index: the index of the first row's text.

    Raises:
        HftoolError: a text fails, and `on_error` is "stop". What precedes it was yielded.
    """

    def scored(row: TextRow) -> tuple[TextRow, list[float] | HftoolError]:
        if isinstance(row.error, HftoolError):
            return row, row.error
        try:
            column = options.given_column
            given = (options.given or "") if column is None else text_in(row, column)
            return row, logprobs_of_text(endpoint, row.text, given, special=special)
        except HftoolError as error:
            return row, error

    for index, (row, result) in enumerate(in_order(scored, rows, concurrency), first_index):
        if not isinstance(result, HftoolError):
            yield text_score(index, row, result)
        elif on_error == "stop":
            raise stopping_error(row, result, first=index == first_index)
        else:
            error = row.located(result).message
            yield TextScore(index, row.text, 0, None, None, None, None, row.columns, error)


def logprobs_of_texts(
    endpoint: Endpoint, pairs: Sequence[tuple[str, str]], concurrency: int
) -> list[list[float]]:
    """Return `logprobs_of_text` of each pair of a text and what is given.

    Raises: as `logprobs_of_text`.
    """
    return list(in_order(lambda pair: logprobs_of_text(endpoint, *pair), pairs, concurrency))

"""Generate texts at an endpoint: one as it comes, or many side by side."""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from hftool.endpoint.answers import Answer, read_answer, with_reasoning
from hftool.endpoint.in_order import in_order
from hftool.endpoint.parameters import RemoteRequest, remote_request
from hftool.endpoint.server import Endpoint
from hftool.errors import HftoolError, UsageError
from hftool.generation.batch_file import BatchLine, each_record, read_record
from hftool.generation.records import FailedRequest, FinishReason, Generation, Piece, TokenLogprob
from hftool.options.constraints import Constraint
from hftool.options.generation import GenerateOptions
from hftool.options.inputs import FileOptions
from hftool.prompting.prompt import Prompt
from hftool.prompting.reasoning import ReasoningSplitter, split_reasoning

log = logging.getLogger("hftool")


def complete(endpoint: Endpoint, request: RemoteRequest) -> Generation:
    """Return the text that continues a prompt.

    Raises:
        HftoolError: the server can't be reached, or answers with an error or something strange.
    """
    began = time.perf_counter()
    answer = read_answer(endpoint.client.post(request.path, request.body))
    return _generation(request, [answer], began)


def stream(endpoint: Endpoint, request: RemoteRequest) -> Iterator[Piece | Generation]:
    """Yield the pieces of the text that continues a prompt as they come, then the record.

    Raises:
        HftoolError: as `complete`, or the stream ends before the text.
    """
    began = time.perf_counter()
    body = {**request.body, "stream": True}
    if endpoint.knows(request.path, "stream_options"):
        body["stream_options"] = {"include_usage": True}
    answers: list[Answer] = []
    pieces = _splitting(request)
    if request.echo:
        yield Piece(request.echo)
    shown = len(request.echo)
    for event in endpoint.client.stream(request.path, body):
        answers.append(read_answer(event))
        if answers[-1].reasoning:
            continue  # shown with the text's first piece: only then is the reasoning complete
        text = request.echo + with_reasoning(answers)
        if len(text) > shown:
            yield from pieces(text[shown:])
            shown = len(text)
    yield from pieces("", last=True)
    yield _generation(request, answers, began)


def _splitting(request: RemoteRequest) -> Callable[..., Iterator[Piece]]:
    """Return a function that makes pieces of texts: of an answer, with its reasoning apart."""
    splitter = ReasoningSplitter(opened=False)

    def pieces(text: str, *, last: bool = False) -> Iterator[Piece]:
        if request.path == "completions":
            yield from [Piece(text)] if text else []
            return
        parts = [*splitter.parts(text)] if text else []
        for part, is_reasoning in [*parts, *(splitter.rest() if last else ())]:
            yield Piece(part, is_reasoning=is_reasoning)

    return pieces


def _generation(request: RemoteRequest, answers: Sequence[Answer], began: float) -> Generation:
    seconds = time.perf_counter() - began
    end = next((answer for answer in reversed(answers) if answer.reason), None)
    if end is None:
        raise HftoolError("the server's answer ends before the text: it gives no finish_reason")
    usage = next((answer.usage for answer in reversed(answers) if answer.usage), None)
    logprobs = [token for answer in answers for token in answer.logprobs or ()]
    if request.logprobs is not None and all(answer.logprobs is None for answer in answers):
        raise HftoolError("the server gives no log-probabilities", "leave out --logprobs")
    assert end.reason is not None
    text, reasoning = with_reasoning(answers), None
    if request.path == "chat/completions":
        reasoning, text = split_reasoning(text, opened=False)
    return Generation(
        index=0,
        prompt=request.prompt,
        text=request.echo + text,
        reasoning=reasoning,
        finish_reason=end.reason,
        stop=end.stop,
        usage=usage,
        seed=request.seed,
        seconds=seconds,
        tokens_per_second=usage.completion_tokens / seconds if usage and seconds else None,
        logprobs=_cut(logprobs, request.logprobs),
        valid=_satisfies(text, end.reason, request.constraint),
    )


def _satisfies(text: str, reason: FinishReason, constraint: Constraint | None) -> bool | None:
    """Return whether a text satisfies its constraint, as far as can be seen here: it is complete,
    and JSON or one of the texts where it has to be."""
    if constraint is None:
        return None
    if constraint.kind == "choice":
        return text in json.loads(constraint.text)
    if constraint.kind == "schema":
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return False
    return reason == "stop"


def _cut(logprobs: Sequence[TokenLogprob], top: int | None) -> tuple[TokenLogprob, ...] | None:
    """Return log-probabilities with the `top` best tokens: some servers add the chosen one."""
    if top is None:
        return None
    return tuple(replace(token, top=token.top[:top]) for token in logprobs)


def generate_prompts(
    endpoint: Endpoint,
    prompts: Iterable[Prompt],
    options: GenerateOptions,
    concurrency: int,
    *,
    streamed: bool,
    lines: bool,
) -> Iterator[Piece | Generation | FailedRequest]:
    """Continue prompts: one in pieces as they come, several side by side, their records in order.

    Args:
        streamed: yield pieces where there is one text to generate; otherwise only records.
        lines: the prompts are the lines of an input; one that fails yields a record with the cause.

    Raises:
        HftoolError: without `lines`, a request fails.
        UsageError: the options exclude each other.
    """
    copies = options.generation.num_return_sequences or 1
    if copies > 1 and (options.sampling.greedy or options.sampling.temperature == 0):
        raise UsageError("greedy decoding would give the same text each time")
    if not lines and copies == 1 and streamed:
        for prompt in prompts:
            yield from stream(endpoint, remote_request(endpoint, prompt, options))
        return

    def answered(item: tuple[int, Prompt]) -> list[Generation] | FailedRequest:
        number, prompt = item
        try:
            first = remote_request(endpoint, prompt, options)
            return [complete(endpoint, request) for request in _copies(first, copies)]
        except UsageError:
            raise
        except HftoolError as error:
            if not lines:
                raise
            return FailedRequest(None, number, error.message)

    for number, made in enumerate(in_order(answered, enumerate(prompts, 1), concurrency)):
        if isinstance(made, FailedRequest):
            yield made
            log.warning("line %d: %s", made.line, made.error)
            continue
        for copy, record in enumerate(made):
            yield replace(record, index=number * copies + copy)


def _copies(request: RemoteRequest, count: int) -> Iterator[RemoteRequest]:
    """Yield a request several times, with seeds that count up."""
    for number in range(count):
        seed = None if request.seed is None else request.seed + number
        body = request.body if seed is None else {**request.body, "seed": seed}
        yield replace(request, seed=seed, body=body)


def generate_batch(
    endpoint: Endpoint,
    lines: Iterable[BatchLine],
    files: FileOptions,
    options: GenerateOptions,
    concurrency: int,
) -> Iterator[Generation | FailedRequest]:
    """Yield a record for each record of a batch file, in order; for one that fails, the cause."""
    one = replace(options, generation=replace(options.generation, num_return_sequences=1))

    def answered(line: BatchLine) -> Generation | FailedRequest:
        (made,) = each_record(
            [line], files, lambda record: remote_request(endpoint, *read_record(record, one))
        )
        if isinstance(made, FailedRequest):
            return made
        _, given_id, request = made
        try:
            return replace(complete(endpoint, request), index=line.index, id=given_id)
        except HftoolError as error:
            return FailedRequest(given_id, line.number, error.message)

    return in_order(answered, lines, concurrency)

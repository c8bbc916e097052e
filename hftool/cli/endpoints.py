"""Commands whose model is behind an endpoint."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from hftool.options.inputs import PromptOptions
from hftool.options.model import LoadOptions
from hftool.options.output import PictureOptions, ResumableOptions, TableOptions
from hftool.options.score import ScoreOptions

if TYPE_CHECKING:
    from hftool.generation.records import FailedRequest, Generation, Piece
    from hftool.generation.scoring import TextScore
    from hftool.inputs.tables import TextRow
    from hftool.options.generation import GenerateOptions
    from hftool.prompting.prompt import Prompt


def events_at(
    address: str,
    load: LoadOptions,
    prompts: "Iterator[Prompt]",
    options: "GenerateOptions",
    output: ResumableOptions,
    concurrency: int,
    *,
    stream: bool,
    lines: bool,
) -> "Iterator[Piece | Generation | FailedRequest]":
    """Return what `generate` writes for prompts."""
    from hftool.endpoint.generate import generate_prompts
    from hftool.endpoint.server import connect
    from hftool.output.formats import format_name
    from hftool.output.views.generation import GENERATION

    # Records need no pieces, and of a whole text a server counts the tokens.
    streamed = stream and format_name(output, GENERATION) in ("text", "table")
    endpoint = connect(address, load, concurrency)
    return generate_prompts(endpoint, prompts, options, concurrency, streamed=streamed, lines=lines)


def remote_scores(
    address: str,
    load: LoadOptions,
    prompting: PromptOptions,
    scoring: ScoreOptions,
    output: TableOptions,
    concurrency: int,
) -> "Callable[[Iterator[TextRow], int], Iterator[TextScore]]":
    """Return what scores the texts of rows for `score`, given how many texts are done."""
    from hftool.endpoint.parameters import require_known_prompting
    from hftool.endpoint.scores import require_right_logprobs, score_texts
    from hftool.endpoint.server import connect, refuse

    shown = {"--by token": scoring.by == "token", "--by word": scoring.by == "word"}
    refuse({**shown, "--stride": scoring.stride, "--batch-size": scoring.batch_size})
    refuse({"a chat": prompting.templated, "--against": scoring.against})
    endpoint = connect(address, load, concurrency)
    require_known_prompting(endpoint, prompting)
    require_right_logprobs(endpoint)

    def compute(rows: "Iterator[TextRow]", done: int) -> "Iterator[TextScore]":
        return score_texts(
            *(endpoint, rows, scoring),
            special=prompting.special,
            concurrency=concurrency,
            on_error=output.on_error,
            first_index=done,
        )

    return compute


def write_steps_at(
    address: str,
    load: LoadOptions,
    prompt: "Prompt",
    options: "GenerateOptions",
    output: PictureOptions,
) -> None:
    """Run `sample`: the server draws, and shows the best tokens of each step."""
    from hftool.endpoint.parameters import remote_request
    from hftool.endpoint.server import connect
    from hftool.endpoint.steps import steps
    from hftool.output.views.generation import steps_view
    from hftool.output.writer import write

    endpoint = connect(address, load)
    request = remote_request(endpoint, prompt, options)
    view = steps_view(request.prompt, remote=True, show_probs=options.show_probs)
    write(steps(endpoint, request), view, output)

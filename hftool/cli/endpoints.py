"""Commands whose model is behind an endpoint."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hftool.options.model import LoadOptions
from hftool.options.output import PictureOptions, ResumableOptions

if TYPE_CHECKING:
    from hftool.generation.records import FailedRequest, Generation, Piece
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

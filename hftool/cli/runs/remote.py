"""Runs whose model is behind an endpoint; nothing here imports torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hftool.options.constraints import Constraint
from hftool.options.inputs import PromptOptions
from hftool.options.model import LoadOptions
from hftool.options.output import PictureOptions
from hftool.options.sample import StepOptions
from hftool.options.sampling import FilterOptions, SamplingOptions
from hftool.options.topk import NextTokenOptions

if TYPE_CHECKING:
    from hftool.prompting.prompt import Prompt


def write_steps_at(
    address: str,
    load: LoadOptions,
    prompt: "Prompt",
    prompting: PromptOptions,
    sampling: SamplingOptions,
    constraint: Constraint | None,
    stepping: StepOptions,
    output: PictureOptions,
) -> None:
    """Run `sample`: the server draws, and shows the best tokens of each step."""
    from hftool.endpoint.parameters import remote_request
    from hftool.endpoint.server import connect
    from hftool.endpoint.steps import steps
    from hftool.options.generation import DEFAULT_STEPS, GenerateOptions, GenerationOptions
    from hftool.output.views.generation import steps_view
    from hftool.output.writer import write

    most = stepping.steps or DEFAULT_STEPS
    generation = GenerationOptions(max_new_tokens=most, top_logprobs=stepping.k)
    options = GenerateOptions(prompting, sampling, generation, stepping.show_probs, constraint)
    endpoint = connect(address, load)
    request = remote_request(endpoint, prompt, options)
    view = steps_view(request.prompt, remote=True, show_probs=options.show_probs)
    write(steps(endpoint, request), view, output)


def write_next_tokens_at(
    address: str,
    load: LoadOptions,
    texts: "Sequence[Prompt]",
    prompting: PromptOptions,
    query: NextTokenOptions,
    filtering: FilterOptions,
    output: PictureOptions,
) -> None:
    """Run `topk`: the server gives the best tokens.

    Raises:
        UsageError: an option that no server knows.
        HftoolError: the server can't be reached, or gives no log-probabilities.
    """
    from hftool.endpoint.next_tokens import next_token_records
    from hftool.endpoint.server import connect, refuse
    from hftool.output.views.next_tokens import next_token_view
    from hftool.output.writer import write

    options = {"--target": query.target, "--position": query.position, "--compare": query.compare}
    refuse({**options, "--layers": query.layers, "--attention": query.attention})
    refuse({"a sampling option": filtering != FilterOptions(), "a page": query.wants_page(output)})
    records = next_token_records(connect(address, load), texts, prompting, query.k)
    several = len(texts) > 1
    view = next_token_view(
        everywhere=False, sampled=False, targets=False, models=False, texts=several
    )
    write(records, view, output)

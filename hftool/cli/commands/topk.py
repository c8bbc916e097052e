"""`hftool topk`"""

from dataclasses import asdict
from typing import Annotated

import typer

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.options.generation import FilterOptions, SamplingOptions
from hftool.options.inputs import InputOptions, PromptOptions, TextArgument
from hftool.options.model import TopkLoadOptions
from hftool.options.output import PictureOptions


@expand_dataclasses
def topk(
    prompt: TextArgument = None,
    *,
    load: TopkLoadOptions,
    inputs: InputOptions,
    prompting: PromptOptions,
    k: Annotated[
        int, typer.Option("-k", "--k", metavar="N", min=1, help="How many tokens to show.")
    ] = 10,
    token: Annotated[
        list[str] | None,
        typer.Option(
            "--token", metavar="TEXT", help="Also this token or continuation (repeatable)."
        ),
    ] = None,
    position: Annotated[
        str | None,
        typer.Option(metavar="N|all", help="After token N; all: each token of the prompt, scored."),
    ] = None,
    filtering: FilterOptions,
    compare: Annotated[
        str | None, typer.Option(metavar="REF2,REF3", help="Ask these models as well.")
    ] = None,
    output: PictureOptions,
) -> None:
    """Show the most probable next tokens.

    A sampling option adds the probability after the filters beside the model's own.

    Examples:
        hftool topk "The capital of France is"
        # How probable is this, wherever it stands
        hftool topk "The capital of France is" -k 3 --token " London"
        # Each token of the text with its surprisal
        hftool topk "The cat sat on the mat." --position all --save heat-map.html
        # What is left after the filters
        hftool topk "1+1=" -k 5 --top-p 0.9 --temperature 0.5
    """
    from hftool.errors import exclude
    from hftool.generation.next_token import NextTokenQuery, next_token_records
    from hftool.inputs.texts import texts
    from hftool.output.views.tokens import next_token_view
    from hftool.output.writer import write

    exclude({"--position all": position == "all", "--token": bool(token)})
    prompts = list(texts(prompt, inputs))
    sampled = filtering != FilterOptions()
    sampling = SamplingOptions(**asdict(filtering), seed=0) if sampled else None
    query = NextTokenQuery(k, tuple(token or ()), position, sampling)
    models = [load.model, *(compare.split(",") if compare else ())]
    view = next_token_view(
        scored=position == "all", sampled=sampled, models=len(models) > 1, texts=len(prompts) > 1
    )
    write(next_token_records(load, models, prompts, prompting, query), view, output)

"""`hftool topk`"""

from dataclasses import asdict
from typing import Annotated

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.options.inputs import InputOptions, PromptOptions, TextArgument
from hftool.options.model import ExactLoadOptions
from hftool.options.output import PictureOptions
from hftool.options.sampling import FilterOptions, SamplingOptions
from hftool.options.shared import option


@expand_dataclasses
def topk(
    prompt: TextArgument = None,
    *,
    load: ExactLoadOptions,
    inputs: InputOptions,
    prompting: PromptOptions,
    k: Annotated[
        int, option("-k", "--k", metavar="N", min=1, help="Number of tokens to show.")
    ] = 10,
    target: Annotated[
        list[str] | None,
        option(
            "--target", metavar="TEXT", help="Also show this token or continuation (repeatable)."
        ),
    ] = None,
    position: Annotated[
        str | None,
        option(
            "--position",
            metavar="N|all",
            show_default="after the last token",
            help="Predict after token N, or after each token of the text.",
        ),
    ] = None,
    filtering: FilterOptions,
    compare: Annotated[
        str | None, option("--compare", metavar="REF2,REF3", help="Also query these models.")
    ] = None,
    output: PictureOptions,
) -> None:
    """Show the most probable next tokens.

    With a sampling option, also show each token's probability after the filters.

    Examples:
        hftool topk "The capital of France is"
        # Also the probability of a certain token, whatever its rank
        hftool topk "The capital of France is" -k 3 --target " London"
        # The best tokens after each token of the text
        hftool topk "The cat sat on the mat." --position all -k 3
        # The probabilities after the filters
        hftool topk "1+1=" -k 5 --top-p 0.9 --temperature 0.5
    """
    from hftool.generation.next_token import NextTokenQuery, next_token_records
    from hftool.output.views.tokens import next_token_view
    from hftool.output.writer import write
    from hftool.prompting.prompt import prompts

    given = list(prompts(prompt, inputs, prompting))
    sampled = filtering != FilterOptions()
    sampling = SamplingOptions(**asdict(filtering), seed=0) if sampled else None
    query = NextTokenQuery(k, tuple(target or ()), position, sampling)
    models = [load.model, *(compare.split(",") if compare else ())]
    view = next_token_view(
        everywhere=position == "all",
        sampled=sampled,
        models=len(models) > 1,
        texts=len(given) > 1,
        targets=bool(target),
    )
    write(next_token_records(load, models, given, prompting, query), view, output)

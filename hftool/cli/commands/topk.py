"""`hftool topk`"""

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.options.inputs import InputOptions, PromptOptions, TextArgument
from hftool.options.model import ExactLoadOptions
from hftool.options.output import PictureOptions
from hftool.options.sampling import FilterOptions, SamplingOptions
from hftool.options.shared import option

if TYPE_CHECKING:
    from hftool.prompting.prompt import Prompt


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
    layers: Annotated[
        bool,
        option("--layers", help="Show what each layer of the model would predict."),
    ] = False,
    attention: Annotated[
        bool,
        option("--attention", help="Show which tokens the model's heads look at (with --save)."),
    ] = False,
    filtering: FilterOptions,
    compare: Annotated[
        str | None, option("--compare", metavar="REF2,REF3", help="Also query these models.")
    ] = None,
    output: PictureOptions,
) -> None:
    """Show the most probable next tokens.

    With a sampling option, also show each token's probability after the filters.

    Examples:
        # The best tokens, and the probability of a certain one, whatever its rank
        hftool topk "The capital of France is" -k 3 --target " London"
        # What each layer of the model would predict
        hftool topk "The capital of France is" --layers
        # Which tokens the heads of the model look at
        hftool topk "The animal didn't cross the street" --attention --save heads.html
        # A page with sliders for the filters
        hftool topk "Once upon a time" --save next.html
    """
    from hftool.errors import exclude
    from hftool.models.references import endpoint_address
    from hftool.output.views.layers import layers_view
    from hftool.output.views.next_tokens import next_token_view
    from hftool.output.writer import write
    from hftool.prompting.prompt import prompts

    everywhere, sampled = position == "all", filtering != FilterOptions()
    for name, inside in {"--layers": layers, "--attention": attention}.items():
        exclude({name: inside, "--position all": everywhere})
        exclude({name: inside, "a sampling option": sampled})
    given = list(prompts(prompt, inputs, prompting))
    sampling = SamplingOptions(**asdict(filtering), seed=0) if sampled else None
    page = not everywhere and output.save is not None and output.save.suffix == ".html"
    models = [load.model, *(compare.split(",") if compare else ())]
    several = {"models": len(models) > 1, "texts": len(given) > 1}
    if address := endpoint_address(load.model):
        from hftool.endpoint import next_tokens
        from hftool.endpoint.server import connect, refuse

        others = {"--target": target, "--position": position, "--compare": compare}
        refuse({**others, "--layers": layers, "--attention": attention})
        refuse({"a sampling option": sampled, "a page": page})
        found = next_tokens.next_token_records(connect(address, load), given, prompting, k)
        write(
            found,
            next_token_view(everywhere=False, sampled=False, targets=False, **several),
            output,
        )
        return
    from hftool.generation.next_token import NextTokenQuery, answers, next_token_records

    query = NextTokenQuery(k, tuple(target or ()), position, sampling, page)
    if attention:
        exclude({"--attention": True, "--layers": layers})
        exclude({"--attention": True, "--target": bool(target)})
        exclude({"--attention": True, "--compare": compare is not None})
        exclude({"--attention": True, "several texts": len(given) != 1})
        _write_attention(load, given[0], prompting, position, k, output)
        return
    if layers:
        from hftool.generation.layers import layers_of_prompt

        answer = partial(layers_of_prompt, query=query)
        records = answers(load, models, given, prompting, answer, fast=False)
        write(records, layers_view(**several), output)
        return
    view = next_token_view(everywhere=everywhere, sampled=sampled, targets=bool(target), **several)
    write(next_token_records(load, models, given, prompting, query), view, output)


def _write_attention(
    load: ExactLoadOptions,
    prompt: "Prompt",
    prompting: PromptOptions,
    position: str | None,
    k: int,
    output: PictureOptions,
) -> None:
    from hftool.generation.attention import attention_of_prompt, heads
    from hftool.output.views.attention import attention_view
    from hftool.output.writer import write

    maps = attention_of_prompt(load, prompt, prompting, position)
    write(heads(maps), attention_view(load.model, maps, k), output)

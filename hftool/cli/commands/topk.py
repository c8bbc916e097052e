"""`hftool topk`"""

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.options.inputs import InputOptions, PromptOptions, TextArgument
from hftool.options.model import ExactLoadOptions
from hftool.options.output import PictureOptions
from hftool.options.sampling import FilterOptions
from hftool.options.topk import NextTokenOptions


@expand_dataclasses
def topk(
    prompt: TextArgument = None,
    *,
    load: ExactLoadOptions,
    inputs: InputOptions,
    prompting: PromptOptions,
    query: NextTokenOptions,
    filtering: FilterOptions,
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
    from hftool.prompting.prompt import prompts

    for name, given in {"--layers": query.layers, "--attention": query.attention}.items():
        exclude({name: given, "a sampling option": filtering != FilterOptions()})
    texts = list(prompts(prompt, inputs, prompting))
    how = (prompting, query, filtering, output)
    if address := endpoint_address(load.model):
        from hftool.cli.runs.remote import write_next_tokens_at

        write_next_tokens_at(address, load, texts, *how)
    else:
        from hftool.cli.runs.topk import write_next_tokens

        write_next_tokens(load, texts, *how)

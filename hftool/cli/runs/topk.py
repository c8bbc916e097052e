"""Show a model's next tokens, what its layers would predict, or what its heads look at."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from hftool.errors import exclude
from hftool.generation.attention import attention_of_prompt, heads
from hftool.generation.layers import layers_of_prompt
from hftool.generation.next_token import NextTokenQuery, answers, next_token_records
from hftool.options.inputs import PromptOptions
from hftool.options.model import ExactLoadOptions
from hftool.options.output import PictureOptions
from hftool.options.sampling import FilterOptions, SamplingOptions
from hftool.options.topk import NextTokenOptions
from hftool.output.views.attention import attention_view
from hftool.output.views.layers import layers_view
from hftool.output.views.next_tokens import next_token_view
from hftool.output.writer import write
from hftool.prompting.prompt import Prompt


def write_next_tokens(
    load: ExactLoadOptions,
    texts: Sequence[Prompt],
    prompting: PromptOptions,
    options: NextTokenOptions,
    filtering: FilterOptions,
    output: PictureOptions,
) -> None:
    """Write what the options ask for about each text, by each model.

    Raises:
        HftoolError: a model can't be loaded, or a text does not fit its context.
        UsageError: a text does not have the position, or the model no answer of this kind.
    """
    if options.attention:
        exclude({"--attention": True, "several texts": len(texts) != 1})
        _write_attention(load, texts[0], prompting, options, output)
        return
    sampled = filtering != FilterOptions()
    sampling = SamplingOptions(**asdict(filtering), seed=0) if sampled else None
    wanted, page = tuple(options.target or ()), options.wants_page(output)
    query = NextTokenQuery(options.k, wanted, options.position, sampling, page)
    models = [load.model, *(options.compare.split(",") if options.compare else ())]
    several = {"models": len(models) > 1, "texts": len(texts) > 1}
    if options.layers:
        answer = partial(layers_of_prompt, query=query)
        records = answers(load, models, texts, prompting, answer, fast=False)
        write(records, layers_view(**several), output)
        return
    everywhere = options.everywhere
    view = next_token_view(everywhere=everywhere, sampled=sampled, targets=bool(wanted), **several)
    write(next_token_records(load, models, texts, prompting, query), view, output)


def _write_attention(
    load: ExactLoadOptions,
    prompt: Prompt,
    prompting: PromptOptions,
    options: NextTokenOptions,
    output: PictureOptions,
) -> None:
    maps = attention_of_prompt(load, prompt, prompting, options.position)
    write(heads(maps), attention_view(load.model, maps, options.k), output)

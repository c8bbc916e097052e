"""`hftool tree`"""

from dataclasses import asdict

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.options.inputs import FileOptions, PromptOptions, TextArgument
from hftool.options.model import ExactLoadOptions
from hftool.options.output import PictureOptions
from hftool.options.sampling import FilterOptions, SamplingOptions
from hftool.options.tree import TreeOptions


@expand_dataclasses
def tree(
    prompt: TextArgument = None,
    *,
    load: ExactLoadOptions,
    inputs: FileOptions,
    prompting: PromptOptions,
    growth: TreeOptions,
    filtering: FilterOptions,
    output: PictureOptions,
) -> None:
    """Show the most probable continuations as a tree.

    Each token has its probability, and that of the path to it.

    Examples:
        hftool tree "The capital of France is" --depth 3 --save tree.html
        # The most probable paths, until they have half of all probability
        hftool tree "1+1=" --depth 2 --branch 20 --cover 0.5
        # How probable each sentence is
        hftool tree "The capital of France is" --until "." --cover 0.55
    """
    from hftool.generation.tree import tree_records
    from hftool.models.load import load_language_model
    from hftool.output.views.tree import tree_view
    from hftool.output.writer import write
    from hftool.prompting.prompt import prompt_ids, prompt_text, prompts

    [given] = prompts(prompt, inputs, prompting)
    language_model = load_language_model(load)
    ids = prompt_ids(language_model.tokenizer, given, prompting)
    sampled = filtering != FilterOptions()
    sampling = SamplingOptions(**asdict(filtering), seed=0) if sampled else None
    view = tree_view(
        prompt_text(given, language_model.tokenizer), depth=growth.depth, sampled=sampled
    )
    write(tree_records(language_model, ids, growth, sampling), view, output)

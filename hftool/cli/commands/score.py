"""`hftool score`"""

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.options.endpoint import DEFAULT_CONCURRENCY, ConcurrencyOption
from hftool.options.engine import EngineOptions
from hftool.options.inputs import PromptOptions, TableInputOptions, TextsArgument
from hftool.options.model import ExactLoadOptions
from hftool.options.output import TableOptions
from hftool.options.score import ScoreOptions


@expand_dataclasses
def score(
    text: TextsArgument = None,
    *,
    load: ExactLoadOptions,
    inputs: TableInputOptions,
    prompting: PromptOptions,
    scoring: ScoreOptions,
    concurrency: ConcurrencyOption = DEFAULT_CONCURRENCY,
    engine: EngineOptions,
    output: TableOptions,
) -> None:
    """Measure how probable texts are to a language model.

    Each line of output is a text's surprisal in bits, its perplexity, and the text. A masked model
    gives the pseudo-log-likelihood.

    Examples:
        hftool score "The cat sat on the mat."
        # An answer, after a question in the model's chat template
        hftool score --chat --given "What is the capital of France?" "Paris."
        # Endings of a story, each after its own beginning
        hftool score -f stories.csv --column ending --given-column story -o scores.csv
        # How far rounded weights are from the original ones
        hftool score -f sentences.txt --quantize int8 --against smollm2
    """
    from hftool.cli.runs.score import score_on_ray, score_table
    from hftool.models.remote_inputs import RemoteInputs

    text = None if prompting.ids and text == ["-"] else text
    remote = RemoteInputs(load, whole=engine.on_ray)
    inputs, how = remote.tables(inputs), (load, prompting, scoring)
    if engine.on_ray:
        score_on_ray(text or (), inputs, *how, engine, output)
    else:
        score_table(text, inputs, *how, output, concurrency=concurrency, remote=remote)

"""`hftool score`"""

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.cli.endpoints import remote_scores
from hftool.errors import exclude
from hftool.options.endpoint import DEFAULT_CONCURRENCY, ConcurrencyOption
from hftool.options.engine import EngineOptions
from hftool.options.inputs import FileOptions, PromptOptions, TableInputOptions
from hftool.options.model import ExactLoadOptions
from hftool.options.output import TableOptions
from hftool.options.score import ScoreOptions, Unit
from hftool.options.shared import Argument
from hftool.terminal import is_terminal

if TYPE_CHECKING:
    from hftool.generation.scored_sequences import TextEncoder
    from hftool.inputs.tables import TextTable
    from hftool.models.language_model import LanguageModel

TextsArgument = Annotated[
    list[str] | None,
    Argument("TEXT", "The texts; without them, the lines of --file or stdin."),
]


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
    from hftool.generation.scored_sequences import text_encoder
    from hftool.generation.scoring import SCORERS, TextScore, score_texts
    from hftool.inputs.columns import require_column
    from hftool.inputs.tables import TextRow, read_table
    from hftool.models.fingerprint import model_digest
    from hftool.models.load import load_language_model
    from hftool.models.references import endpoint_address
    from hftool.models.remote_inputs import RemoteInputs
    from hftool.output.formats import format_name
    from hftool.output.run_log import Settings, run_settings
    from hftool.output.table_run import run_table
    from hftool.output.views.score import parts_view, scores_view
    from hftool.output.writer import write

    text = None if prompting.ids and text == ["-"] else text
    remote = RemoteInputs(load, whole=engine.on_ray)
    inputs = remote.tables(inputs)
    if engine.on_ray:
        _score_on_ray(text or (), load, inputs, prompting, scoring, engine, output)
        return

    def settings() -> Settings:
        digest = model_digest(load.model, load)
        made = run_settings(load, prompting, scoring, model=load.model, model_digest=digest)
        return {**made, **remote.settings()}

    numbered = len(text or ()) != 1
    # No view of scores has a default format, so each of them tells which one it is.
    name = format_name(output, parts_view("word", numbered=numbered))
    all_columns = name in ("csv", "tsv", "parquet")
    table = read_table(text, inputs, whole=all_columns)
    require_column(table.names, scoring.given_column)
    by = scoring.by or _default_unit(text, output)
    if address := endpoint_address(load.model):
        compute = remote_scores(address, load, prompting, scoring, output, concurrency)
    else:
        model = load_language_model(load, masked=True)
        encode = text_encoder(model, FileOptions(errors=inputs.errors), prompting, scoring)
        if scoring.against is not None:
            _compare(model, table, encode, load, scoring, output, announce=not text)
            return
        if by != "text":
            _require_text(by, output)
            parts = SCORERS[by](model, table, encode, scoring, numbered=numbered)
            write(parts, parts_view(by, numbered=numbered), output)
            return

        def compute(rows: Iterator[TextRow], done: int) -> Iterator[TextScore]:
            return score_texts(model, rows, encode, scoring, output.on_error, done)

    bom = table.shape.marked if output.bom is None else output.bom
    view = scores_view(table.shape, errors=output.on_error == "report", bom=bom)
    run_table(table, compute, view, output, settings, announce=not text)


def _score_on_ray(
    text: Sequence[str],
    load: ExactLoadOptions,
    inputs: TableInputOptions,
    prompting: PromptOptions,
    scoring: ScoreOptions,
    engine: EngineOptions,
    output: TableOptions,
) -> None:
    from hftool.jobs.score import ScoreJob
    from hftool.jobs.tables import run_table_job

    exclude({"--engine ray": True, f"--by {scoring.by}": scoring.by not in (None, "text")})
    exclude({"--engine ray": True, "--against": scoring.against is not None})
    exclude({"--engine ray": True, "--save": output.save is not None})
    job = ScoreJob(
        load=load, prompting=prompting, scoring=scoring, inputs=inputs, on_error=output.on_error
    )
    run_table_job(text, job, engine, output)


def _compare(
    model: "LanguageModel",
    table: "TextTable",
    encode: "TextEncoder",
    load: ExactLoadOptions,
    scoring: ScoreOptions,
    output: TableOptions,
    *,
    announce: bool,
) -> None:
    """Write how far a model's probabilities are from those of `--against`."""
    from hftool.generation.comparison import compare_texts, load_baseline, summarized
    from hftool.output.table_run import run_table
    from hftool.output.views.score import COMPARISON

    assert scoring.against is not None
    exclude({"--against": True, "--resume": output.resume})
    baseline = load_baseline(load, scoring.against, model)
    run_table(
        table,
        lambda rows, _: compare_texts(model, baseline, rows, encode, scoring, output.on_error),
        *(COMPARISON, output, dict),
        reduce=lambda texts: summarized(texts, load, model, baseline),
        announce=announce,
    )


def _default_unit(texts: Sequence[str] | None, output: TableOptions) -> Unit:
    shown = output.output is None and output.format in (None, "table") and not output.json
    drawn = output.save is not None or is_terminal(sys.stdout)
    return "token" if shown and drawn and len(texts or ()) == 1 else "text"


def _require_text(by: Unit, output: TableOptions) -> None:
    """Raise where an option needs one record per text.

    Raises:
        UsageError: with the option.
    """
    exclude({f"--by {by}": True, "--resume": output.resume})
    exclude({f"--by {by}": True, f"--on-error {output.on_error}": output.on_error != "stop"})

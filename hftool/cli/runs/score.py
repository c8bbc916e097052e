"""Score the texts of a table, or compare two models on them."""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from hftool.errors import exclude
from hftool.generation.comparison import compare_texts, load_baseline, summarized
from hftool.generation.scored_sequences import TextEncoder, text_encoder
from hftool.generation.scoring import SCORERS, TextScore, score_texts
from hftool.inputs.columns import require_column
from hftool.inputs.tables import TextRow, TextTable, read_table
from hftool.models.fingerprint import model_digest
from hftool.models.language_model import LanguageModel
from hftool.models.load import load_language_model
from hftool.models.references import endpoint_address
from hftool.models.remote_inputs import RemoteInputs
from hftool.options.engine import EngineOptions
from hftool.options.inputs import FileOptions, PromptOptions, TableInputOptions
from hftool.options.model import ExactLoadOptions
from hftool.options.output import TableOptions
from hftool.options.score import ScoreOptions, Unit
from hftool.output.formats import format_name
from hftool.output.run_log import Settings, run_settings
from hftool.output.table_run import run_table
from hftool.output.views.score import COMPARISON, parts_view, scores_view
from hftool.output.writer import write
from hftool.terminal import is_terminal

Compute = Callable[[Iterator[TextRow], int], Iterator[TextScore]]
"""Scores the texts of rows, given how many texts are done."""


def score_table(
    texts: Sequence[str] | None,
    inputs: TableInputOptions,
    load: ExactLoadOptions,
    prompting: PromptOptions,
    scoring: ScoreOptions,
    output: TableOptions,
    *,
    concurrency: int,
    remote: RemoteInputs,
) -> None:
    """Score texts, or the rows of a table: as a whole, by word, by token, or against another model.

    Args:
        remote: what the inputs were found with, where they were elsewhere.

    Raises:
        HftoolError: the input or the model can't be read, or texts failed.
    """
    numbered = len(texts or ()) != 1
    # No view of scores has a default format, so each of them tells which one it is.
    name = format_name(output, parts_view("word", numbered=numbered))
    table = read_table(texts, inputs, whole=name in ("csv", "tsv", "parquet"))
    require_column(table.names, scoring.given_column)
    by = scoring.by or _default_unit(texts, output)
    if address := endpoint_address(load.model):
        compute = _remote_scores(address, load, prompting, scoring, output, concurrency)
    else:
        model = load_language_model(load, masked=True)
        encode = text_encoder(model, FileOptions(errors=inputs.errors), prompting, scoring)
        if scoring.against is not None:
            _compare(model, table, encode, load, scoring, output, announce=not texts)
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
    settings = partial(_settings, load, prompting, scoring, remote)
    run_table(table, compute, view, output, settings, announce=not texts)


def score_on_ray(
    texts: Sequence[str],
    inputs: TableInputOptions,
    load: ExactLoadOptions,
    prompting: PromptOptions,
    scoring: ScoreOptions,
    engine: EngineOptions,
    output: TableOptions,
) -> None:
    """Score the rows of files on Ray.

    Raises:
        UsageError: an option that Ray's workers don't know.
        HftoolError: as `run_table_job`.
    """
    from hftool.jobs.score import ScoreJob
    from hftool.jobs.tables import run_table_job

    exclude({"--engine ray": True, f"--by {scoring.by}": scoring.by not in (None, "text")})
    exclude({"--engine ray": True, "--against": scoring.against is not None})
    exclude({"--engine ray": True, "--save": output.save is not None})
    job = ScoreJob(
        load=load, prompting=prompting, scoring=scoring, inputs=inputs, on_error=output.on_error
    )
    run_table_job(texts, job, engine, output)


def _settings(
    load: ExactLoadOptions, prompting: PromptOptions, scoring: ScoreOptions, remote: RemoteInputs
) -> Settings:
    """Return what shapes the records, for `--resume`."""
    digest = model_digest(load.model, load)
    made = run_settings(load, prompting, scoring, model=load.model, model_digest=digest)
    return {**made, **remote.settings()}


def _compare(
    model: LanguageModel,
    table: TextTable,
    encode: TextEncoder,
    load: ExactLoadOptions,
    scoring: ScoreOptions,
    output: TableOptions,
    *,
    announce: bool,
) -> None:
    """Write how far a model's probabilities are from those of `--against`."""
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


def _remote_scores(
    address: str,
    load: ExactLoadOptions,
    prompting: PromptOptions,
    scoring: ScoreOptions,
    output: TableOptions,
    concurrency: int,
) -> Compute:
    """Return what scores texts with a model behind an endpoint.

    Raises:
        UsageError: an option that no server knows.
        HftoolError: the server can't be reached, or gives no log-probabilities.
    """
    from hftool.endpoint import scores
    from hftool.endpoint.parameters import require_known_prompting
    from hftool.endpoint.server import connect, refuse

    shown = {"--by token": scoring.by == "token", "--by word": scoring.by == "word"}
    refuse({**shown, "--stride": scoring.stride, "--batch-size": scoring.batch_size})
    refuse({"a chat": prompting.templated, "--against": scoring.against})
    endpoint = connect(address, load, concurrency)
    require_known_prompting(endpoint, prompting)
    scores.require_right_logprobs(endpoint)

    def compute(rows: Iterator[TextRow], done: int) -> Iterator[TextScore]:
        return scores.score_texts(
            *(endpoint, rows, scoring),
            special=prompting.special,
            concurrency=concurrency,
            on_error=output.on_error,
            first_index=done,
        )

    return compute

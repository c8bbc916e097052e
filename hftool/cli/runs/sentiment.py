"""Label the texts of a table, and write the labels, a summary or an evaluation."""

from collections.abc import Iterator, Sequence
from functools import partial

from hftool.classification.classify import Classification, classify
from hftool.classification.evaluation import Evaluation, evaluate, require_accuracy
from hftool.classification.scorers import default_model, load_scorer
from hftool.classification.summary import Check, summarize
from hftool.inputs.columns import require_column
from hftool.inputs.tables import TextRow, read_table
from hftool.models.fingerprint import model_digest
from hftool.models.remote_inputs import RemoteInputs
from hftool.options.engine import EngineOptions
from hftool.options.inputs import TableInputOptions
from hftool.options.labels import EvaluationOptions, LabelOptions, LabelReportOptions
from hftool.options.model import ClassifierOptions
from hftool.options.output import TableOptions
from hftool.output.formats import format_name
from hftool.output.run_log import Settings, run_settings
from hftool.output.table_run import run_table
from hftool.output.views.classification import EVALUATION, SUMMARY, classifications_view


def label_table(
    texts: Sequence[str] | None,
    inputs: TableInputOptions,
    load: ClassifierOptions,
    labelling: LabelOptions,
    report: LabelReportOptions,
    evaluation: EvaluationOptions,
    output: TableOptions,
    *,
    concurrency: int,
    remote: RemoteInputs,
) -> None:
    """Label texts, or the rows of a table, and write what was asked for.

    Args:
        remote: what the inputs were found with, where they were elsewhere.

    Raises:
        HftoolError: the input or the model can't be read, or texts failed.
        CheckFailed: a text has another label than `--check`, or the accuracy is too low.
    """
    reduced = report.summary or evaluation.gold is not None
    all_columns = not reduced and format_name(output, SUMMARY) in ("csv", "tsv", "parquet")
    table = read_table(texts, inputs, whole=all_columns)
    require_column(table.names, labelling.pair_column)
    scorer = load_scorer(load, labelling, concurrency)
    check = Check(report.check, scorer.labels)
    evaluations: list[Evaluation] = []

    def compute(rows: Iterator[TextRow], _done: int) -> Iterator[Classification]:
        return check.counted(classify(scorer, rows, report.threshold, output.on_error))

    def evaluated(records: Iterator[Classification], gold: str) -> list[Evaluation]:
        most, several = evaluation.mistakes, scorer.is_multi_label
        found = evaluate(records, scorer.labels, gold, mistakes=most, several=several)
        evaluations.append(found)
        return evaluations

    settings = partial(_settings, load, labelling, report, remote)
    run = partial(run_table, table, compute, output=output, settings=settings, announce=not texts)
    if report.summary:
        run(view=SUMMARY, reduce=lambda records: summarize(records, scorer.labels))
    elif evaluation.gold is not None:
        run(view=EVALUATION, reduce=partial(evaluated, gold=evaluation.gold))
    else:
        view = classifications_view(
            *(table.shape, scorer.labels),
            all_scores=report.all_scores,
            multi_label=scorer.is_multi_label,
            bom=table.shape.marked if output.bom is None else output.bom,
            errors=output.on_error == "report",
        )
        run(view=view)
    check.require()
    for result in evaluations:
        require_accuracy(result, evaluation.min_accuracy)


def label_on_ray(
    texts: Sequence[str],
    inputs: TableInputOptions,
    load: ClassifierOptions,
    labelling: LabelOptions,
    report: LabelReportOptions,
    engine: EngineOptions,
    output: TableOptions,
) -> None:
    """Label the rows of files on Ray. Raises: as `run_table_job`."""
    from hftool.jobs.sentiment import LabelJob
    from hftool.jobs.tables import run_table_job

    job = LabelJob(
        load=load,
        labelling=labelling,
        threshold=report.threshold,
        all_scores=report.all_scores,
        inputs=inputs,
        on_error=output.on_error,
    )
    run_table_job(texts, job, engine, output)


def _settings(
    load: ClassifierOptions,
    labelling: LabelOptions,
    report: LabelReportOptions,
    remote: RemoteInputs,
) -> Settings:
    """Return what shapes the records, for `--resume`."""
    name = load.model or default_model(labelling)
    digest = model_digest(name, load)
    own = {"threshold": report.threshold, "all_scores": report.all_scores}
    made = run_settings(load, labelling, model=name, model_digest=digest, **own)
    return {**made, **remote.settings()}

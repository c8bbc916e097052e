"""`hftool sentiment`"""

import functools
from collections.abc import Iterator
from typing import Annotated

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.errors import UsageError, exclude
from hftool.options.endpoint import DEFAULT_CONCURRENCY, ConcurrencyOption
from hftool.options.engine import EngineOptions
from hftool.options.inputs import TableInputOptions
from hftool.options.labels import EvaluationOptions, LabelOptions
from hftool.options.model import ClassifierOptions
from hftool.options.output import TableOptions
from hftool.options.shared import Argument, option

TextsArgument = Annotated[
    list[str] | None,
    Argument("TEXT", "The texts; without them, the lines of --file or stdin."),
]


@expand_dataclasses
def sentiment(
    text: TextsArgument = None,
    *,
    load: ClassifierOptions,
    inputs: TableInputOptions,
    labelling: LabelOptions,
    threshold: Annotated[
        float | None,
        option(
            "--threshold",
            metavar="P",
            min=0,
            max=1,
            help="Below this score, the label is UNCERTAIN.",
        ),
    ] = None,
    all_scores: Annotated[
        bool, option("--all-scores", help="Add a column with the score of each label.")
    ] = False,
    summary: Annotated[
        bool, option("--summary", help="Write only counts, mean scores and histograms by label.")
    ] = False,
    check: Annotated[
        str | None,
        option("--check", metavar="LABEL", help="Exit with status 3 unless every text gets LABEL."),
    ] = None,
    evaluation: EvaluationOptions,
    engine: EngineOptions,
    concurrency: ConcurrencyOption = DEFAULT_CONCURRENCY,
    output: TableOptions,
) -> None:
    """Label each text, or each line of a file.

    Each line of output is a label, its score and the text.

    Examples:
        hftool sentiment "I love programming!"
        # A file with one text per line
        hftool sentiment -f reviews.txt -o labels.csv
        # The number of texts with each label
        hftool sentiment -f reviews.txt --summary
        # Your own labels, by a language model
        hftool sentiment --labels joy,anger,fear "How dare you!"
    """
    exclude({"--gold": evaluation.gold is not None, "--summary": summary})
    reduced = summary or evaluation.gold is not None  # to one record, or to one for each label
    if reduced or check is not None or output.save is not None:
        _require_local_and_whole(engine, output)
    from hftool.models.remote_inputs import RemoteInputs

    remote = RemoteInputs(load, whole=engine.on_ray)
    inputs = remote.tables(inputs)
    if engine.on_ray:
        from hftool.jobs.sentiment import LabelJob
        from hftool.jobs.tables import run_table_job

        job = LabelJob(
            load=load,
            labelling=labelling,
            threshold=threshold,
            all_scores=all_scores,
            inputs=inputs,
            on_error=output.on_error,
        )
        run_table_job(text or (), job, engine, output)
        return
    from hftool.classification.classify import Classification, classify
    from hftool.classification.evaluation import Evaluation, evaluate, require_accuracy
    from hftool.classification.scorers import default_model, load_scorer
    from hftool.classification.summary import Check, summarize
    from hftool.inputs.columns import require_column
    from hftool.inputs.tables import TextRow, read_table
    from hftool.models.fingerprint import model_digest
    from hftool.output.formats import format_name
    from hftool.output.run_log import Settings, run_settings
    from hftool.output.table_run import run_table
    from hftool.output.views.classification import EVALUATION, SUMMARY, classifications_view

    def settings() -> Settings:
        name = load.model or default_model(labelling)
        own = {"threshold": threshold, "all_scores": all_scores}
        digest = model_digest(name, load)
        made = run_settings(load, labelling, model=name, model_digest=digest, **own)
        return {**made, **remote.settings()}

    all_columns = not reduced and format_name(output, SUMMARY) in ("csv", "tsv", "parquet")
    table = read_table(text, inputs, whole=all_columns)
    require_column(table.names, labelling.pair_column)
    scorer = load_scorer(load, labelling, concurrency)
    several = scorer.is_multi_label
    checked = Check(check, scorer.labels)
    results: list[Evaluation] = []
    view = classifications_view(
        *(table.shape, scorer.labels),
        all_scores=all_scores,
        multi_label=several,
        bom=table.shape.marked if output.bom is None else output.bom,
        errors=output.on_error == "report",
    )

    def compute(rows: Iterator[TextRow], _done: int) -> Iterator[Classification]:
        return checked.counted(classify(scorer, rows, threshold, output.on_error))

    def evaluated(records: Iterator[Classification]) -> list[Evaluation]:
        assert evaluation.gold is not None
        most = evaluation.mistakes
        found = evaluate(records, scorer.labels, evaluation.gold, mistakes=most, several=several)
        results.append(found)
        return results

    run = functools.partial(run_table, table, compute, announce=not text)
    if summary:
        run(SUMMARY, output, settings, reduce=lambda records: summarize(records, scorer.labels))
    elif evaluation.gold is not None:
        run(EVALUATION, output, settings, reduce=evaluated)
    else:
        run(view, output, settings)
    checked.require()
    for result in results:
        require_accuracy(result, evaluation.min_accuracy)


def _require_local_and_whole(engine: EngineOptions, output: TableOptions) -> None:
    """Raise where a run doesn't see the records of all texts.

    Raises:
        UsageError: it resumes another run, or Ray's workers write the records.
    """
    if engine.engine == "ray" or output.resume:
        option = "--resume" if output.resume else "--engine ray"
        raise UsageError(f"{option} excludes --summary, --check, --gold and --save")

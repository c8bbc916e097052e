"""`hftool sentiment`"""

from contextlib import nullcontext
from typing import Annotated

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.errors import UsageError, exclude
from hftool.options.inputs import TableInputOptions
from hftool.options.labels import EngineOptions, EvaluationOptions, LabelOptions
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
    if engine.engine == "ray":
        from hftool.jobs.ray_sentiment import LabelJob, label_files

        job = LabelJob(load, labelling, inputs, threshold, all_scores)
        label_files(text or [], job, engine.ray_address, output)
        return
    from hftool.classification.classify import classify
    from hftool.classification.evaluation import evaluate, require_accuracy
    from hftool.classification.scorers import default_model, load_scorer
    from hftool.classification.summary import Check, summarize
    from hftool.inputs.tables import read_table
    from hftool.inputs.tally import Tally
    from hftool.models.fingerprint import model_digest
    from hftool.output.formats import format_name
    from hftool.output.progress import show_progress
    from hftool.output.resume import remaining, resumable
    from hftool.output.run_log import Settings, run_settings
    from hftool.output.views.classification import EVALUATION, SUMMARY, classifications_view
    from hftool.output.writer import write

    def settings() -> Settings:
        name = load.model or default_model(labelling)
        own = {"threshold": threshold, "all_scores": all_scores}
        digest = model_digest(name, load)
        return run_settings(load, labelling, model=name, model_digest=digest, **own)

    all_columns = not reduced and format_name(output, SUMMARY) in ("csv", "tsv", "parquet")
    table = read_table(text, inputs, whole=all_columns)
    scorer = load_scorer(load, labelling)
    checked, result = Check(check, scorer.labels), None
    view = classifications_view(
        *(table.shape, scorer.labels),
        all_scores=all_scores,
        bom=table.shape.marked if output.bom is None else output.bom,
        errors=output.on_error == "report",
    )
    with nullcontext() if reduced else resumable(output, view, settings) as partial:
        rows = remaining(partial, table, lambda row: (row.text, dict(row.columns), str(row.error)))
        tally = Tally(partial.done, partial.failed) if partial else Tally()
        records = classify(scorer, rows, threshold, output.on_error)
        records = checked.counted(tally.counted(records))
        records = show_progress(records, output, "texts", "texts", at_end=reduced)
        if summary:
            write(summarize(records, scorer.labels), SUMMARY, output)
        elif evaluation.gold is not None:
            gold, mistakes = evaluation.gold, evaluation.mistakes
            result = evaluate(records, scorer.labels, gold, mistakes=mistakes)
            write([result], EVALUATION, output)
        else:
            write(records, view, output, partial)
    if not text or output.output is not None:
        tally.log_end(output.output)
    tally.report_failures(left_out=output.on_error == "skip" or reduced)
    checked.require()
    if result is not None:
        require_accuracy(result, evaluation.min_accuracy)


def _require_local_and_whole(engine: EngineOptions, output: TableOptions) -> None:
    """Raise where a run doesn't see the records of all texts.

    Raises:
        UsageError: it resumes another run, or Ray's workers write the records.
    """
    if engine.engine == "ray" or output.resume:
        option = "--resume" if output.resume else "--engine ray"
        raise UsageError(f"{option} excludes --summary, --check, --gold and --save")

"""`hftool sentiment`"""

from typing import Annotated

import typer

from hftool.options import (
    ClassifierOptions,
    EngineOptions,
    LabelOptions,
    RowOptions,
    TableOptions,
)
from hftool.spread import spread

TextsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="Texts; else the lines of --file, else of stdin."),
]


@spread
def sentiment(
    text: TextsArgument = None,
    *,
    load: ClassifierOptions,
    inputs: RowOptions,
    labelling: LabelOptions,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="P", min=0, max=1, help="Below this score the label is UNCERTAIN."),
    ] = None,
    all_scores: Annotated[
        bool, typer.Option("--all-scores", help="Each label's score, in columns of their own.")
    ] = False,
    summary: Annotated[
        bool, typer.Option("--summary", help="Only counts, mean scores and histograms by label.")
    ] = False,
    check: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Status 3 unless every text gets LABEL.")
    ] = None,
    engine: EngineOptions,
    output: TableOptions,
) -> None:
    """Judge each text, or each line: LABEL, score, text.

    Examples:
        hftool sentiment "I love programming!"
        # A file, a text a line
        hftool sentiment -f reviews.txt -o labels.tsv --format tsv
        # How many of each label, instead of each
        hftool sentiment -f reviews.txt --summary
        # Labels of your own, by a language model
        hftool sentiment --labels joy,anger,fear "How dare you!"
    """
    from hftool.errors import UsageError

    if engine.engine == "ray":
        from hftool.ray_job import LabelJob, label_files

        if summary or check is not None or output.save is not None:
            raise UsageError("--engine ray writes labels: no --summary, --check and --save")
        job = LabelJob(load, labelling, inputs, threshold, all_scores)
        label_files(text or [], job, engine.ray_address, output)
        return
    from hftool.classification import judge, with_threshold
    from hftool.output.formats import write
    from hftool.output.judgements import SUMMARY, judgements_view, names_in_records
    from hftool.output.resume import remaining, resumable
    from hftool.rows import read_rows
    from hftool.scorers import load_scorer
    from hftool.verdicts import Check, summarize

    if output.resume and (summary or check):
        raise UsageError("--resume: --summary and --check need all texts in one run")
    rows = read_rows(text, inputs)
    scorer = load_scorer(load, labelling)
    checked = Check(check, scorer.labels) if check is not None else None
    column = names_in_records(rows.names, scorer.labels).get(rows.column, rows.column)
    records = judgements_view(rows, scorer.labels, all_scores=all_scores)
    with resumable(output, SUMMARY if summary else records) as partial:
        judgements = judge(scorer, remaining(partial, rows, lambda row: {column: row.text}))
        judgements = judgements if threshold is None else with_threshold(judgements, threshold)
        judgements = judgements if checked is None else checked.watch(judgements)
        if summary:
            write(summarize(judgements, scorer.labels), SUMMARY, output, partial)
        else:
            write(judgements, records, output, partial)
    if checked is not None:
        checked.hold()

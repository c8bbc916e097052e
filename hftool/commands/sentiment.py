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

    whole = summary or check is not None or output.save is not None
    if whole and (engine.engine == "ray" or output.resume):
        other = "--resume" if output.resume else "--engine ray"
        raise UsageError(f"{other} excludes --summary, --check and --save")
    if engine.engine == "ray":
        from hftool.ray_job import LabelJob, label_files

        job = LabelJob(load, labelling, inputs, threshold, all_scores)
        label_files(text or [], job, engine.ray_address, output)
        return
    from hftool.classification import judge
    from hftool.output.formats import write
    from hftool.output.judgements import SUMMARY, judgements_view, text_in_record
    from hftool.output.resume import remaining, resumable
    from hftool.rows import read_rows
    from hftool.scorers import load_scorer
    from hftool.verdicts import Check, summarize

    rows = read_rows(text, inputs)
    scorer = load_scorer(load, labelling)
    checked = Check(check, scorer.labels)
    view = SUMMARY if summary else judgements_view(rows, scorer.labels, all_scores=all_scores)
    with resumable(output, view) as partial:
        rest = remaining(partial, rows, text_in_record(rows, scorer.labels))
        judgements = checked.watch(judge(scorer, rest, threshold))
        records = summarize(judgements, scorer.labels) if summary else judgements
        write(records, view, output, partial)
    checked.hold()

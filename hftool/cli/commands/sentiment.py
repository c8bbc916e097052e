"""`hftool sentiment`"""

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.errors import UsageError, exclude
from hftool.options.endpoint import DEFAULT_CONCURRENCY, ConcurrencyOption
from hftool.options.engine import EngineOptions
from hftool.options.inputs import TableInputOptions, TextsArgument
from hftool.options.labels import EvaluationOptions, LabelOptions, LabelReportOptions
from hftool.options.model import ClassifierOptions
from hftool.options.output import TableOptions


@expand_dataclasses
def sentiment(
    text: TextsArgument = None,
    *,
    load: ClassifierOptions,
    inputs: TableInputOptions,
    labelling: LabelOptions,
    report: LabelReportOptions,
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
    exclude({"--gold": evaluation.gold is not None, "--summary": report.summary})
    reduced = report.summary or evaluation.gold is not None  # to one record, or one for each label
    if reduced or report.check is not None or output.save is not None:
        _require_local_and_whole(engine, output)
    from hftool.cli.runs.sentiment import label_on_ray, label_table
    from hftool.models.remote_inputs import RemoteInputs

    remote = RemoteInputs(load, whole=engine.on_ray)
    inputs, how = remote.tables(inputs), (load, labelling, report)
    if engine.on_ray:
        label_on_ray(text or (), inputs, *how, engine, output)
    else:
        label_table(text, inputs, *how, evaluation, output, concurrency=concurrency, remote=remote)


def _require_local_and_whole(engine: EngineOptions, output: TableOptions) -> None:
    """Raise where a run doesn't see the records of all texts.

    Raises:
        UsageError: it resumes another run, or Ray's workers write the records.
    """
    if engine.engine == "ray" or output.resume:
        option = "--resume" if output.resume else "--engine ray"
        raise UsageError(f"{option} excludes --summary, --check, --gold and --save")

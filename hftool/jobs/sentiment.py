"""`sentiment` on Ray."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hftool.classification.classify import Scorer, TextCounts, classify, log_truncated
from hftool.inputs.columns import require_column
from hftool.inputs.tables import TextRow
from hftool.jobs.parts import Chunk, fingerprint, portable, run_job
from hftool.jobs.tables import (
    CHUNK,
    TableReader,
    errors_in,
    table_files,
    table_reader,
    write_results,
)
from hftool.options.engine import EngineOptions
from hftool.options.inputs import TableInputOptions
from hftool.options.labels import LabelOptions
from hftool.options.model import ClassifierOptions
from hftool.options.output import OnError, TableOptions
from hftool.output.tally import report_failures
from hftool.output.views.classification import classifications_view

log = logging.getLogger("hftool")


@dataclass(frozen=True)
class LabelJob:
    """What to label, and how: the options of `sentiment` that a job's workers need."""

    load: ClassifierOptions
    labelling: LabelOptions
    threshold: float | None
    all_scores: bool
    on_error: OnError = "stop"
    reader: TableReader | None = None
    suffix: str = ".parquet"
    chunk: int = CHUNK

    @property
    def device(self) -> str:
        """The option `--device`."""
        return self.load.device

    def read(self, number: int, file: Path) -> Iterator[tuple[TextRow, int]]:
        """Yield the rows of a file, and the length of each text."""
        assert self.reader is not None
        return self.reader.rows(number, file)

    def worker(self) -> "_Labeller":
        """Load the model."""
        from hftool.classification.scorers import load_scorer

        return _Labeller(self, load_scorer(self.load, self.labelling))

    def counts(self, part: Path) -> Mapping[str, int]:
        """Return what failed: a part does not tell what was truncated."""
        return {"failed": errors_in(part)}


@dataclass
class _Labeller:
    job: LabelJob
    scorer: Scorer

    def write(self, chunk: Chunk, part: Path) -> Mapping[str, int]:
        """Write the labels of a chunk's texts."""
        job, scorer = self.job, self.scorer
        assert job.reader is not None
        view = classifications_view(
            *(job.reader.shape, scorer.labels),
            all_scores=job.all_scores,
            multi_label=scorer.is_multi_label,
            errors=job.on_error == "report",
        )
        before, counts = scorer.truncated_texts, TextCounts()
        records = classify(scorer, chunk.items, job.threshold, job.on_error, counts)
        written = write_results(records, view, part, job.on_error)
        return {**written, **asdict(counts), "truncated": scorer.truncated_texts - before}


def label_files(
    paths: Sequence[str],
    job: LabelJob,
    inputs: TableInputOptions,
    engine: EngineOptions,
    output: TableOptions,
) -> None:
    """Label the texts in files, and in the files in folders, into the folder of `--output`.

    The folder's part files are Parquet, with the same records as a local run.

    Raises:
        UsageError: the options don't go with Ray.
        HftoolError: as `run_job`, or as a local run.
    """
    files = table_files(paths, inputs, output)
    job = replace(job, load=portable(job.load))
    made = fingerprint(files, job.load, job, inputs)

    def ready() -> LabelJob:
        reader = table_reader(files, inputs)
        require_column(reader.shape.names, job.labelling.pair_column)
        return replace(job, reader=reader)

    counts = run_job(files, made, ready, engine, output)
    log.debug("%d texts in %d files are labelled", counts["rows"], len(files))
    log_truncated(counts["truncated"])
    TextCounts(counts["total"], counts["unknown"], counts["tokenless"]).log()
    report_failures(counts["failed"], left_out=job.on_error == "skip")

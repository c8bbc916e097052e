"""`sentiment` on Ray."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hftool.classification.classify import Scorer, classify, log_truncated
from hftool.inputs.tables import TextRow
from hftool.jobs.parts import Chunk, fingerprint, portable, run_job
from hftool.jobs.tables import CHUNK, TableReader, table_files, table_reader
from hftool.options.engine import EngineOptions
from hftool.options.inputs import TableInputOptions
from hftool.options.labels import LabelOptions
from hftool.options.model import ClassifierOptions
from hftool.options.output import TableOptions
from hftool.output.parquet import write_parquet
from hftool.output.views.classification import classifications_view

log = logging.getLogger("hftool")


@dataclass(frozen=True)
class LabelJob:
    """What to label, and how: the options of `sentiment` that a job's workers need."""

    load: ClassifierOptions
    labelling: LabelOptions
    threshold: float | None
    all_scores: bool
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
        """Return zeros: a part does not tell what was truncated."""
        return {"rows": 0, "truncated": 0}


@dataclass
class _Labeller:
    job: LabelJob
    scorer: Scorer

    def write(self, chunk: Chunk, part: Path) -> Mapping[str, int]:
        """Write the labels of a chunk's texts."""
        job, scorer = self.job, self.scorer
        assert job.reader is not None
        view = classifications_view(job.reader.shape, scorer.labels, all_scores=job.all_scores)
        before = scorer.truncated_texts
        classifications = classify(scorer, chunk.items, job.threshold)
        write_parquet((row for c in classifications for row in view.rows(c)), view, part)
        return {"rows": len(chunk.items), "truncated": scorer.truncated_texts - before}


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
    counts = run_job(
        *(files, made, lambda: replace(job, reader=table_reader(files, inputs)), engine, output)
    )
    log.debug("%d texts in %d files are labelled", counts["rows"], len(files))
    log_truncated(counts["truncated"])

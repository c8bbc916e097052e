"""`score` on Ray."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hftool.generation.scored_sequences import TextEncoder, text_encoder
from hftool.generation.scoring import score_texts
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
from hftool.models.language_model import LanguageModel
from hftool.options.engine import EngineOptions
from hftool.options.inputs import FileOptions, PromptOptions, TableInputOptions
from hftool.options.model import ExactLoadOptions
from hftool.options.output import OnError, TableOptions
from hftool.options.score import ScoreOptions
from hftool.output.tally import report_failures
from hftool.output.views.score import scores_view

log = logging.getLogger("hftool")


@dataclass(frozen=True)
class ScoreJob:
    """What to score, and how: the options of `score` that a job's workers need."""

    load: ExactLoadOptions
    prompting: PromptOptions
    scoring: ScoreOptions
    files: FileOptions
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

    def worker(self) -> "_Scorer":
        """Load the model."""
        from hftool.models.load import load_language_model

        model = load_language_model(self.load, masked=True)
        return _Scorer(self, model, text_encoder(model, self.files, self.prompting, self.scoring))

    def counts(self, part: Path) -> Mapping[str, int]:
        """Return what failed: only rows that were computed are counted."""
        return {"failed": errors_in(part)}


@dataclass
class _Scorer:
    job: ScoreJob
    model: LanguageModel
    encode: TextEncoder

    def write(self, chunk: Chunk, part: Path) -> Mapping[str, int]:
        """Write the scores of a chunk's texts. Their `index` counts the rows of the file."""
        job = self.job
        assert job.reader is not None
        view = scores_view(job.reader.shape, errors=job.on_error == "report")
        scores = score_texts(
            *(self.model, chunk.items, self.encode, job.scoring, job.on_error, chunk.start)
        )
        return write_results(scores, view, part, job.on_error)


def score_files(
    paths: Sequence[str],
    job: ScoreJob,
    inputs: TableInputOptions,
    engine: EngineOptions,
    output: TableOptions,
) -> None:
    """Score the texts in files, and in the files in folders, into the folder of `--output`.

    Raises:
        UsageError: the options don't go with Ray.
        HftoolError: as `run_job`, or as a local run.
    """
    files = table_files(paths, inputs, output)
    job = replace(job, load=portable(job.load))

    def ready() -> ScoreJob:
        reader = table_reader(files, inputs)
        require_column(reader.shape.names, job.scoring.given_column)
        return replace(job, reader=reader)

    counts = run_job(files, fingerprint(files, job.load, job, inputs), ready, engine, output)
    log.debug("%d texts in %d files are scored", counts["rows"], len(files))
    report_failures(counts["failed"], left_out=job.on_error == "skip")

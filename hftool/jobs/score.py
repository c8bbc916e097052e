"""`score` on Ray."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hftool.generation.scored_sequences import TextEncoder, require_column, text_encoder
from hftool.generation.scoring import score_texts
from hftool.inputs.tables import TextRow
from hftool.jobs.parts import Chunk, fingerprint, portable, run_job
from hftool.jobs.tables import CHUNK, TableReader, table_files, table_reader
from hftool.models.language_model import LanguageModel
from hftool.options.engine import EngineOptions
from hftool.options.inputs import FileOptions, PromptOptions, TableInputOptions
from hftool.options.model import ExactLoadOptions
from hftool.options.output import TableOptions
from hftool.options.score import ScoreOptions
from hftool.output.parquet import write_parquet
from hftool.output.views.score import scores_view

log = logging.getLogger("hftool")


@dataclass(frozen=True)
class ScoreJob:
    """What to score, and how: the options of `score` that a job's workers need."""

    load: ExactLoadOptions
    prompting: PromptOptions
    scoring: ScoreOptions
    files: FileOptions
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
        """Return zero: only rows that were computed are counted."""
        return {"rows": 0}


@dataclass
class _Scorer:
    job: ScoreJob
    model: LanguageModel
    encode: TextEncoder

    def write(self, chunk: Chunk, part: Path) -> Mapping[str, int]:
        """Write the scores of a chunk's texts. Their `index` counts the rows of the file."""
        assert self.job.reader is not None
        view = scores_view(self.job.reader.shape)
        scores = score_texts(
            *(self.model, chunk.items, self.encode, self.job.scoring), first_index=chunk.start
        )
        write_parquet((row for score in scores for row in view.rows(score)), view, part)
        return {"rows": len(chunk.items)}


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
        require_column(reader.shape.names, job.scoring)
        return replace(job, reader=reader)

    counts = run_job(files, fingerprint(files, job.load, job, inputs), ready, engine, output)
    log.debug("%d texts in %d files are scored", counts["rows"], len(files))

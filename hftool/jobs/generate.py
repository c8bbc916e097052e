"""`generate --batch` on Ray."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hftool.atomic_files import atomic_file
from hftool.errors import UsageError
from hftool.generation.batch_file import (
    BatchLine,
    FailureCounter,
    numbered_records,
    record_lines,
)
from hftool.generation.records import CandidateGenerator
from hftool.inputs.files import format_by_suffix
from hftool.jobs.parts import Chunk, Job, files_of, run_job
from hftool.models.language_model import LanguageModel
from hftool.options.engine import EngineOptions
from hftool.options.generation import GenerateOptions
from hftool.options.inputs import FileOptions, PromptOptions
from hftool.options.model import LoadOptions
from hftool.options.output import ResumableOptions
from hftool.output.formats import json_lines
from hftool.output.views.generation import batch_view

CHUNK = 256  # records of a part file


@dataclass(frozen=True, kw_only=True)
class GenerateJob(Job):
    """What to generate, and how: the options of `generate` that a job's workers need."""

    load: LoadOptions
    files: FileOptions
    options: GenerateOptions
    batch_size: int | None = field(default=None, repr=False)
    suffix: str = ".jsonl"
    chunk: int = CHUNK

    def read(self, number: int, file: Path) -> Iterator[tuple[BatchLine, int]]:
        """Yield the records of a file, and the length of each."""
        for line in numbered_records(record_lines(file)):
            yield line, len(line.data)

    def worker(self) -> "_Generator":
        """Load the model."""
        from hftool.generation.strategies import load_candidate_generator
        from hftool.models.load import load_language_model

        model = load_language_model(self.load)
        guesses = load_candidate_generator(model, self.load, self.options.generation)
        return _Generator(self, model, guesses)

    def counts(self, part: Path) -> Mapping[str, int]:
        """Return how many records there are, and how many of them failed."""
        with part.open(encoding="utf-8") as file:
            records = [json.loads(line) for line in file]
        return {"rows": len(records), "failed": sum(bool(r.get("error")) for r in records)}


@dataclass
class _Generator:
    job: GenerateJob
    model: LanguageModel
    guesses: CandidateGenerator | None

    def write(self, chunk: Chunk, part: Path) -> Mapping[str, int]:
        """Write the records of a chunk. Their `index` counts the records of the file."""
        from hftool.generation.batch import generate_batch
        from hftool.generation.requests import requests_of_records

        job = self.job
        requests = requests_of_records(self.model, chunk.items, job.files, job.options)
        records = generate_batch(self.model, requests, job.batch_size, self.guesses)
        with atomic_file(part) as file:
            file.writelines(json_lines(records, batch_view(self.model.name)))
        return job.counts(part)


def generate_files(
    batch: Sequence[Path], job: GenerateJob, engine: EngineOptions, output: ResumableOptions
) -> None:
    """Run batch files, and the files in folders, into the folder of `--output`.

    The folder's part files are JSON Lines, with the records of a local run.

    Raises:
        UsageError: the options don't go with Ray.
        HftoolError: as `run_job`, or records failed.
    """
    if output.json or output.format not in (None, "jsonl"):
        raise UsageError("--engine ray writes only JSON Lines", "leave out --format and --json")
    files = files_of(batch, None, output.output)
    for file in files:
        if format_by_suffix(file) not in ("jsonl", "parquet", "lines"):
            raise UsageError(f"{file.name} is neither JSON Lines nor Parquet")
    options = replace(job.options, prompting=_absolute(job.options.prompting))
    counts = run_job(files, replace(job, options=options), engine, output)
    FailureCounter(counts["failed"]).require_none()


def _absolute(options: PromptOptions) -> PromptOptions:
    """Return options whose files mean the same in workers, which have another current folder."""
    names = ("chat_template", "tools", "documents")
    given = {name: path.resolve() for name in names if (path := getattr(options, name))}
    return replace(options, **given)

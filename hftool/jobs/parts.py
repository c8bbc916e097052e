"""Run a job on Ray Data: files in, a folder of part files out.

    files → chunks of items (tasks) → results (actors with a loaded model) → part files

Each chunk becomes a part file, named after the chunk's position in the input. A chunk that is
computed twice, because a worker died, gives the same file twice: nothing is lost or duplicated, and
the parts sort in the order of the input.
"""

import hashlib
import logging
import os
import pickle
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

from hftool import config
from hftool.errors import HftoolError, UsageError
from hftool.inputs.files import input_files
from hftool.inputs.streams import STDIN
from hftool.jobs.cluster import cluster, gpus_per_worker, ray
from hftool.models.references import GgufFile, LocalFolder, resolve_reference
from hftool.options.engine import EngineOptions
from hftool.options.inputs import InputFormat
from hftool.options.model import ClassifierOptions, LoadOptions
from hftool.options.output import ResumableOptions
from hftool.output.resume import resumable_folder

log = logging.getLogger("hftool")

READERS = 8  # files to read simultaneously: each reader feeds hundreds of workers
CHUNK_CHARACTERS = 16_000_000  # of a chunk, unless a single item has more

RayRow = dict[str, Any]  # a row of a Ray dataset, which is a file, a chunk or a part


@dataclass(frozen=True)
class Chunk:
    """Items of a file, the first of which is number `start` (from 0)."""

    start: int
    items: Sequence[Any]


class Worker(Protocol):
    """What an actor does with chunks, with a model that it has loaded once."""

    def write(self, chunk: Chunk, part: Path) -> Mapping[str, int]:
        """Write a part file, and return what is to be counted."""


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """What is done with the items of files: it is sent to readers and workers.

    A field that affects no record has no place in the `repr`, of which the fingerprint is made.

    Attributes:
        load: which model, and how.
        suffix: of part files.
        chunk: the most items of a part file, which are computed again if a worker dies.
    """

    load: LoadOptions | ClassifierOptions
    suffix: str
    chunk: int

    def ready(self, files: Sequence[Path]) -> Self:
        """Return the job with what Ray's tasks find out about the files."""
        return self

    @abstractmethod
    def read(self, number: int, file: Path) -> Iterator[tuple[Any, int]]:
        """Yield the items of a file and the length of each, in characters."""

    @abstractmethod
    def worker(self) -> Worker:
        """Load the model."""

    @abstractmethod
    def counts(self, part: Path) -> Mapping[str, int]:
        """Return what was counted when a part file was written."""


def files_of(
    paths: Sequence[Path], input_format: InputFormat | None, output: Path | None
) -> list[Path]:
    """Return the files, sorted by name within each folder.

    Raises:
        UsageError: there is no input or no output, or the output is inside the input.
        HftoolError: Ray is not installed, or a folder has no tables.
    """
    if output is None:
        raise UsageError("--engine ray writes a folder of files", "name it with -o/--output")
    ray()
    if STDIN in paths or not paths:
        raise UsageError("--engine ray reads files and folders", "name them")
    given = [path.resolve() for path in paths]
    for path, name in zip(given, paths, strict=True):
        if output.resolve().is_relative_to(path):
            raise UsageError(
                f"-o {output} is inside the input {name}", "name another folder with -o/--output"
            )
    return input_files(given, input_format)


def _portable(job: Job) -> Job:
    """Replace the model's name by one that means the same in workers, which have another current
    folder and may lack the user's aliases."""
    name = job.load.model
    if name is None:
        return job
    source = resolve_reference(name, job.load.revision)
    if os.path.exists(os.path.expanduser(name)) and isinstance(source, LocalFolder | GgufFile):
        name = str(source.path)
    else:
        name = config.load().aliases.get(name, name)
    return replace(job, load=replace(job.load, model=name))


def _fingerprint(files: Sequence[Path], job: Job) -> str:
    """Return a hash of the files (paths, sizes, times) and of the options that affect the records.

    Raises:
        HftoolError: a file does not exist.
    """
    job = replace(job, load=replace(job.load, device="auto", offline=False))
    try:
        stats = [(file, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    except OSError as error:
        raise HftoolError(f"cannot read {error.filename}: {error.strerror}") from None
    return hashlib.sha256(repr((job, stats)).encode()).hexdigest()


def run_job(
    files: Sequence[Path], job: Job, engine: EngineOptions, output: ResumableOptions
) -> Counter[str]:
    """Run a job into the folder of `--output`, and return the sums of what its parts count.

    Raises:
        HftoolError: Ray is not installed, or can't be started or joined; or a worker met an error.
    """
    job = _portable(job)
    counts: Counter[str] = Counter()
    with (
        resumable_folder(output, _fingerprint(files, job)) as folder,
        cluster(engine.ray_address, verbose=output.verbose),
    ):
        for part in _parts(files, job.ready(files), folder):
            counts.update(part)
    log.debug("%d rows in %d files are done", counts["rows"], len(files))
    return counts


def sources(files: Sequence[Path]) -> list[RayRow]:
    """Return a row for each file."""
    return [{"number": number, "file": str(file)} for number, file in enumerate(files)]


def _parts(files: Sequence[Path], job: Job, folder: Path) -> Iterator[RayRow]:
    """Yield what is counted in each part when it is written, in any order."""
    library = ray()
    gpus = gpus_per_worker(job.load.device)
    chunks = library.data.from_items(sources(files)).flat_map(
        _chunks,
        fn_args=(job,),
        num_cpus=0,  # readers reserve no CPU: workers can have them all
        concurrency=READERS,
    )
    parts = chunks.map(
        _PartActor,
        fn_constructor_args=(job, folder),
        compute=library.data.ActorPoolStrategy(min_size=1),
        num_cpus=1,
        num_gpus=gpus,
    )
    yield from parts.iter_rows()


def _chunks(source: RayRow, job: Job) -> Iterator[RayRow]:
    """Yield the items of a file in chunks, each with the name of its part; one without items if the
    file has none."""
    items = job.read(source["number"], Path(source["file"]))
    for number, chunk in enumerate(_chunked(items, job.chunk)):
        yield {
            "part": f"part-{source['number']:06}-{number:06}{job.suffix}",
            "chunk": pickle.dumps(chunk),
        }


def _chunked(items: Iterable[tuple[Any, int]], most: int) -> Iterator[Chunk]:
    some: list[Any] = []
    start = size = 0
    for item, length in items:
        some.append(item)
        size += length
        if len(some) == most or size > CHUNK_CHARACTERS:
            yield Chunk(start, some)
            start, some, size = start + len(some), [], 0
    if some or not start:
        yield Chunk(start, some)


class _PartActor:
    """An actor that loads the model once, and writes a part file for each chunk."""

    def __init__(self, job: Job, folder: Path) -> None:
        self._job, self._folder = job, folder
        self._worker: Worker | None = None

    def __call__(self, row: RayRow) -> RayRow:
        part = self._folder / row["part"]
        if part.exists():  # written by an interrupted run, or by a worker that died
            return dict(self._job.counts(part))
        if self._worker is None:  # not in __init__: Ray would report its errors as a dead actor
            self._worker = self._job.worker()
        return dict(self._worker.write(pickle.loads(row["chunk"]), part))

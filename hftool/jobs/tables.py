"""Jobs on the rows of tables: `sentiment` and `score` on Ray."""

import logging
import pickle
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

from hftool.arrow import pyarrow
from hftool.errors import UsageError
from hftool.inputs.columns import require_column
from hftool.inputs.files import one_format
from hftool.inputs.records import Shape
from hftool.inputs.table_files import merged_shape, open_shape
from hftool.inputs.tables import TextRow, shape_column, text_rows
from hftool.jobs.cluster import ray
from hftool.jobs.parts import READERS, Chunk, Job, RayRow, files_of, run_job, sources
from hftool.options.engine import EngineOptions
from hftool.options.inputs import InputFormat, TableInputOptions
from hftool.options.output import OnError, TableOptions
from hftool.output.parquet import write_parquet
from hftool.output.tally import report_failures
from hftool.output.view import Row, View, has_failed

log = logging.getLogger("hftool")

CHUNK = 4096  # rows of a part file


@dataclass(frozen=True)
class TableReader:
    """Reads the rows of several files of one format.

    Attributes:
        shape: the columns of all files.
        column: the name of the column with the texts.
        encodings: the encoding of each file's text, as far as it is known.
    """

    format: InputFormat
    inputs: TableInputOptions
    shape: Shape
    column: str
    encodings: tuple[str | None, ...]

    def rows(self, number: int, file: Path) -> Iterator[tuple[TextRow, int]]:
        """Yield the rows of a file, and the length of each text."""
        inputs = replace(self.inputs, encoding=self.encodings[number] or self.inputs.encoding)
        for row in text_rows(file, self.format, inputs, self.shape, self.column):
            yield row, len(row.text)


class TextModel(Protocol):
    """A loaded model that makes a record of each text."""

    def view(self, shape: Shape) -> View:
        """Return how records are written, beside the columns of the input."""

    def records(self, rows: Iterable[TextRow], start: int) -> Iterator[Any]:
        """Yield the records of rows, the first of which is number `start` (from 0)."""

    def counts(self) -> Mapping[str, int]:
        """Return what is to be counted of these records."""


@dataclass(frozen=True, kw_only=True)
class TableJob(Job):
    """A job that makes a record of each row of tables.

    Attributes:
        column: a column that there must be beside that of the texts.
        reader: for the files; None until Ray runs.
    """

    inputs: TableInputOptions
    on_error: OnError = "stop"
    suffix: str = ".parquet"
    chunk: int = CHUNK
    reader: TableReader | None = None

    @property
    @abstractmethod
    def column(self) -> str | None: ...

    @abstractmethod
    def load_model(self) -> TextModel:
        """Load what makes the records."""

    def ready(self, files: Sequence[Path]) -> Self:
        """Return the job with a reader for its files."""
        reader = table_reader(files, self.inputs)
        require_column(reader.shape.names, self.column)
        return replace(self, reader=reader)

    def read(self, number: int, file: Path) -> Iterator[tuple[TextRow, int]]:
        """Yield the rows of a file, and the length of each text."""
        assert self.reader is not None
        return self.reader.rows(number, file)

    def worker(self) -> "_TableWorker":
        """Load the model."""
        assert self.reader is not None
        return _TableWorker(self.load_model(), self.reader.shape, self.on_error)

    def counts(self, part: Path) -> Mapping[str, int]:
        """Return what failed, which is all that a part tells."""
        return {"failed": errors_in(part)}

    def log(self, counts: Counter[str]) -> None:
        """Log what is to be said of a run that counted this."""


@dataclass
class _TableWorker:
    model: TextModel
    shape: Shape
    on_error: OnError

    def write(self, chunk: Chunk, part: Path) -> Mapping[str, int]:
        """Write the records of a chunk, and return how many `rows` there were and how many have
        `failed`: these are left out with `--on-error skip`."""
        counts: Counter[str] = Counter()
        view = self.model.view(self.shape)

        def rows() -> Iterator[Row]:
            for record in self.model.records(chunk.items, chunk.start):
                failed = has_failed(record)
                counts.update(rows=1, failed=failed)
                if not (failed and self.on_error == "skip"):
                    yield from view.rows(record)

        write_parquet(rows(), view, part)
        return {**counts, **self.model.counts()}


def run_table_job(
    paths: Sequence[str], job: TableJob, engine: EngineOptions, output: TableOptions
) -> None:
    """Run a job on files, and on the files in folders, into the folder of `--output`.

    The folder's part files are Parquet, with the same records as a local run.

    Raises:
        UsageError: the options don't go with Ray.
        HftoolError: as `run_job`, or as a local run.
    """
    counts = run_job(table_files(paths, job.inputs, output), job, engine, output)
    job.log(counts)
    report_failures(counts["failed"], left_out=job.on_error == "skip")


def table_files(
    paths: Sequence[str], inputs: TableInputOptions, output: TableOptions
) -> list[Path]:
    """Return the files of a job, which all have one format.

    Raises:
        UsageError: the options don't go with Ray, or the input was given twice or not at all; or as
            `files_of` and `one_format`.
        HftoolError: Ray is not installed; or as `files_of`.
    """
    if output.json or output.format not in (None, "parquet"):
        raise UsageError("--engine ray writes only Parquet", "leave out --format and --json")
    if paths and inputs.files:
        raise UsageError("the input was given twice: as an argument and with --file")
    given = [Path(path) for path in paths or inputs.files or ()]
    files = files_of(given, inputs.input_format, output.output)
    one_format(files, inputs.input_format)
    return files


def table_reader(files: Sequence[Path], inputs: TableInputOptions) -> TableReader:
    """Return the reader of files, whose columns and types Ray's tasks find out.

    Raises:
        UsageError: the files have several formats.
        HftoolError: a file can't be read, or the files have different columns.
    """
    format_ = one_format(files, inputs.input_format)
    shapes: dict[int, Shape] = {}
    found = (
        ray()
        .data.from_items(sources(files))
        .map(_shape, fn_args=(format_, inputs), num_cpus=0, concurrency=READERS)
    )
    for row in found.iter_rows():
        shapes[row["number"]] = pickle.loads(row["shape"])
    in_order = [shapes[number] for number in range(len(files))]
    for file, shape in zip(files, in_order, strict=True):
        if shape.encoding not in (None, "utf-8"):
            log.info("%s is read as %s", file, shape.encoding)
    names = [str(file) for file in files]
    shape = merged_shape(in_order, names, format_)
    shape.schema()  # raises here what would stop the workers
    column = shape_column(shape, inputs, names[0])
    return TableReader(format_, inputs, shape, column, tuple(s.encoding for s in in_order))


def errors_in(part: Path) -> int:
    """Return how many rows of a part have an error."""
    with pyarrow().parquet.ParquetFile(part) as file:
        if "error" not in file.schema_arrow.names:
            return 0
        errors = file.read(["error"])["error"]
        return len(errors) - int(errors.null_count)


def _shape(source: RayRow, format_: InputFormat, inputs: TableInputOptions) -> RayRow:
    """Return what all records of a file have in common."""
    from ray import cloudpickle  # a shape has a function

    dumps: Any = cloudpickle.dumps
    shape = open_shape(Path(source["file"]), format_, inputs)
    return {"number": source["number"], "shape": dumps(shape)}

"""Run `sentiment` on Ray Data: files and folders of tables in, a folder of Parquet files out.

    files → chunks of rows (tasks) → classifications (actors with a loaded model) → part files

Each chunk becomes a part file, named after the chunk's position in the input. A chunk that is
computed twice, because a worker died, gives the same file twice: no row is lost or duplicated, and
the parts sort in the order of the input.
"""

import hashlib
import logging
import os
import pickle
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hftool import config
from hftool.classification.classify import Scorer, classify, log_truncated
from hftool.errors import HftoolError, UsageError
from hftool.extras import import_extra
from hftool.inputs.files import input_files, one_format
from hftool.inputs.records import Shape, merged_shape, open_shape
from hftool.inputs.streams import STDIN
from hftool.inputs.tables import TextRow, shape_column, text_rows
from hftool.models.references import GgufFile, LocalFolder, resolve_reference
from hftool.options.inputs import InputFormat, TableInputOptions
from hftool.options.labels import LabelOptions
from hftool.options.model import ClassifierOptions
from hftool.options.output import TableOptions
from hftool.output.parquet import write_parquet
from hftool.output.resume import resumable_folder
from hftool.output.views.classification import classifications_view

log = logging.getLogger("hftool")

CHUNK = 4096  # rows of a part file, which are computed again if a worker dies
CHUNK_CHARACTERS = 16_000_000  # or fewer rows, once their texts exceed this
READERS = 8  # files to read simultaneously: each reader feeds hundreds of workers
CONNECT_TIMEOUT = 10.0  # seconds

RayRow = dict[str, Any]  # a row of a Ray dataset, which is a file, a chunk or a part


@dataclass(frozen=True)
class LabelJob:
    """What to label, and how: the options of `sentiment` that a job's workers need."""

    load: ClassifierOptions
    labelling: LabelOptions
    inputs: TableInputOptions
    threshold: float | None
    all_scores: bool


@dataclass(frozen=True)
class _Task:
    """A job as its workers get it.

    Attributes:
        format: the format of all files.
        shape: the columns of all files.
        column: the name of the column with the texts.
        encodings: the encoding of each file's text, as far as it is known.
        folder: where the parts are written.
    """

    job: LabelJob
    format: InputFormat
    shape: Shape
    column: str
    encodings: tuple[str | None, ...]
    folder: Path


def label_files(
    paths: Sequence[str], job: LabelJob, address: str | None, output: TableOptions
) -> None:
    """Label the texts in files, and in the files in folders, into the folder of `--output`.

    The folder's part files are Parquet, with the same records as a local run.

    Raises:
        UsageError: the options don't go with Ray.
        HftoolError: Ray is not installed, or can't be started or joined; or as a local run,
            whichever worker met the error.
    """
    if output.json or output.format not in (None, "parquet"):
        raise UsageError("--engine ray writes only Parquet", "leave out --format and --json")
    if output.on_error != "stop":
        raise UsageError(f"--on-error {output.on_error} does not work with --engine ray")
    if output.output is None:
        raise UsageError(
            "--engine ray writes a folder of Parquet files", "name it with -o/--output"
        )
    _ray()
    files, format_ = _input_files(paths, job.inputs, output.output)
    job = replace(job, load=_portable(job.load))
    with resumable_folder(output, _fingerprint(files, job)) as folder:
        with _cluster(address, verbose=output.verbose):
            task = _task(files, format_, job, folder)
            rows = truncated = 0
            for part in _parts(files, task):
                rows, truncated = rows + part["rows"], truncated + part["truncated"]
    log.debug("%d texts in %d files are labelled", rows, len(files))
    log_truncated(truncated)


def _ray() -> Any:
    return import_extra("ray.data", needed_for="--engine ray", extra="ray")


def _input_files(
    paths: Sequence[str], inputs: TableInputOptions, output: Path
) -> tuple[list[Path], InputFormat]:
    """Return the files, sorted by name within each folder, and the one format that all have.

    Raises:
        UsageError: no files or folders were given, or they were given twice; the output is inside
            the input; the files have several formats.
        HftoolError: a folder has no tables.
    """
    if STDIN in (inputs.files or []) or not (paths or inputs.files):
        raise UsageError("--engine ray reads files and folders", "name them as arguments")
    if paths and inputs.files:
        raise UsageError("the input was given twice: as an argument and with --file")
    given = [Path(path).resolve() for path in paths or inputs.files or []]
    for path, name in zip(given, paths or inputs.files or [], strict=True):
        if output.resolve().is_relative_to(path):
            raise UsageError(
                f"-o {output} is inside the input {name}", "name another folder with -o/--output"
            )
    files = input_files(given, inputs.input_format)
    return files, one_format(files, inputs.input_format)


def _portable(load: ClassifierOptions) -> ClassifierOptions:
    """Replace the model's name by one that means the same in workers, which have another current
    folder and may lack the user's aliases."""
    name = load.model
    if name is None:
        return load
    source = resolve_reference(name, load.revision)
    if os.path.exists(os.path.expanduser(name)) and isinstance(source, LocalFolder | GgufFile):
        return replace(load, model=str(source.path))
    return replace(load, model=config.load().aliases.get(name, name))


def _fingerprint(files: Sequence[Path], job: LabelJob) -> str:
    """Return a hash of the files (paths, sizes, times) and of the options that affect the records.

    Raises:
        HftoolError: a file does not exist.
    """
    # These options affect no record, and the token must not be stored, not even as a hash.
    load = replace(job.load, device="auto", offline=False, hub_token=None)
    job = replace(job, load=load)
    try:
        stats = [(file, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    except OSError as error:
        raise HftoolError(f"cannot read {error.filename}: {error.strerror}") from None
    return hashlib.sha256(repr((job, stats)).encode()).hexdigest()


def _task(files: Sequence[Path], format_: InputFormat, job: LabelJob, folder: Path) -> _Task:
    """Complete a job with the columns and types of all files, which Ray's tasks find out."""
    shapes: dict[int, Shape] = {}
    found = (
        _ray()
        .data.from_items(_sources(files))
        .map(_shape, fn_args=(format_, job.inputs), num_cpus=0, concurrency=READERS)
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
    column = shape_column(shape, job.inputs, names[0])
    return _Task(job, format_, shape, column, tuple(s.encoding for s in in_order), folder)


def _sources(files: Sequence[Path]) -> list[RayRow]:
    return [{"number": number, "file": str(file)} for number, file in enumerate(files)]


def _shape(source: RayRow, format_: InputFormat, inputs: TableInputOptions) -> RayRow:
    """Return what all records of a file have in common."""
    from ray import cloudpickle  # a shape has a function

    dumps: Any = cloudpickle.dumps
    shape = open_shape(Path(source["file"]), format_, inputs)
    return {"number": source["number"], "shape": dumps(shape)}


@contextmanager
def _cluster(address: str | None, *, verbose: bool) -> Iterator[None]:
    """Join a cluster, or start one on this machine that ends with the block."""
    ray = _ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = verbose
    context.raise_original_map_exception = True
    context.target_max_block_size = 1  # byte: each chunk is a block, and so has its own task
    if not verbose:
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    with nullcontext() if verbose else _silent_stderr_descriptor():
        try:
            _require_listener(address)
            ray.init(
                address=address,
                include_dashboard=False,
                log_to_driver=verbose,
                logging_level=logging.INFO if verbose else logging.CRITICAL,
            )
        except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            if address == "local":
                raise HftoolError(f"cannot start Ray: {_first_line(error)}") from error
            raise HftoolError(
                f"cannot join the Ray cluster at {address}: {_first_line(error)}",
                "if the cluster requires a token, set RAY_AUTH_MODE=token",
            ) from error
        try:
            yield
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, HftoolError):
                raise error.cause from None
            raise
        except ray.exceptions.RayError as error:
            raise HftoolError(f"Ray failed: {_first_line(error)}") from error
        finally:
            ray.shutdown()


def _require_listener(address: str) -> None:
    """Raise if nothing listens at HOST:PORT; Ray itself would keep trying for minutes.

    Raises:
        OSError: nothing answers there.
        UsageError: the address is one of Ray Client, or another URL.
    """
    if "://" in address:
        raise UsageError(f"--ray-address {address} is not a cluster's address", "give HOST:PORT")
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT).close()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextmanager
def _silent_stderr_descriptor() -> Iterator[None]:
    """Discard what is written to file descriptor 2, where Ray's C++ core bypasses Python's logging;
    what Python writes to `sys.stderr` still appears."""
    stderr, descriptor = sys.stderr, os.dup(2)
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as copy:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
        if stderr is sys.__stderr__:
            sys.stderr = copy
        try:
            yield
        finally:
            sys.stderr = stderr
            os.dup2(descriptor, 2)


def _parts(files: Sequence[Path], task: _Task) -> Iterator[RayRow]:
    """Yield a row for each part when it is written, in any order: how many `rows` it has, and how
    many of their texts were `truncated`."""
    ray = _ray()
    gpus = _gpus_per_worker(task.job.load.device)
    chunks = ray.data.from_items(_sources(files)).flat_map(
        _chunks,
        fn_args=(task,),
        num_cpus=0,  # readers reserve no CPU: workers can have them all
        concurrency=READERS,
    )
    parts = chunks.map(
        _ClassifyActor,
        fn_constructor_args=(task,),
        compute=ray.data.ActorPoolStrategy(min_size=1),
        num_cpus=1,
        num_gpus=gpus,
    )
    yield from parts.iter_rows()


def _gpus_per_worker(device: str) -> int:
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device}: Ray chooses the devices", "use auto, cpu or cuda")
    available = _ray().cluster_resources().get("GPU", 0) >= 1
    if device == "cuda" and not available:
        raise HftoolError("--device cuda: the cluster has no GPU", "use --device cpu or auto")
    return int(available and device != "cpu")


def _chunks(source: RayRow, task: _Task) -> Iterator[RayRow]:
    """Yield the rows of a file in chunks, each with the name of its part; one without rows if the
    file has none."""
    encoding = task.encodings[source["number"]] or task.job.inputs.encoding
    inputs = replace(task.job.inputs, encoding=encoding)
    rows = text_rows(Path(source["file"]), task.format, inputs, task.shape, task.column)
    for number, chunk in enumerate(_chunked(rows)):
        yield {
            "part": f"part-{source['number']:06}-{number:06}.parquet",
            "rows": pickle.dumps(chunk),
        }


def _chunked(rows: Iterable[TextRow]) -> Iterator[list[TextRow]]:
    chunk: list[TextRow] = []
    characters = chunks = 0
    for row in rows:
        chunk.append(row)
        characters += len(row.text)
        if len(chunk) == CHUNK or characters > CHUNK_CHARACTERS:
            yield chunk
            chunk, characters, chunks = [], 0, chunks + 1
    if chunk or not chunks:
        yield chunk


class _ClassifyActor:
    """An actor that loads the model once, and writes a part file for each chunk."""

    def __init__(self, task: _Task) -> None:
        self._task = task
        self._scorer: Scorer | None = None

    def __call__(self, chunk: RayRow) -> RayRow:
        from hftool.classification.scorers import load_scorer

        task = self._task
        part = task.folder / chunk["part"]
        rows: list[TextRow] = pickle.loads(chunk["rows"])
        if part.exists():  # written by an interrupted run, or by a worker that died
            return {"rows": len(rows), "truncated": 0}
        if self._scorer is None:  # not in __init__: Ray would report its errors as a dead actor
            self._scorer = load_scorer(task.job.load, task.job.labelling)
        scorer = self._scorer
        view = classifications_view(task.shape, scorer.labels, all_scores=task.job.all_scores)
        before = scorer.truncated_texts
        classifications = classify(scorer, rows, task.job.threshold)
        write_parquet((row for c in classifications for row in view.rows(c)), view, part)
        return {"rows": len(rows), "truncated": scorer.truncated_texts - before}

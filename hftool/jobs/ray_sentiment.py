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
from itertools import islice
from pathlib import Path
from typing import Any

from hftool import config
from hftool.classification.classify import Scorer, classify, log_truncated
from hftool.errors import HftoolError, UsageError
from hftool.extras import import_extra
from hftool.inputs.tables import TextRow, format_by_suffix, read_table
from hftool.inputs.texts import STDIN
from hftool.models.references import GgufFile, LocalFolder, resolve_reference
from hftool.options.inputs import InputFormat, TableInputOptions
from hftool.options.labels import LabelOptions
from hftool.options.model import ClassifierOptions
from hftool.options.output import TableOptions
from hftool.output.parquet import ROW_GROUP, schema_of, write_parquet
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
        inputs: the job's, with the format and the column set.
        names: the columns of all files.
        schema: the columns' types (`pyarrow.Schema`).
        folder: where the parts are written.
    """

    job: LabelJob
    inputs: TableInputOptions
    names: tuple[str, ...]
    schema: Any
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
        task = _task(files, format_, job, folder)
        with _cluster(address, verbose=output.verbose):
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
    if inputs.file == STDIN or not (paths or inputs.file):
        raise UsageError("--engine ray reads files and folders", "name them as arguments")
    if paths and inputs.file:
        raise UsageError("the input was given twice: as an argument and with --file")
    files: list[Path] = []
    for path in map(Path, paths or [str(inputs.file)]):
        absolute = path.resolve()
        if output.resolve().is_relative_to(absolute):
            raise UsageError(
                f"-o {output} is inside the input {path}", "name another folder with -o/--output"
            )
        if not absolute.is_dir():
            files.append(absolute)
            continue
        tables = sorted(file for file in absolute.rglob("*") if _is_table(file, absolute, inputs))
        if not tables:
            kind = f"{inputs.input_format} files" if inputs.input_format else "tables"
            raise HftoolError(
                f"no {kind} in {path}", "files in folders need a suffix such as .csv or .txt"
            )
        files += tables
    formats = {inputs.input_format or format_by_suffix(file) for file in files}
    if len(formats) > 1:
        names = ", ".join(sorted(formats))
        raise UsageError(f"the input has several formats: {names}", "choose with --input-format")
    return files, formats.pop()


def _is_table(file: Path, folder: Path, inputs: TableInputOptions) -> bool:
    """Return whether a file in a folder is input, which its suffix determines; names that begin
    with "." or "_" are not, as in Spark and Hive."""
    if any(part.startswith((".", "_")) for part in file.relative_to(folder).parts):
        return False
    format_ = format_by_suffix(file)
    wanted = format_ == (inputs.input_format or format_)
    return wanted and (format_ != "lines" or file.suffix.lower() == ".txt") and file.is_file()


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
    """Complete a job with the columns and types of the first file that has columns."""
    inputs = replace(job.inputs, input_format=format_)
    for file in files:
        table = read_table(None, replace(inputs, file=file))
        if table.names:
            break
    names = table.names or (table.column,)
    schema = table.schema
    if schema is None:
        schema = schema_of([row.columns for row in islice(table, ROW_GROUP)], names)
    if format_ != "lines":
        inputs = replace(inputs, column=table.column)
    return _Task(job, inputs, names, schema, folder)


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
    sources = [{"number": number, "file": str(file)} for number, file in enumerate(files)]
    chunks = ray.data.from_items(sources).flat_map(
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
    file = Path(source["file"])
    table = read_table(None, replace(task.inputs, file=file))
    if table.names and task.inputs.input_format != "jsonl" and {*table.names} != {*task.names}:
        names, first = ", ".join(table.names), ", ".join(task.names)
        raise HftoolError(f"{file}: its columns are {names}; those of the first file are {first}")
    for number, chunk in enumerate(_chunked(table)):
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
        view = classifications_view(
            task.names, task.schema, scorer.labels, all_scores=task.job.all_scores
        )
        before = scorer.truncated_texts
        classifications = classify(scorer, rows, task.job.threshold)
        write_parquet((row for c in classifications for row in view.rows(c)), view, part)
        return {"rows": len(rows), "truncated": scorer.truncated_texts - before}

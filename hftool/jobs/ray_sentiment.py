"""`sentiment` on Ray Data: folders of tables in, a folder of Parquet out.

    files → chunks of rows (tasks) → judgements (actors, a loaded model each), a part file a chunk

A part's name follows from its place in the input. A chunk that is computed twice, because a worker
died, is the same file twice: no row is lost or doubled, and the parts sort as the input does.
"""

import hashlib
import logging
import os
import pickle
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from hftool import config
from hftool.classification.classify import Scorer, classify, log_truncated
from hftool.errors import HftoolError, UsageError
from hftool.inputs.tables import TextRow, TextTable, format_by_suffix, read_table
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

CHUNK = 4096  # rows of a part file: what is computed again where a worker dies
CHUNK_CHARACTERS = 16_000_000
READERS = 8  # files read at once: each feeds hundreds of workers
REACH = 10.0  # seconds

Record = dict[str, Any]  # a row of Ray's


@dataclass(frozen=True)
class LabelJob:
    """What the texts are, and which labels they get."""

    load: ClassifierOptions
    labelling: LabelOptions
    inputs: TableInputOptions
    threshold: float | None
    all_scores: bool


@dataclass(frozen=True)
class _Task:
    """A job as workers get it: `inputs` name format and column, `names` and `schema` (pyarrow) are
    those of the input's columns, `folder` is for the parts."""

    job: LabelJob
    inputs: TableInputOptions
    names: tuple[str, ...]
    column: str
    schema: Any
    folder: Path


def label_files(
    paths: Sequence[str], job: LabelJob, address: str | None, output: TableOptions
) -> None:
    """Label the texts of files, and of the files in folders, into part files in the folder of
    `--output`: Parquet, with the records of a local run.

    Raises:
        UsageError: options that don't go with Ray.
        HftoolError: Ray is not installed or can't be had; or as a local run, whichever worker it
            was that met the error.
    """
    if output.json or output.format not in (None, "parquet"):
        raise UsageError("--engine ray writes a folder of Parquet, no other format")
    if output.output is None:
        raise UsageError("--engine ray writes a folder of Parquet", "name it with -o/--output")
    _ray()
    files, format_ = _input_files(paths, job.inputs, output.output)
    job = replace(job, load=_found_anywhere(job.load))
    with resumable_folder(output, _fingerprint(files, job)) as folder:
        task = _task(files, format_, job, folder)
        with _cluster(address, verbose=output.verbose):
            rows = cut = 0
            for part in _parts(files, task):
                rows, cut = rows + part["rows"], cut + part["cut"]
    log.debug("%d texts in %d files are labelled", rows, len(files))
    log_truncated(cut)


def _ray() -> Any:
    try:
        import ray.data
        import ray.exceptions
    except ImportError:
        raise HftoolError(
            "--engine ray needs Ray, which is not installed", "pip install 'hftool-cli[ray]'"
        ) from None
    return ray


def _input_files(
    paths: Sequence[str], inputs: TableInputOptions, output: Path
) -> tuple[list[Path], InputFormat]:
    """The files in the order of their names, folder by folder, and the format of all of them."""
    if inputs.file == STDIN or not (paths or inputs.file):
        raise UsageError("--engine ray reads files and folders", "name them as arguments")
    if paths and inputs.file:
        raise UsageError("the input was given twice: as an argument and with --file")
    files: list[Path] = []
    for path in map(Path, paths or [str(inputs.file)]):
        place = path.resolve()
        if output.resolve().is_relative_to(place):
            raise UsageError(f"-o {output} is inside {path}, which is read")
        if not place.is_dir():
            files.append(place)
            continue
        found = sorted(file for file in place.rglob("*") if _is_table(file, place, inputs))
        if not found:
            kind = f"{inputs.input_format} files" if inputs.input_format else "tables"
            raise HftoolError(f"no {kind} in {path}", "--engine ray goes by the files' suffixes")
        files += found
    formats = {inputs.input_format or format_by_suffix(file) for file in files}
    if len(formats) > 1:
        named = ", ".join(sorted(formats))
        raise UsageError(f"there are several formats: {named}", "choose with --input-format")
    return files, formats.pop()


def _is_table(file: Path, folder: Path, inputs: TableInputOptions) -> bool:
    """Whether a file in a folder is input: by its suffix, and as Spark and Hive name files, not
    with "." or "_" in front."""
    if any(part.startswith((".", "_")) for part in file.relative_to(folder).parts):
        return False
    known = format_by_suffix(file)
    wanted = known == (inputs.input_format or known)
    return wanted and (known != "lines" or file.suffix.lower() == ".txt") and file.is_file()


def _found_anywhere(load: ClassifierOptions) -> ClassifierOptions:
    """The model by a name that means the same in every folder, and without the user's aliases."""
    name = load.model
    if name is None:
        return load
    source = resolve_reference(name, load.revision)
    if os.path.exists(os.path.expanduser(name)) and isinstance(source, LocalFolder | GgufFile):
        return replace(load, model=str(source.path))
    return replace(load, model=config.load().aliases.get(name, name))


def _fingerprint(files: Sequence[Path], job: LabelJob) -> str:
    """What tells a run from others: its files with their sizes and times, and what is done to them.

    Raises:
        HftoolError: a file is not there.
    """
    # What makes no other records; and a token is nothing to keep.
    load = replace(job.load, device="auto", offline=False, hub_token=None)
    job = replace(job, load=load)
    try:
        known = [(file, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    except OSError as error:
        raise HftoolError(f"cannot read {error.filename}: {error.strerror}") from None
    return hashlib.sha256(repr((job, known)).encode()).hexdigest()


def _task(files: Sequence[Path], format_: InputFormat, job: LabelJob, folder: Path) -> _Task:
    """The first file that has columns names those of all of them, and their types."""
    inputs = replace(job.inputs, input_format=format_)
    for file in files:
        rows = read_table(None, replace(inputs, file=file))
        if rows.names:
            break
    names = rows.names or (rows.column,)
    schema = rows.schema
    if schema is None:
        schema = schema_of([row.columns for row in islice(rows, ROW_GROUP)], names)
    if format_ != "lines":
        inputs = replace(inputs, column=rows.column)
    return _Task(job, inputs, names, rows.column, schema, folder)


@contextmanager
def _cluster(address: str | None, *, verbose: bool) -> Iterator[None]:
    """A cluster that was joined, or one on this machine that ends with the block."""
    ray = _ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = verbose
    context.raise_original_map_exception = True
    context.target_max_block_size = 1  # byte: each chunk is a block, and a task of its own
    if not verbose:
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    with nullcontext() if verbose else _descriptor_silenced():
        try:
            _reach(address)
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
                "one that asks for a token is joined with RAY_AUTH_MODE=token",
            ) from error
        try:
            yield
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, HftoolError):
                raise error.cause from None
            raise
        except ray.exceptions.RayError as error:
            raise HftoolError(f"Ray gave up: {_first_line(error)}") from error
        finally:
            ray.shutdown()


def _reach(address: str) -> None:
    """Raise where nothing listens at HOST:PORT: Ray itself would try again and again.

    Raises:
        OSError: what the system says.
        UsageError: it is the address of a Ray Client.
    """
    if "://" in address:
        raise UsageError(f"--ray-address {address}: no address of a cluster", "give HOST:PORT")
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH).close()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextmanager
def _descriptor_silenced() -> Iterator[None]:
    """Nothing from the file descriptor of stderr, to which Ray's C++ core writes past Python's
    logging; what Python writes to `sys.stderr` still comes."""
    stderr, descriptor = sys.stderr, os.dup(2)
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as kept:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        if stderr is sys.__stderr__:
            sys.stderr = kept
        try:
            yield
        finally:
            sys.stderr = stderr
            os.dup2(descriptor, 2)


def _parts(files: Sequence[Path], task: _Task) -> Iterator[Record]:
    """A record for each part as it is done, in no order: its `rows`, and how many were `cut`."""
    ray = _ray()
    gpus = _gpus_of_a_worker(task.job.load.device)
    sources = [{"number": number, "file": str(file)} for number, file in enumerate(files)]
    chunks = ray.data.from_items(sources).flat_map(
        # Without a CPU of their own, so that the workers can have them all.
        _chunks,
        fn_args=(task,),
        num_cpus=0,
        concurrency=READERS,
    )
    parts = chunks.map(
        _Judge,
        fn_constructor_args=(task,),
        compute=ray.data.ActorPoolStrategy(min_size=1),
        num_cpus=1,
        num_gpus=gpus,
    )
    yield from parts.iter_rows()


def _gpus_of_a_worker(device: str) -> int:
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device}: Ray chooses the devices", "use auto, cpu or cuda")
    there = _ray().cluster_resources().get("GPU", 0) >= 1
    if device == "cuda" and not there:
        raise HftoolError("--device cuda: the cluster has no GPU")
    return int(there and device != "cpu")


def _chunks(source: Record, task: _Task) -> Iterator[Record]:
    """The rows of a file, chunk by chunk; one without rows where the file has none."""
    file = Path(source["file"])
    rows = read_table(None, replace(task.inputs, file=file))
    if rows.names and task.inputs.input_format != "jsonl" and {*rows.names} != {*task.names}:
        theirs, ours = ", ".join(rows.names), ", ".join(task.names)
        raise HftoolError(f"{file}: its columns are {theirs}, where the first file has {ours}")
    for number, chunk in enumerate(_chunked(rows)):
        yield {
            "part": f"part-{source['number']:06}-{number:06}.parquet",
            "rows": pickle.dumps(chunk),
        }


def _chunked(rows: Iterator[TextRow] | TextTable) -> Iterator[list[TextRow]]:
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


class _Judge:
    """An actor: one loaded model, which makes a part file of each chunk."""

    def __init__(self, task: _Task) -> None:
        self._task = task
        self._scorer: Scorer | None = None

    def __call__(self, record: Record) -> Record:
        from hftool.classification.scorers import load_scorer

        task = self._task
        part = task.folder / record["part"]
        chunk: list[TextRow] = pickle.loads(record["rows"])
        if part.exists():  # by a run that was cut off, or a worker that died
            return {"rows": len(chunk), "cut": 0}
        if self._scorer is None:  # not in __init__: its errors would come out as a dead actor
            self._scorer = load_scorer(task.job.load, task.job.labelling)
        scorer = self._scorer
        rows = TextTable(task.names, task.column, iter(chunk), task.schema)
        view = classifications_view(rows, scorer.labels, all_scores=task.job.all_scores)
        before = scorer.cut
        judgements = classify(scorer, rows, task.job.threshold)
        write_parquet((row for j in judgements for row in view.rows(j)), view, part)
        return {"rows": len(chunk), "cut": scorer.cut - before}

"""Output of runs that can be resumed after they were interrupted.

Each record is appended to `FILE.partial`, which is renamed to FILE when all records are complete.
Whatever ends the run before that, `FILE.partial` stays, and FILE is as it was.
"""

import csv
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from filelock import FileLock, Timeout

from hftool.atomic_files import atomic_file, permissions, write_errors
from hftool.errors import HftoolError, UsageError
from hftool.options.output import ResumableOptions
from hftool.output.formats import HEADED, format_name
from hftool.output.view import View
from hftool.tsv import LONGEST_CELL, tsv_cells

log = logging.getLogger("hftool")

RESUMABLE = ("text", "jsonl", "csv", "tsv")  # the formats whose records are independent lines
START_OVER = "repeat the options of the interrupted run, or remove it to start over"

Item = TypeVar("Item")


@dataclass(frozen=True)
class Done:
    """The complete records of a partial file.

    Attributes:
        records: how many there are.
        end: the size in bytes up to the end of the last one.
        header: the columns, in csv and tsv; else None.
        last: the last record by column (in csv and tsv all values are strings); empty in `text`,
            which has no columns.
    """

    records: int
    end: int
    header: Sequence[str] | None
    last: Mapping[str, Any] = field(default_factory=dict)


class Partial:
    """A partial file, open to append to its complete records.

    Attributes:
        done: the records that it held when it was opened.
        grew: whether a record was appended since.

    Raises:
        HftoolError: the file holds something other than records of this format.
    """

    def __init__(self, path: Path, file: BinaryIO, name: str) -> None:
        self.path = path
        self.done = _done(path, file, name)
        self.grew = False
        self._file = file
        file.seek(self.done.end)
        file.truncate()

    def having(self, name: str) -> int:
        """Return how many of the complete records have a field of this name (in jsonl)."""
        with self.path.open(encoding="utf-8") as file:
            return sum(name in json.loads(line) for line in file if line.startswith("{"))

    def append(self, lines: Iterator[str], header: Sequence[str] | None) -> None:
        """Write lines, and flush after each.

        With a header the first line names the columns; it is written to an empty file only.

        Raises:
            HftoolError: the records in the file have other columns.
        """
        if header is not None:
            first = next(lines)
            if self.done.header is None:
                self._file.write(first.encode())
            elif list(self.done.header) != list(header):
                raise HftoolError(f"{self.path} has other columns than this run", START_OVER)
        for line in lines:
            self._file.write(line.encode())
            self._file.flush()
            self.grew = True

    def sync(self) -> None:
        """Have the system write the whole file to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())


@contextmanager
def resumable(options: ResumableOptions, view: View) -> Iterator[Partial | None]:
    """Open the partial file of `--output`, and rename it to the output when the block ends well.

    With `--resume` it holds the records of an earlier run, interrupted or complete. The block gets
    None where records are written elsewhere (stdout, a device), or in a format that can't be
    resumed.

    Raises:
        UsageError: `--resume` was given, but this output can't be resumed.
        HftoolError: a partial file exists and `--resume` was not given; another process is writing
            it; it holds something other than records of this format; it can't be written.
    """
    name, path = format_name(options, view), options.output
    if options.resume and path is None:
        raise UsageError("--resume needs an output file", "name it with -o/--output")
    if options.resume and name not in RESUMABLE:
        raise UsageError(
            f"--resume does not work with the format {name}", f"use one of {', '.join(RESUMABLE)}"
        )
    device = path is not None and path.exists() and not path.is_file()
    if options.resume and device:
        raise UsageError(f"--resume: {path} is not a regular file")
    if path is None or name not in RESUMABLE or device:
        yield None
        return
    target = path.resolve()
    beside = target.with_name(f"{target.name}.partial")
    _require_folder(path)
    with write_errors(path), _locked(beside):
        existed = _exists(beside, options)
        partial: Partial | None = None
        try:
            with os.fdopen(os.open(beside, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
                beside.chmod(permissions(target))
                if options.resume and not existed and target.exists():
                    with target.open("rb") as complete:
                        shutil.copyfileobj(complete, file)
                partial = Partial(beside, file, name)
                if partial.done.records:
                    log.info("resuming after record %d", partial.done.records)
                yield partial
                partial.sync()
            beside.replace(target)
        except BaseException:
            if not existed and not (partial and partial.grew):
                beside.unlink(missing_ok=True)
            else:
                _log_partial(beside)
            raise


@contextmanager
def resumable_folder(options: ResumableOptions, fingerprint: str) -> Iterator[Path]:
    """Do the same as `resumable` for a folder of files, each of which is complete if it exists.

    The block gets the partial folder, which also holds the `fingerprint` of its run. Hidden files
    in it are removed at the end.

    Raises:
        UsageError: `--output` was not given.
        HftoolError: the output exists and is not an empty folder; the partial folder is of a run
            with another fingerprint; else as `resumable`.
    """
    path = options.output
    if path is None:
        raise UsageError("an output folder is needed", "name it with -o/--output")
    target = path.resolve()
    beside = target.with_name(f"{target.name}.partial")
    _require_folder(path)
    with write_errors(path), _locked(beside):
        if target.exists() and not (target.is_dir() and next(target.iterdir(), None) is None):
            raise HftoolError(f"{path} exists already", "name another folder with -o/--output")
        run = beside / ".run"
        if _exists(beside, options) and run.exists() and run.read_text() != fingerprint:
            raise HftoolError(f"{beside} is from a run with other input or options", START_OVER)
        beside.mkdir(exist_ok=True)
        try:
            with atomic_file(run) as file:
                file.write(fingerprint)
            yield beside
            for hidden in beside.glob(".*"):
                hidden.unlink()
            beside.replace(target)
        except BaseException:
            if next(beside.glob("[!.]*"), None) is None:
                shutil.rmtree(beside)
            else:
                _log_partial(beside)
            raise


def _require_folder(path: Path) -> None:
    """Raise where the output's folder does not exist: the lock beside it would create one."""
    if not path.resolve().parent.is_dir():
        raise HftoolError(f"cannot write {path}: the folder {path.parent} does not exist")


def _exists(partial: Path, options: ResumableOptions) -> bool:
    """Return whether there is partial output to resume; raise if there is, without `--resume`."""
    exists = partial.exists()
    if exists and not options.resume:
        raise HftoolError(
            f"{partial} exists: it is from an interrupted run",
            "continue that run with --resume, or remove it to start over",
        )
    return exists


def _log_partial(partial: Path) -> None:
    log.warning("%s holds the finished records; --resume continues the run", partial.name)


def remaining(
    partial: Partial | None, items: Iterable[Item], fields: Callable[[Item], Mapping[str, Any]]
) -> Iterator[Item]:
    """Yield the items whose records are not in the partial file yet.

    Args:
        fields: returns the values that an item's record must have as well; they are compared for
            the last record of the partial file.

    Raises:
        HftoolError: the partial file is from another input.
    """
    rest = iter(items)
    if partial is not None and (count := partial.done.records):
        last = partial.done.last
        item = next(islice(rest, count - 1, None), None)
        shared = {} if item is None else fields(item)
        # In csv and tsv a null is an empty cell.
        same = all((last.get(name, value) or "") == (value or "") for name, value in shared.items())
        if item is None or not same:
            raise HftoolError(
                f"{partial.path} is from another input: its record {count} is not this input's",
                "name another file with -o/--output, or remove it to start over",
            )
    yield from rest


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from writing a partial file or folder."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise HftoolError(f"another process is writing {path}") from None
    try:
        yield
    finally:
        with suppress(FileNotFoundError):  # removed by another process that held the lock
            Path(lock.lock_file).unlink()
        lock.release()


def _done(path: Path, file: BinaryIO, name: str) -> Done:
    """Read the complete records of a file in the format `name`."""
    header: list[str] | None = None
    last: Any = None
    count = end = 0
    try:
        for end_of_record, record in _complete_records(file, name):
            end = end_of_record
            if name in HEADED and header is None:
                header = _cells(record, name)
            else:
                count, last = count + 1, record
        if last is None or name == "text":
            return Done(count, end, header)
        if name == "jsonl":
            return Done(count, end, None, dict(json.loads(last)))
        return Done(count, end, header, dict(zip(header or (), _cells(last, name), strict=True)))
    except (ValueError, TypeError, csv.Error):
        raise HftoolError(f"{path} does not hold {name} records of a run", START_OVER) from None


def _complete_records(file: BinaryIO, name: str) -> Iterator[tuple[int, Any]]:
    """Yield each complete record after the offset of its end; a truncated last one is left out."""
    end = 0

    def lines() -> Iterator[str]:
        nonlocal end
        for line in file:
            if line.endswith(b"\n"):
                end += len(line)
                yield line.decode()

    file.seek(0)
    if name != "csv":
        yield from ((end, line) for line in lines())
        return
    csv.field_size_limit(LONGEST_CELL)
    rows = csv.reader(lines(), strict=True)
    try:
        for row in rows:
            yield end, row
    except csv.Error:  # expected at the end of the file, inside a quoted cell
        if file.read(1):
            raise


def _cells(record: Any, name: str) -> list[str]:
    return record if name == "csv" else tsv_cells(record)

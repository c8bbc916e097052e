"""Output that a run which was cut off can go on with.

Records are written to `FILE.partial` one by one, and it is renamed to FILE when they are complete.
Whatever ends the run before, `FILE.partial` stays, and FILE is as it was.
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
from hftool.output.formats import HEADED
from hftool.output.view import View
from hftool.output.writer import format_name
from hftool.tsv import LONGEST_CELL, tsv_cells

log = logging.getLogger("hftool")

RESUMABLE = ("text", "jsonl", "csv", "tsv")

Item = TypeVar("Item")


@dataclass(frozen=True)
class Done:
    """The complete records of a partial file.

    `end` is the place behind them in bytes, `header` the columns of csv and tsv, `last` the last
    record by column (in csv and tsv all strings), empty in `text`, which has no columns.
    """

    records: int
    end: int
    header: Sequence[str] | None
    last: Mapping[str, Any] = field(default_factory=dict)


class Partial:
    """A partial file, open for writing behind what is `done`; `grew` once a record was added."""

    def __init__(self, path: Path, file: BinaryIO, name: str) -> None:
        self.path = path
        self.done = _done(path, file, name)
        self.grew = False
        self._file = file
        file.seek(self.done.end)
        file.truncate()

    def having(self, name: str) -> int:
        """How many of the records that are done have this field (in jsonl)."""
        with self.path.open(encoding="utf-8") as file:
            return sum(name in json.loads(line) for line in file if line.startswith("{"))

    def append(self, lines: Iterator[str], header: Sequence[str] | None) -> None:
        """Write the lines of a format, each at once. In a format with a header it is the first
        line; one that is there is not repeated.

        Raises:
            HftoolError: the records that are there have other columns.
        """
        if header is not None:
            first = next(lines)
            if self.done.header is None:
                self._file.write(first.encode())
            elif list(self.done.header) != list(header):
                raise HftoolError(
                    f"{self.path} has other columns than this run",
                    "give the options of the run that was cut off, or remove it to start anew",
                )
        for line in lines:
            self._file.write(line.encode())
            self._file.flush()
            self.grew = True

    def sync(self) -> None:
        """Have all of it on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())


@contextmanager
def resumable(options: ResumableOptions, view: View) -> Iterator[Partial | None]:
    """The partial file of `--output`, renamed to it when the block ends well; None where records
    go elsewhere (stdout, a device), or in a format that is written whole.

    With `--resume` it holds what an earlier run wrote, be it cut off or complete.

    Raises:
        UsageError: there is nothing that can be resumed.
        HftoolError: there is a partial file, and no `--resume`; another process writes it; it holds
            no records of this format; it can't be written.
    """
    name, path = format_name(options, view), options.output
    if options.resume and path is None:
        raise UsageError("--resume goes on with a file", "name it with -o/--output")
    if options.resume and name not in RESUMABLE:
        raise UsageError(
            f"--resume: the format {name} is written as a whole",
            f"use one of {', '.join(RESUMABLE)}",
        )
    device = path is not None and path.exists() and not path.is_file()
    if options.resume and device:
        raise UsageError(f"--resume: {path} is no regular file")
    if path is None or name not in RESUMABLE or device:
        yield None
        return
    target = path.resolve()
    place = target.with_name(f"{target.name}.partial")
    with write_errors(path), _locked(place):
        there = _is_there(place, options)
        partial: Partial | None = None
        try:
            with os.fdopen(os.open(place, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
                place.chmod(permissions(target))
                if options.resume and not there and target.exists():
                    with target.open("rb") as complete:
                        shutil.copyfileobj(complete, file)
                partial = Partial(place, file, name)
                if partial.done.records:
                    log.info("going on after %d records", partial.done.records)
                yield partial
                partial.sync()
            place.replace(target)
        except BaseException:
            if not there and not (partial and partial.grew):
                place.unlink(missing_ok=True)
            else:
                _say_kept(place)
            raise


@contextmanager
def resumable_folder(options: ResumableOptions, fingerprint: str) -> Iterator[Path]:
    """As `resumable`, for a folder of files of which each is there whole or not at all: the partial
    folder, which keeps the `fingerprint` of its run. Hidden files in it are gone at the end.

    Raises:
        UsageError: no `--output`.
        HftoolError: it holds something; the partial folder is of another run; else as `resumable`.
    """
    path = options.output
    if path is None:
        raise UsageError("there is no folder to write to", "name it with -o/--output")
    target = path.resolve()
    place = target.with_name(f"{target.name}.partial")
    with write_errors(path), _locked(place):
        if target.exists() and not (target.is_dir() and next(target.iterdir(), None) is None):
            raise HftoolError(f"{path} is there already", "name another folder with -o/--output")
        known = place / ".run"
        if _is_there(place, options) and known.exists() and known.read_text() != fingerprint:
            raise HftoolError(
                f"{place} is of another input, or of other options",
                "give those of the run that was cut off, or remove it to start anew",
            )
        place.mkdir(exist_ok=True)
        try:
            with atomic_file(known) as file:
                file.write(fingerprint)
            yield place
            for left_over in place.glob(".*"):
                left_over.unlink()
            place.replace(target)
        except BaseException:
            if next(place.glob("[!.]*"), None) is None:
                shutil.rmtree(place)
            else:
                _say_kept(place)
            raise


def _is_there(place: Path, options: ResumableOptions) -> bool:
    """Whether something is there to go on with; raises where that was not asked for."""
    there = place.exists()
    if there and not options.resume:
        raise HftoolError(
            f"{place} is there from a run that was cut off",
            "--resume goes on with it; remove it to start anew",
        )
    return there


def _say_kept(place: Path) -> None:
    log.warning("%s holds what is done; --resume goes on with it", place.name)


def remaining(
    partial: Partial | None, items: Iterable[Item], fields: Callable[[Item], Mapping[str, Any]]
) -> Iterator[Item]:
    """The items whose records are not done yet.

    `fields` are the values an item shares with its record; the last record that is done is held
    against those of its item.

    Raises:
        HftoolError: the partial output is of another input.
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
                f"{partial.path}: the partial output is of another input: "
                f"its record {count} is not the input's",
                "name another file with -o/--output, or remove it to start anew",
            )
    yield from rest


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Keep other processes away from a partial file."""
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise HftoolError(f"another process is writing {place}") from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows
            Path(lock.lock_file).unlink()
        lock.release()


def _done(path: Path, file: BinaryIO, name: str) -> Done:
    """What a file holds, up to its last complete record."""
    header: list[str] | None = None
    last: Any = None
    count = end = 0
    try:
        for behind, record in _whole_records(file, name):
            end = behind
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
        raise HftoolError(
            f"{path} holds something else than the {name} records of a run",
            "give the options of the run that was cut off, or remove it to start anew",
        ) from None


def _whole_records(file: BinaryIO, name: str) -> Iterator[tuple[int, Any]]:
    """Each complete record with the place where it ends; one that is torn is left out."""
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
    except csv.Error:  # inside a quoted cell
        if file.read(1):
            raise


def _cells(record: Any, name: str) -> list[str]:
    return record if name == "csv" else tsv_cells(record)

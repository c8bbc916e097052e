"""Output of runs that can be resumed after they were interrupted.

Each record is appended to `FILE.partial`, which is renamed to FILE when all records are complete.
Whatever ends the run before that, `FILE.partial` stays, and FILE is as it was. The log of the run
is in `FILE.partial.run`: resuming never has to find the records in the output.
"""

import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from filelock import FileLock, Timeout

from hftool.atomic_files import atomic_file, permissions, write_errors
from hftool.errors import HftoolError, UsageError
from hftool.options.output import ResumableOptions
from hftool.output.formats import HEADED, format_name
from hftool.output.run_log import Entry, RunLog, Settings, complete_log, digest, keep_complete
from hftool.output.view import View

log = logging.getLogger("hftool")

RESUMABLE = ("text", "jsonl", "csv", "tsv")  # the formats whose records are written one by one
START_OVER = "repeat the options of the interrupted run, or remove it to start over"
OTHER_INPUT = "name another file with -o/--output, or remove it to start over"

Item = TypeVar("Item")


class Partial:
    """A partial file and the log of its run, open to append records.

    Attributes:
        path: what errors call the file.
        done: how many records it held when it was opened.
        failed: how many of these have failed.
        grew: whether a record was appended since.
    """

    def __init__(self, path: Path, output: BinaryIO, run: RunLog) -> None:
        self.path = path
        self.done = run.entries
        self.failed = sum(entry.failed for entry in run)
        self.grew = False
        self._output, self._run = output, run
        self._digests: deque[bytes] = deque()  # of the items whose records are still to come
        output.seek(run.last_end())
        output.truncate()

    def remaining(self, items: Iterable[Item], source: Callable[[Item], Any]) -> Iterator[Item]:
        """Yield the items whose records are still to be made.

        Raises:
            HftoolError: an item is not the one that the interrupted run had in its place.
        """
        rest = iter(items)
        for number, entry in enumerate(self._run, 1):
            item = next(rest, None)
            if item is None or digest(source(item)) != entry.digest:
                raise HftoolError(
                    f"{self.path} is from another input: its record {number} is not this input's",
                    OTHER_INPUT,
                )
        for item in rest:
            self._digests.append(digest(source(item)))
            yield item

    def append(self, header: str, records: Iterable[tuple[str, bool]]) -> None:
        """Write a record for each remaining item, and flush after each.

        Args:
            header: the first line of a new file, "" if its format has none.
            records: the text of each, "" for an item that gets none, and whether it failed.
        """
        if not self._run.entries:
            self._output.write(header.encode())
        for text, failed in records:
            self._output.write(text.encode())
            self._output.flush()
            self._run.append(Entry(self._output.tell(), self._digests.popleft(), failed))
            self.grew = True

    def sync(self) -> None:
        """Have the system write the whole file to the disk."""
        self._output.flush()
        os.fsync(self._output.fileno())


def remaining(
    partial: Partial | None,
    items: Iterable[Item],
    source: Callable[[Item], Any] = lambda item: item,
) -> Iterator[Item]:
    """Yield the items whose records are not in the partial file yet: all, if there is no such file.

    Each of them must get a record, in this order.

    Args:
        source: returns what an item's record is made from. Its `repr` is compared with that of the
            interrupted run, for every record.

    Raises:
        HftoolError: as `Partial.remaining`.
    """
    return iter(items) if partial is None else partial.remaining(items, source)


@contextmanager
def resumable(
    options: ResumableOptions, view: View, settings: Callable[[], Settings]
) -> Iterator[Partial | None]:
    """Open the partial file of `--output`, and rename it to the output when the block ends well.

    With `--resume` it holds the records of an earlier run, interrupted or complete. The block gets
    None where records are written elsewhere (stdout, a device), or in a format that can't be
    resumed.

    Args:
        settings: returns what shapes the records beside their input. A run is only resumed with the
            same settings.

    Raises:
        UsageError: `--resume` was given, but this output can't be resumed.
        HftoolError: a partial file exists and `--resume` was not given; another process is writing
            it; its log is missing or broken, or from a run with other settings; it can't be
            written.
    """
    name = format_name(options, view)
    path = _resumable_path(options, name)
    if path is None:
        yield None
        return
    target = path.resolve()
    beside = target.with_name(f"{target.name}.partial")
    log_path = beside.with_name(f"{beside.name}.run")
    _require_folder(path)
    with write_errors(path), _locked(beside):
        existed = _exists(beside, options)
        shape = {"--format": name, "the columns": view.columns if name in HEADED else None}
        partial: Partial | None = None
        try:
            if not existed:
                log_path.unlink(missing_ok=True)
                if options.resume and target.exists():
                    _reopen(target, beside, log_path)
            # A complete output is continued in a copy, which the user does not know of.
            shown = path.with_name(beside.name) if existed else path
            with _opened(beside) as output, _opened(log_path) as run_file:
                beside.chmod(permissions(target))
                size = beside.stat().st_size
                run = _open_log(shown, run_file, size, {**shape, **settings()})
                partial = Partial(shown, output, run)
                if run.entries:
                    log.info("resuming after record %d", run.entries)
                yield partial
                partial.sync()
            keep_complete(log_path, target, beside)
            beside.replace(target)
            log_path.unlink()
        except BaseException:
            if not existed and not (partial and partial.grew):
                beside.unlink(missing_ok=True)
                log_path.unlink(missing_ok=True)
            elif partial and partial.grew:
                _log_partial(beside)
            raise


def _resumable_path(options: ResumableOptions, name: str) -> Path | None:
    """Return the file of `--output`, None if output to it in this format can't be resumed.

    Raises:
        UsageError: that is so, and `--resume` was given.
    """
    path = options.output
    if options.resume and name not in RESUMABLE:
        raise UsageError(
            f"--resume does not work with the format {name}", f"use one of {', '.join(RESUMABLE)}"
        )
    device = path is not None and path.exists() and not path.is_file()
    if options.resume and device:
        raise UsageError(f"--resume: {path} is not a regular file")
    return None if device or name not in RESUMABLE else path


def _opened(path: Path) -> BinaryIO:
    """Open a file to read and write; a new one is readable by the user only."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")


def _reopen(target: Path, beside: Path, log_path: Path) -> None:
    """Copy a complete output and the log of its run back to where an interrupted run has them.

    Raises:
        HftoolError: the output is not as a run of hftool left it.
    """
    kept = complete_log(target, target)
    if not kept.is_file():
        raise HftoolError(
            f"cannot resume {target}: it was changed since, or hftool has no log of its run",
            OTHER_INPUT,
        )
    shutil.copyfile(kept, log_path)
    shutil.copyfile(target, beside)


def _open_log(path: Path, file: BinaryIO, size: int, settings: Settings) -> RunLog:
    """Open the log of a file of `size` bytes, which errors call `path`.

    Raises:
        HftoolError: it is missing, broken, or of a run with other settings.
    """
    try:
        return RunLog(file, settings, size)
    except HftoolError as error:
        raise HftoolError(f"{path} is from another run: {error}", START_OVER) from None
    except ValueError:
        cause = f"the log of its run, {path.name}.run, is missing or broken"
        raise HftoolError(f"cannot resume {path}: {cause}", "remove it to start over") from None


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

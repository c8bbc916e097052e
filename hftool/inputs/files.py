"""The files of the input, and the format of each."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hftool.errors import HftoolError, UsageError
from hftool.inputs.other_kinds import LONGEST_MARK, binary_kind
from hftool.inputs.streams import COMPRESSED, STDIN
from hftool.options.inputs import InputFormat

SUFFIXES: dict[str, InputFormat] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".parq": "parquet",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
}
_MAGIC: dict[bytes, InputFormat] = {b"PAR1": "parquet", b"PK\x03\x04": "xlsx"}
_VERSIONED = {"_delta_log": "a Delta table", ".hoodie": "a Hudi table"}  # by a folder in it
_PARTITION = re.compile(r"([^=]+)=(.*)")


def input_files(paths: Sequence[Path], input_format: InputFormat | None) -> list[Path]:
    """Return the files, and instead of each folder the tables in it, sorted by name.

    Raises:
        UsageError: stdin is among several files.
        HftoolError: a folder has no tables, they are partitioned by columns in folder names, or
            some of them are old versions.
    """
    if len(paths) > 1 and STDIN in paths:
        raise UsageError("stdin can't be read beside other files", "give it alone, as -f -")
    files: list[Path] = []
    for path in paths:
        files += list(_tables_in(path, input_format)) if path.is_dir() else [path]
    return files


def _tables_in(folder: Path, input_format: InputFormat | None) -> Iterator[Path]:
    if kind := next((kind for name, kind in _VERSIONED.items() if (folder / name).is_dir()), None):
        raise HftoolError(
            f"{folder} is {kind}, whose files also hold rows that were deleted or replaced",
            "write its current rows to files of their own",
        )
    tables = sorted(file for file in folder.rglob("*") if _is_table(file, folder, input_format))
    if not tables:
        kind = f"{input_format} files" if input_format else "tables"
        raise HftoolError(
            f"no {kind} in {folder}", "files in folders need a suffix such as .csv or .txt"
        )
    for file in tables:
        for part in file.relative_to(folder).parts[:-1]:
            if match := _PARTITION.fullmatch(part):
                raise HftoolError(
                    f"{folder} is partitioned by the column '{match[1]}', which is in the names of"
                    " folders and not in the files",
                    "name one of these folders with -f, or write the table to files of its own",
                )
        yield file


def _is_table(file: Path, folder: Path, input_format: InputFormat | None) -> bool:
    """Return whether a file in a folder is input, which its suffix determines; names that begin
    with "." or "_" are not, as in Spark and Hive, nor those of open documents (`~$`)."""
    if any(part.startswith((".", "_", "~$")) for part in file.relative_to(folder).parts):
        return False
    by_suffix = format_by_suffix(file)
    wanted = by_suffix == (input_format or by_suffix)
    is_text = by_suffix != "lines" or _suffix(file) == ".txt"
    return wanted and is_text and file.is_file()


def format_by_suffix(file: Path | None) -> InputFormat:
    """Return the format that a file's suffix names, before that of a compression; "lines" where it
    names none."""
    return "lines" if file is None else SUFFIXES.get(_suffix(file), "lines")


def _suffix(file: Path) -> str:
    suffix = file.suffix.lower()
    return file.with_suffix("").suffix.lower() if suffix in COMPRESSED else suffix


def is_table_name(name: str) -> bool:
    """Return whether a text is the name of an existing file, or of a folder that is called like
    a table."""
    if "\n" in name or len(name.encode(errors="replace")) > 255:
        return False
    path = Path(name)
    try:
        return path.is_file() or (path.is_dir() and path.suffix.lower() in SUFFIXES)
    except (OSError, ValueError):
        return False


def format_by_content(file: Path) -> InputFormat | None:
    """Return the format that the first bytes of a file name, None where they name none.

    Raises:
        HftoolError: the file can't be read, or is of a kind that hftool does not read.
    """
    try:
        with file.open("rb") as stream:
            head = stream.read(LONGEST_MARK)
    except OSError as error:
        raise HftoolError(f"cannot read {file}: {error.strerror}") from None
    if kind := binary_kind(head):
        raise HftoolError(f"{file} is {kind}", "save it as .xlsx, .csv or .parquet")
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def one_format(files: Sequence[Path], input_format: InputFormat | None) -> InputFormat:
    """Return the one format that all files have: the one asked for, else by content or suffix.

    Raises:
        UsageError: the files have several formats.
        HftoolError: a file can't be read.
    """
    formats = {
        input_format or (format_by_content(f) if f.is_file() else None) or format_by_suffix(f)
        for f in files
    }
    if len(formats) > 1:
        names = ", ".join(sorted(formats))
        raise UsageError(f"the input has several formats: {names}", "choose with --input-format")
    return formats.pop()

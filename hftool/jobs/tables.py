"""Jobs on the rows of tables: `sentiment` and `score` on Ray."""

import logging
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hftool.arrow import pyarrow
from hftool.errors import UsageError
from hftool.inputs.files import one_format
from hftool.inputs.records import Shape, merged_shape, open_shape
from hftool.inputs.tables import TextRow, shape_column, text_rows
from hftool.jobs.cluster import ray
from hftool.jobs.parts import READERS, RayRow, files_of, sources
from hftool.options.inputs import InputFormat, TableInputOptions
from hftool.options.output import OnError, TableOptions
from hftool.output.parquet import write_parquet
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


def require_parquet(output: TableOptions) -> None:
    """Raise where an option asks for something else than a folder of Parquet files.

    Raises:
        UsageError: with the option.
    """
    if output.json or output.format not in (None, "parquet"):
        raise UsageError("--engine ray writes only Parquet", "leave out --format and --json")


def table_files(
    paths: Sequence[str], inputs: TableInputOptions, output: TableOptions
) -> list[Path]:
    """Return the files of a job, which all have one format.

    Raises:
        UsageError: the options don't go with Ray, or the input was given twice or not at all; or as
            `files_of` and `one_format`.
        HftoolError: Ray is not installed; or as `files_of`.
    """
    require_parquet(output)
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


def write_results(
    records: Iterable[Any], view: View, part: Path, on_error: OnError
) -> Mapping[str, int]:
    """Write a part of the records of texts, and return how many `rows` there were and how many have
    `failed`: these are left out with `--on-error skip`."""
    counts: Counter[str] = Counter()

    def rows() -> Iterator[Row]:
        for record in records:
            failed = has_failed(record)
            counts.update(rows=1, failed=failed)
            if not (failed and on_error == "skip"):
                yield from view.rows(record)

    write_parquet(rows(), view, part)
    return counts


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

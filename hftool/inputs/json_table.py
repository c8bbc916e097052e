"""The records of a JSON or JSON Lines file."""

import shutil
import tempfile
from dataclasses import replace
from itertools import chain
from pathlib import Path

from hftool.arrow import ColumnTypes
from hftool.errors import HftoolError
from hftool.inputs.columns import is_path, is_text_name
from hftool.inputs.json_records import is_array, json_lines, json_values
from hftool.inputs.records import Columns, NumberedRecords, Records, Shape
from hftool.inputs.streams import is_live, open_stream, source_name
from hftool.inputs.texts import LineSource, require_data_lines
from hftool.options.inputs import InputFormat, TableInputOptions


def json_file_records(
    file: Path | None,
    format_: InputFormat,
    options: TableInputOptions,
    *,
    whole: bool,
    source: LineSource | None = None,
) -> Records:
    """Return the records of a JSON or JSON Lines file.

    A file is read twice: first for the types of its columns.

    Args:
        whole: as in `read_table`.
        source: its lines, if some of them have been looked at.

    Raises:
        HftoolError: the file can't be read, or is one object around the records.
    """
    if whole and is_live(file):
        return _json_of_copy(file, format_, options)
    source = source or LineSource(file, options)
    records, unit = _json_records(source, format_, options)
    types, short_name = ColumnTypes(), Path(source.name).name
    if is_live(file):
        begun: list[tuple[int, Columns | HftoolError]] = []
        for number, record in records:
            begun.append((number, record))
            if not isinstance(record, HftoolError):
                types.add(record, f"{short_name}: {unit} {number}")
                break
        records = chain(begun, records)
    else:
        for number, record in records:
            if not isinstance(record, HftoolError):
                types.add(record, f"{short_name}: {unit} {number}")
        # The encoding that was recognised is logged only once.
        known = replace(options, encoding=source.encoding or options.encoding)
        records, _ = _json_records(LineSource(file, known, source.name), format_, options)
    names = tuple(types)
    shape = Shape(names, names, types.schema, types, encoding=source.encoding)
    return Records(shape, records, unit)


def _json_records(
    source: LineSource, format_: InputFormat, options: TableInputOptions
) -> tuple[NumberedRecords, str]:
    """Return the records of a file, and what their numbers count."""
    head, _ = source.head(least=1)
    require_data_lines(head, source.name)
    if format_ == "json" or is_array(head):
        records = json_values(source, options.errors, source.name)
        return _require_bare(records, options, source.name), "record"
    return json_lines(source, options.errors), "line"


def _require_bare(
    records: NumberedRecords, options: TableInputOptions, name: str
) -> NumberedRecords:
    """Yield the same records, but raise where the only one is an object around the records.

    Raises:
        HftoolError: with the way to take them out.
    """
    first = next(records, None)
    if first is None:
        return
    key = _wrapping_key(first[1], options)
    second = next(records, None) if key is not None else None
    if key is not None and second is None:
        raise HftoolError(
            f"{name} is one object, with the records in its '{key}'",
            f"take them out: jq '.\"{key}\"' FILE | hftool … -f - --input-format json",
        )
    yield first
    if second is not None:
        yield second
    yield from records


def _wrapping_key(record: Columns | HftoolError, options: TableInputOptions) -> str | None:
    """Return the key under which an object without a text has a list of objects."""
    if isinstance(record, HftoolError):
        return None
    asked = options.column
    if any(is_text_name(key) or key == asked for key in record):
        return None
    if asked is not None and is_path([*record], asked):
        return None
    lists = ((key, value) for key, value in record.items() if isinstance(value, list))
    return next((key for key, value in lists if value and isinstance(value[0], dict)), None)


def _json_of_copy(file: Path | None, format_: InputFormat, options: TableInputOptions) -> Records:
    """Copy stdin to a file, so that it can be read twice; the file is removed after that."""
    copy = tempfile.NamedTemporaryFile(prefix="hftool-")
    with open_stream(file) as stream:
        shutil.copyfileobj(stream, copy)
    copy.flush()
    path = Path(copy.name)
    source = LineSource(path, options, source_name(file))
    records = json_file_records(path, format_, options, whole=False, source=source)

    def kept() -> NumberedRecords:
        with copy:
            yield from records.records

    return replace(records, records=kept())

"""What goes in comes out beside the label: any values, in any dialect, encoding and type."""

import csv
import datetime
import io
import json
import math
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hftool.classification.classify import Classification
from hftool.errors import HftoolError
from hftool.inputs.tables import TextTable, read_table
from hftool.options.inputs import TableInputOptions
from hftool.output.formats import FORMATS
from hftool.output.parquet import write_parquet
from hftool.output.view import View
from hftool.output.views.classification import classifications_view

LABELS = ("BAD", "GOOD")
some = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(path: Path, **options: Any) -> TextTable:
    return read_table(None, TableInputOptions(files=[path], **options))


def labelled(table: TextTable) -> tuple[View, Iterable[Classification]]:
    """Return the view and the records of `sentiment`, with the same label for each text."""
    scores = {"BAD": 0.25, "GOOD": 0.75}
    records = (Classification(row.text, "GOOD", 0.75, scores, row.columns) for row in table)
    return classifications_view(table.shape, LABELS, all_scores=False), records


def written(table: TextTable, name: str) -> str:
    view, records = labelled(table)
    return "".join(FORMATS[name](records, view))


def as_parquet(table: TextTable, path: Path) -> pyarrow.Table:
    view, records = labelled(table)
    write_parquet((row for record in records for row in view.rows(record)), view, path)
    return pyarrow.parquet.read_table(path)


# Any character that every program can write: no halves of pairs, no NUL, no byte-order mark.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff")
CELLS = st.text(CHARACTERS, max_size=8) | st.sampled_from(
    [
        *('"', '""', 'a "b" c', "a,b;c\td|e", "two\nlines", "two\r\nlines", "\\", "C:\\new", "\\N"),
        *(
            "4.50",
            "",
            " ",
            "NULL",
            "nan",
            "007",
            "1e400",
            "=1+1",
            "大好",
            "café",
            "'x'",
            "#",
            "\\x",
        ),
    ]
)
RESERVED = {"text", "label", "score", "scores", "null"}
NAMES = st.lists(
    st.text(CHARACTERS, max_size=6).filter(lambda name: name.strip().casefold() not in RESERVED),
    max_size=4,
)


@st.composite
def tables(draw: Any) -> tuple[list[str], list[list[str]]]:
    """Return a header with the column `text`, and rows."""
    names = draw(NAMES)
    header = [*names, "text"]
    width = len(header)
    rows = draw(st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=6))
    return header, rows


@some
@given(
    tables(),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "gb18030"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_cells_of_csv(
    tmp_path: Path,
    table: tuple[list[str], list[list[str]]],
    delimiter: str,
    encoding: str,
    quoting: Any,
    end: str,
) -> None:
    header, rows = table
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, quoting=quoting, lineterminator="\r\n")
    writer.writerows([header, *rows])
    text = buffer.getvalue() if end == "\r\n" else _unix(header, rows, delimiter, quoting)
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode(encoding))
    # What the dialect and the encoding are is told: test_table_shapes.py is about recognising them.
    read_back = read(path, delimiter=delimiter, encoding=encoding, header=True, column="text")
    found = list(csv.reader(io.StringIO(written(read_back, "csv"), newline="")))
    kept = [row for row in rows if len(row) > 1 or row[0].strip()]  # others are empty lines
    assert found[0] == [*header, "label", "score"]
    assert [row[:-2] for row in found[1:] if len(row[:-2]) > 1 or row[0].strip()] == kept
    again = read(path, delimiter=delimiter, encoding=encoding, header=True, column="text")
    assert [row.text for row in again if row.text.strip()] == [r[-1] for r in kept if r[-1].strip()]


def _unix(header: list[str], rows: list[list[str]], delimiter: str, quoting: Any) -> str:
    lines = []
    for row in [header, *rows]:
        buffer = io.StringIO()
        csv.writer(buffer, delimiter=delimiter, quoting=quoting, lineterminator="\r\n").writerow(
            row
        )
        lines.append(buffer.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)


@some
@given(tables())
def test_cells_of_tsv_with_escapes(
    tmp_path: Path, table: tuple[list[str], list[list[str]]]
) -> None:
    """The escapes of PostgreSQL and MySQL, in which `\\N` is a missing value."""
    header, rows = table
    escapes = [("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")]

    def escaped(cell: str) -> str:
        if cell == "NULL":
            return "\\N"
        for character, escape in escapes:
            cell = cell.replace(character, escape)
        return "\\" + cell if cell.startswith('"') else cell

    lines = ["\t".join(map(escaped, row)) for row in [header, *rows]]
    path = tmp_path / "a.tsv"
    path.write_text("".join(line + "\n" for line in lines), newline="")
    read_back = written(read(path, header=True, column="text"), "tsv")
    found = [line.split("\t")[:-2] for line in read_back.removesuffix("\n").split("\n")]
    wide = len(header) > 1
    assert found == [line.split("\t") for line in lines]
    texts = [row.text for row in read(path, header=True, column="text")]
    assert texts == ["" if row[-1] == "NULL" else row[-1] for row in rows] or not wide


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | FLOATS | CELLS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CELLS, inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.lists(
    st.dictionaries(st.sampled_from(["a", "b", "c\n", ""]), VALUES, max_size=4), max_size=5
).map(lambda records: [{**record, "text": f"t{i}"} for i, record in enumerate(records)])


@some
@given(RECORDS, st.sampled_from(["jsonl", "json", "pretty"]))
def test_values_of_json(tmp_path: Path, records: list[dict[str, Any]], form: str) -> None:
    path = tmp_path / ("a.jsonl" if form == "jsonl" else "a.json")
    if form == "jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        path.write_text(json.dumps(records, indent=2 if form == "pretty" else None))
    found = [json.loads(line) for line in written(read(path), "jsonl").split("\n") if line]
    assert [{k: v for k, v in r.items() if k not in ("label", "score")} for r in found] == records
    header, *rows = csv.reader(io.StringIO(written(read(path), "csv"), newline=""))
    names = list(dict.fromkeys(name for record in records for name in record))
    assert header[:-2] == names
    for row, record in zip(rows, records, strict=True):
        for name, cell in zip(names, row, strict=False):
            value = record.get(name)
            if isinstance(value, str) or value is None:
                assert cell == (value or "")
            else:
                assert json.loads(cell) == value
    try:
        table = as_parquet(read(path), tmp_path / "a.parquet")
    except HftoolError as error:
        assert "the column" in error.message
        return
    for row_of_table, record in zip(table.to_pylist(), records, strict=True):
        for name, value in record.items():
            assert holds(row_of_table[name], value)


def holds(found: Any, value: Any) -> bool:
    """Return whether a value of Parquet is that of JSON. A key that is missing is null."""
    if isinstance(value, dict):
        known = found.items() if found is not None else []
        return all(holds(item, value.get(key)) for key, item in known) and all(
            key in (found or {}) for key in value
        )
    if isinstance(value, list):
        return len(found) == len(value) and all(map(holds, found, value))
    return bool(found == value)


DAYS = st.datetimes(datetime.datetime(1, 1, 1), datetime.datetime(9999, 1, 1))
TYPES: list[tuple[pyarrow.DataType, Any]] = [
    (pyarrow.int8(), st.integers(-128, 127)),
    (pyarrow.uint64(), st.integers(0, 2**64 - 1)),
    (pyarrow.float32(), st.floats(width=32, allow_nan=False)),
    (pyarrow.float64(), FLOATS),
    (pyarrow.bool_(), st.booleans()),
    (pyarrow.string(), CELLS),
    (pyarrow.large_string(), CELLS),
    (pyarrow.dictionary(pyarrow.int32(), pyarrow.string()), CELLS),
    (pyarrow.binary(), st.binary(max_size=5)),
    (pyarrow.date32(), DAYS.map(lambda day: day.date())),
    (pyarrow.timestamp("us"), DAYS),
    (pyarrow.timestamp("us", "Europe/Berlin"), st.integers(0, 2**50)),
    (pyarrow.timestamp("us", "Mars/Base"), st.integers(-(2**62), 2**62)),
    (pyarrow.timestamp("ns"), st.integers(-(2**60), 2**60)),
    (pyarrow.timestamp("ms"), st.integers(-(2**60), 2**60)),
    (pyarrow.time64("ns"), st.integers(0, 86_399_999_999_999)),
    (pyarrow.duration("ns"), st.integers(-(2**60), 2**60)),
    (
        pyarrow.decimal128(38, 2),
        st.decimals(allow_nan=False, places=2, min_value=-99, max_value=99),
    ),
    (pyarrow.list_(pyarrow.int64()), st.lists(st.none() | st.integers(-9, 9), max_size=3)),
    (pyarrow.struct([("x", pyarrow.int64())]), st.fixed_dictionaries({"x": st.integers(-9, 9)})),
    (pyarrow.null(), st.none()),
]


@some
@given(st.data(), st.lists(st.sampled_from(TYPES), max_size=3), st.integers(0, 6))
def test_columns_of_parquet(tmp_path: Path, data: Any, kinds: list[Any], count: int) -> None:
    """All types pass as they are; in text formats every value can be written."""
    columns = [
        pyarrow.array(
            data.draw(st.lists(st.none() | values, min_size=count, max_size=count)), type_
        )
        for type_, values in kinds
    ]
    names = [f"c{number}" for number in range(len(kinds))]
    fields = [
        pyarrow.field(name, column.type, metadata={"unit": "m"})
        for name, column in zip(names, columns, strict=True)
    ]
    texts = pyarrow.array([f"text {i}" for i in range(count)], pyarrow.string())
    schema = pyarrow.schema([*fields, pyarrow.field("text", texts.type)])
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([*columns, texts], schema=schema), path)
    given_table = pyarrow.parquet.read_table(path)
    table = as_parquet(read(path), tmp_path / "b.parquet")
    assert table.select([*names, "text"]).equals(given_table, check_metadata=True)
    for name in ("csv", "tsv", "jsonl"):
        assert written(read(path), name).count("GOOD") == count


def test_types_are_those_of_all_records(tmp_path: Path) -> None:
    """The first 16,384 records, a whole row group, have integers."""
    path, target = tmp_path / "a.jsonl", tmp_path / "b.parquet"

    def result(last: Any, first: Any = 4) -> Any:
        many = (json.dumps({"text": "t", "v": first}) + "\n") * 16_384
        path.write_text(many + json.dumps({"text": "t", "v": last}) + "\n")
        target.unlink(missing_ok=True)
        try:
            return as_parquet(read(path), target)["v"][-1].as_py()
        except HftoolError as error:
            assert not target.exists()
            return error.message

    assert result(4.5) == 4.5
    assert result(2**63) == 2**63
    assert result(-(2**80)) == -(2**80)
    assert result(None) is None
    assert result({"x": 1, "y": [2]}, {"x": None}) == {"x": 1, "y": [2]}
    assert result(1, None) == 1
    expected = "the column 'v' has numbers (a.jsonl: line 1) and texts (a.jsonl: line 16385)"
    assert result("four").startswith(expected)
    assert "fractions and integers above 2^53" in result(4.5, 2**60)
    assert "an integer of 101 digits" in result(10**100)
    assert "only empty objects" in result({}, {})


def test_nothing_is_labelled_before_the_types_are_known(tmp_path: Path) -> None:
    path, asked = tmp_path / "a.jsonl", False
    path.write_text('{"text": "a", "v": 1}\n{"text": "b", "v": "x"}\n')
    view, _ = labelled(read(path))

    def rows() -> Any:
        nonlocal asked
        asked = True
        yield {}

    with pytest.raises(HftoolError, match="which a Parquet column can't hold together"):
        write_parquet(rows(), view, tmp_path / "b.parquet")
    assert not asked


def test_an_index_of_pandas_is_not_the_label(tmp_path: Path) -> None:
    import pandas

    path, target = tmp_path / "a.parquet", tmp_path / "b.parquet"
    index = pandas.Index(["x", "y"], name="label")
    pandas.DataFrame({"text": ["a", "b"], "score": [1, 2]}, index=index).to_parquet(path)
    as_parquet(read(path), target)
    frame = pandas.read_parquet(target)
    assert frame["label"].tolist() == ["GOOD", "GOOD"]
    assert (frame.index.name, frame.index.tolist()) == ("input_label", ["x", "y"])
    assert frame["input_score"].tolist() == [1, 2]


def test_files_with_types_that_one_column_holds(tmp_path: Path) -> None:
    def file(name: str, columns: dict[str, Any]) -> Path:
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / name)
        return tmp_path / name

    narrow = file("a.parquet", {"n": pyarrow.array([1], pyarrow.int16()), "text": ["a"]})
    wide = file("b.parquet", {"text": ["b"], "n": pyarrow.array([2.5], pyarrow.float64())})
    table = read_table(None, TableInputOptions(files=[narrow, wide]))
    assert as_parquet(table, tmp_path / "c.parquet")["n"].to_pylist() == [1, 2.5]
    longs = file("d.parquet", {"n": pyarrow.array([1], pyarrow.int64()), "text": ["a"]})
    with pytest.raises(HftoolError, match="'n' is of type double, in another file int64"):
        read_table(None, TableInputOptions(files=[longs, wide]))


def test_texts_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = pyarrow.array(["大好".encode(), "café".encode("cp1252"), None], pyarrow.binary())
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)
    rows = list(read(path))
    assert [row.text for row in rows] == ["大好", "", ""]
    assert [row.error and row.error.message for row in rows] == [
        *(None, "byte 4 of the text is not utf-8", None)
    ]
    assert [row.text for row in read(path, encoding="cp1252")][1] == "café"
    assert as_parquet(read(path), tmp_path / "b.parquet")["text"].type == pyarrow.binary()


def test_a_header_and_a_mark_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('\ufeffid,"Other, too","Other, too",,text,label,\n1,a,b,c,d,e,f\n', newline="")
    table = read(path)
    view = classifications_view(table.shape, LABELS, all_scores=False, bom=table.shape.marked)
    text = "".join(FORMATS["csv"](labelled(table)[1], view))
    assert text == (
        '\ufeffid,"Other, too","Other, too",,text,input_label,,label,score\n'
        "1,a,b,c,d,e,f,GOOD,0.7500\n"
    )
    jsonl = json.loads(written(read(path), "jsonl"))
    assert [*jsonl] == [
        *("id", "Other, too", "Other, too_2", "", "text", "input_label", "_2", "label", "score")
    ]


def test_a_word_for_null_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,n\nNULL,NULL\ngood,1\n")
    assert written(read(path, null="NULL"), "csv").splitlines()[1] == "NULL,NULL,GOOD,0.7500"
    assert as_parquet(read(path, null="NULL"), tmp_path / "b.parquet")["n"].to_pylist() == [
        None,
        "1",
    ]


@pytest.mark.slow
def test_a_million_rows_in_constant_memory(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from hftool.inputs.tables import read_table\n"
        "from hftool.options.inputs import TableInputOptions\n"
        "count = sum(1 for _ in read_table(None, TableInputOptions(files=[Path(sys.argv[1])])))\n"
        "print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    row = json.dumps({"id": 123456, "text": "a text, with a comma", "more": "x" * 100})
    shapes = {
        "a.csv": ("id,text,more\n", '123456,"a text, with a comma",' + "x" * 100 + "\n", ""),
        "a.jsonl": ("", row + "\n", ""),
        "a.json": ("[", row + ",\n", row + "]"),
    }

    def mebibytes(path: Path, start: str, line: str, end: str, thousands: int) -> int:
        with path.open("w") as file:
            file.write(start)
            for _ in range(thousands):
                file.write(line * 1000)
            file.write(end)
        done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
        count, kibibytes = map(int, done.stdout.split())
        assert count == thousands * 1000 + bool(end)
        return kibibytes // (2**20 if sys.platform == "darwin" else 1024)

    for name, (start, line, end) in shapes.items():
        few, many = (mebibytes(tmp_path / name, start, line, end, n) for n in (10, 1000))
        assert many < few + 20, name


def test_nan_and_infinity_of_parquet_pass(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    numbers = [math.nan, math.inf, None, -0.0]
    pyarrow.parquet.write_table(pyarrow.table({"n": numbers, "text": ["a"] * 4}), path)
    found = as_parquet(read(path), tmp_path / "b.parquet")["n"].to_pylist()
    assert repr(found) == repr(numbers)

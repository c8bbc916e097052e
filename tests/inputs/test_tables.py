"""Texts from CSV, TSV, JSON Lines and Parquet, with the columns they came with."""

import csv
import datetime
import decimal
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hftool.errors import HftoolError, UsageError
from hftool.inputs import json_records
from hftool.inputs.tables import read_table
from hftool.options.inputs import TableInputOptions
from hftool.output.formats import csv_lines, json_lines, tsv_lines
from hftool.output.parquet import write_parquet
from hftool.output.view import View
from tests.conftest import run
from tests.tiny_models import save_classifier


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("bert"), ("BAD", "GOOD"))


def read(file: Path, data: bytes, **options: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the texts and columns of a file with this content."""
    file.write_bytes(data)
    rows = list(read_table(None, TableInputOptions(files=[file], **options)))
    assert not [row.error for row in rows if row.error]
    return [(row.text, dict(row.columns)) for row in rows]


NESTED = [
    {"id": 1, "a": {"b c": [{"t": "one"}, {"t": "last"}], "text": "x"}, "a.text": "literal"},
    {"id": 2, "a": None, "a.text": "second"},
]


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        ("a.b c[0].t", ["one", ""]),
        (".a.b c[-1].t", ["last", ""]),
        ("a.text", ["literal", "second"]),  # the name of a column comes first
        ("A.Text", ["literal", "second"]),
        (".a.text", ["x", ""]),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_a_path_into_a_column_is_as_in_jq(
    column: str, texts: list[str], suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(NESTED), path)
    else:
        lines = "\n".join(map(json.dumps, NESTED))
        path.write_text(lines if suffix == "jsonl" else json.dumps(NESTED))
    rows = list(read_table(None, TableInputOptions(files=[path], column=column)))
    assert [row.text for row in rows] == texts
    assert [dict(row.columns)["id"] for row in rows] == [1, 2]


@pytest.mark.parametrize(
    ("column", "message", "hint"),
    [
        ("a.b", "line 1: 'a.b' is missing", None),
        ("a[0]", "line 1: 'a[0]' is missing", None),
        ("a", "line 1: 'a' is an object, not text", "a text inside it: --column a.text"),
    ],
)
def test_a_path_to_no_text_is_an_error_of_its_record(
    column: str, message: str, hint: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": {"text": "x"}}\n')
    (row,) = read_table(None, TableInputOptions(files=[path], column=column))
    assert row.error is not None
    located = row.located(row.error)
    assert (located.message, located.hint) == (f"{path}: {message}", hint)


def test_a_path_into_no_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": {"text": "x"}}\n')
    with pytest.raises(HftoolError, match=r"no column 'b\.text'"):
        read_table(None, TableInputOptions(files=[path], column="b.text"))


def test_csv_with_quoted_line_breaks(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbfid,text\r\n1,"two\nlines, ""quoted"""\r\n\r\n2,\xe5\xa4\xa7\r\n'
    assert read(tmp_path / "a.csv", data) == [
        ('two\nlines, "quoted"', {"id": "1", "text": 'two\nlines, "quoted"'}),
        ("大", {"id": "2", "text": "大"}),
    ]


def test_tsv_undoes_the_escapes_and_leaves_other_backslashes(tmp_path: Path) -> None:
    data = b'id\ttext\r\n1\ta\\tb\\nc\\\\d\\x "q\r\n'
    assert read(tmp_path / "a.TSV", data)[0][0] == 'a\tb\nc\\d\\x "q'


def test_jsonl_keeps_what_each_record_has(tmp_path: Path) -> None:
    data = b'{"n": 1, "text": "a"}\n\n{"text": "b\\u0000", "more": [1, {"x": null}]}\n'
    for name in ("a.jsonl", "a.ndjson"):
        assert read(tmp_path / name, data) == [
            ("a", {"n": 1, "text": "a"}),
            ("b\0", {"text": "b\0", "more": [1, {"x": None}]}),
        ]


def test_suffix_is_overruled_and_stdin_is_lines(tmp_path: Path, folder: Path) -> None:
    assert read(tmp_path / "a.csv", b"a,b\n", input_format="lines") == [("a,b", {"text": "a,b"})]
    assert read(tmp_path / "a.txt", b"text\na\n", input_format="csv") == [("a", {"text": "a"})]
    sentiment = ("sentiment", "-m", str(folder), "--format", "jsonl")
    assert json.loads(run(*sentiment, stdin="text,b\n").stdout)["text"] == "text,b"
    result = run(*sentiment, "--input-format", "csv", stdin="text,b\nx,y\n")
    assert [*json.loads(result.stdout)] == ["text", "b", "label", "score"]


def test_nan_in_json_is_null_and_reported(folder: Path) -> None:
    command = ("sentiment", "-m", str(folder), "--input-format", "json", "--json")
    json_records.report_nan.cache_clear()
    done = run(*command, stdin='[{"text": "b", "n": NaN}, {"text": "c", "n": 1.5}]')
    assert [record["n"] for record in json.loads(done.stdout)] == [None, 1.5]
    assert "NaN, which JSON does not have, is read as null" in done.stderr


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.txt"])
def test_an_empty_file_has_no_rows(name: str, tmp_path: Path, folder: Path) -> None:
    assert read(tmp_path / name, b"") == []
    result = run("sentiment", "-m", str(folder), "-f", str(tmp_path / name))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "0 texts in 0.0 s\n")


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        ("a.csv", b"id,words\n1,x\n", "no column 'text'; the columns are 'id', 'words'"),
        ("a.jsonl", b'{"id": 1, "n": "x"}\n', "no column 'text'; the columns are 'id', 'n'"),
        ("a.csv", b"text,id,text\n", "several columns could be meant: 1 'text', 3 'text'"),
        ("a.csv", b'text,n\na,1\n"b,2\nc,3\n', "line 4: not valid CSV: unexpected end of data"),
        ("a.csv", b"text,n\na,1\nb\n", "line 3: expected 2 cells as in the header, got 1"),
        ("a.tsv", b"text\tn\na\t1\t2\n", "line 2: expected 2 cells as in the header, got 3"),
        ("a.csv", b"text\nok\n\xff\n", "line 3, byte 1: 0xff is not UTF-8"),
        (
            "a.jsonl",
            b'{"text": "a"}\n{"text": \n',
            "line 2: not valid JSON: Expecting value (ch",
        ),
        (
            "a.json",
            b'{"n": 1, "data": [{"text": "a"}]}',
            "one object, with the records in",
        ),
        (
            "a.jsonl",
            b'{"text": "a", "n": 1, "n": 2}\n',
            "line 1: not valid JSON: the key 'n' is",
        ),
        (
            "a.jsonl",
            b'{"text": "a", "n": 1e400}\n',
            "the number 1e400 is too large",
        ),
        ("a.json", b'[{"text": "a", "n": -Infinity}]', "-Infinity is not a number in JSON"),
        ("a.jsonl", b'{"text": "a"}\n["b"]\n', "line 2: the record is a list, not a JSON object"),
        ("a.jsonl", b'{"text": "a"}\n{"text": {}}\n', "line 2: 'text' is an object, not text"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 7}\n', "line 2: 'text' is a number, not text"),
        ("a.jsonl", b'{"text": "a"}\n{"body": "b"}\n', "line 2: 'text' is missing"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\\ud83d"}\n', "line 2: half a surrogate pair"),
        ("a.jsonl", b"[" * 100_000 + b"\n", "line 1: not valid JSON: "),
        ("a.parquet", b"text\n", "cannot read "),
    ],
)
def test_a_broken_record_is_an_error_of_one_line(
    name: str, data: bytes, error: str, tmp_path: Path, folder: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    result = run("sentiment", "-m", str(folder), "-f", str(tmp_path / name), "--format", "jsonl")
    assert result.exit_code == 1
    first = result.stderr.splitlines()[0]
    assert first.startswith("Error: ")
    assert name in first
    assert error in first
    assert "Traceback" not in result.stderr
    before = data.split(b"\n").index(data.split(b"\n")[1]) if "line" in error else 0
    assert len(result.stdout.splitlines()) <= max(before, 1)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["x", "--column", "a"], "--column needs a table, but the input is arguments"),
        (
            ["x", "--input-format", "csv"],
            "--input-format needs a table, but the input is arguments",
        ),
        (["--input-format", "parquet"], "Parquet is read from a file, not from stdin"),
        (["x", "--format", "parquet"], "Parquet is written to a file, not to stdout"),
    ],
)
def test_options_that_do_not_fit(arguments: list[str], error: str, folder: Path) -> None:
    result = run("sentiment", "-m", str(folder), *arguments, stdin="a\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: {error}")


@pytest.mark.slow
def test_a_line_of_ten_megabytes_in_every_format(tmp_path: Path) -> None:
    text = "wonderful, \\ 大" * 700_000
    assert len(text.encode()) > 10_000_000
    cell = text.replace("\\", "\\\\")
    for name, data in (
        ("a.csv", f'text\n"{text}"\n'),
        ("a.tsv", f"text\n{cell}\n"),
        ("a.jsonl", json.dumps({"text": text}) + "\n"),
        ("a.txt", text),
    ):
        [(found, _)] = read(tmp_path / name, data.encode())
        assert found == text


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
PAIR = View(columns=("text", "n"), text=str)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXTS, TEXTS)))
def test_what_is_written_is_read_back(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    records = [{"text": text, "n": n} for text, n in pairs]
    for suffix, lines in (("csv", csv_lines), ("tsv", tsv_lines), ("jsonl", json_lines)):
        data = "".join(lines(records, PAIR)).encode()
        found = read(tmp_path / f"a.{suffix}", data)
        assert [columns for _, columns in found] == records


def test_columns_with_the_names_of_results_are_renamed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,input_score,score\nx,1,2,3\n")
    result = run(
        *("sentiment", "-m", str(folder), "-f", str(tmp_path / "a.csv")),
        *("--format", "csv", "--all-scores"),
    )
    [row] = csv.DictReader(io.StringIO(result.stdout))
    given = ["text", "input_label", "input_score", "input_input_score"]
    assert [*row] == [*given, "label", "score", "score_BAD", "score_GOOD"]
    assert [row[name] for name in given] == ["x", "1", "2", "3"]
    assert row["label"] in ("BAD", "GOOD")
    assert float(row["score"]) == max(float(row["score_BAD"]), float(row["score_GOOD"]))


def test_parquet_in_and_out_keeps_the_schema(folder: Path, tmp_path: Path) -> None:
    schema = pyarrow.schema(
        {"n": pyarrow.int8(), "day": pyarrow.date32(), "text": pyarrow.large_string()}
    )
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(i) for i in range(2500)]
    texts = [f"text {i}" for i in range(2500)]
    table = pyarrow.table({"n": [None, 1] * 1250, "day": days, "text": texts}, schema=schema)
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pyarrow.parquet.write_table(table, source, row_group_size=700)
    arguments = ("sentiment", "-m", str(folder), "-f", str(source))
    result = run(*arguments, "-o", str(target), "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    written = pyarrow.parquet.read_table(target)
    assert written.select(["n", "day", "text"]) == table
    lines = run(*arguments, "--format", "jsonl").stdout.splitlines()
    records = [json.loads(each) for each in lines]
    assert written["label"].to_pylist() == [record["label"] for record in records]
    assert written["score"].to_pylist() == pytest.approx([r["score"] for r in records], abs=1e-5)
    assert records[1]["day"] == "2020-01-02"
    assert written.schema.names == ["n", "day", "text", "label", "score"]
    assert written.schema.field("score").type == pyarrow.float64()


def test_parquet_types_as_text(folder: Path, tmp_path: Path) -> None:
    """A value that JSON has no type for has no quotes around it in a cell."""
    day, cent = datetime.date(2020, 1, 2), decimal.Decimal("1.50")
    columns = {
        "day": [day],
        "cent": [cent],
        "key": [b"\x00\xff"],
        "n": [float("nan")],
        "l": [[day]],
    }
    pyarrow.parquet.write_table(pyarrow.table({**columns, "text": ["x"]}), tmp_path / "a.parquet")
    arguments = ("sentiment", "-m", str(folder), "-f", str(tmp_path / "a.parquet"), "--format")
    expected = {"day": "2020-01-02", "cent": "1.50", "key": "00ff", "n": "", "l": '["2020-01-02"]'}
    (row,) = csv.DictReader(io.StringIO(run(*arguments, "csv").stdout))
    assert {column: row[column] for column in expected} == expected
    assert run(*arguments, "tsv").stdout.splitlines()[1].split("\t")[:5] == [*expected.values()]
    record = json.loads(run(*arguments, "jsonl").stdout)
    assert {n: record[n] for n in expected} == {**expected, "n": None, "l": ["2020-01-02"]}


@pytest.mark.parametrize("name", ["jsonl", "csv", "parquet"])
def test_a_null_is_an_empty_text(name: str, folder: Path, tmp_path: Path) -> None:
    texts = ["good", None, "bad", None]
    table = pyarrow.table({"text": texts, "n": [1, 2, 3, 4]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    lines = [json.dumps(record) + "\n" for record in table.to_pylist()]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    for source in ("a.jsonl", "a.parquet"):
        target = tmp_path / f"{source}.out"
        arguments = ["sentiment", "-m", str(folder), "-f", str(tmp_path / source)]
        arguments += ["-o", str(target), "--format", name]
        assert run(*arguments).exit_code == 0
        if name == "parquet":
            records = pyarrow.parquet.read_table(target).to_pylist()
            assert [record["text"] for record in records] == texts
            assert [bool(record["label"]) for record in records] == [True, False, True, False]
            continue
        whole = target.read_bytes()
        result = run(*arguments, "--resume")  # its last record is that of a null
        notes = f"resuming after record 4\n0 more texts in 0.0 s -> {target}\n"
        assert (result.exit_code, result.stderr) == (0, notes)
        assert target.read_bytes() == whole


def test_a_broken_parquet_file_is_an_error_of_one_line(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"

    def error(table: pyarrow.Table, broken: int = 0) -> str:
        pyarrow.parquet.write_table(table, file, compression="snappy", use_dictionary=False)
        if broken:
            data = bytearray(file.read_bytes())
            data[broken : broken + 1000] = b"\xff" * 1000
            file.write_bytes(data)
        result = run("sentiment", "-m", str(folder), "-f", str(file))
        assert (result.exit_code, result.stdout) == (1, "")
        return result.stderr.splitlines()[0]

    twice = pyarrow.table([["a"], ["b"]], names=["text", "text"])
    cause = "several columns could be meant: 1 'text', 2 'text'"
    assert error(twice) == f"Error: {file}: {cause}"
    data = pyarrow.table({"text": [f"text {i}" for i in range(10_000)]})
    assert error(data, 2000).startswith(f"Error: cannot read {file}: ")
    days = pyarrow.table({"text": [datetime.date(2020, 1, 1)]})
    assert error(days) == f"Error: {file}: row 1: 'text' is of type date, not text"


def test_parquet_is_read_and_written_in_constant_memory(tmp_path: Path) -> None:
    random = pyarrow.array([os.urandom(1_000_000).hex() for _ in range(40)])
    texts = pyarrow.table({"text": random})
    source, target = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pyarrow.parquet.write_table(texts, source, write_batch_size=1, use_dictionary=False)
    before = pyarrow.total_allocated_bytes()
    most = 0

    def records() -> Iterator[dict[str, Any]]:
        nonlocal most
        for row in read_table(None, TableInputOptions(files=[source])):
            most = max(most, pyarrow.total_allocated_bytes() - before)
            yield dict(row.columns)

    view = View(columns=("text",), text=str, schema=lambda: texts.schema)
    write_parquet(records(), view, target)
    assert most < 60_000_000  # of 80
    assert pyarrow.parquet.read_table(target) == texts
    assert pyarrow.parquet.ParquetFile(target).num_row_groups == 5


def test_parquet_from_json(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "n": 1, "x": null}\n{"text": "", "n": null}\n')
    target = tmp_path / "out.parquet"
    arguments = ("sentiment", "-m", str(folder), "-f", str(tmp_path / "a.jsonl"))
    assert run(*arguments, "-o", str(target), "--all-scores").exit_code == 0
    first, second = pyarrow.parquet.read_table(target).to_pylist()
    assert (first["n"], first["x"], second["n"], second["label"]) == (1, None, None, "")
    assert second["score_GOOD"] is None
    assert run(*arguments, "-o", str(target), "--resume").exit_code == 2


def test_column_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(HftoolError, match="no column 'b'; the columns are 'a', 'text'"):
        read(tmp_path / "a.csv", b"a,text\n", column="b")
    assert read(tmp_path / "b.csv", b"a,text\nx,y\n", column="a")[0][0] == "x"
    with pytest.raises(UsageError):
        read_table(["x"], TableInputOptions(column="a"))

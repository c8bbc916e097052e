"""One set of records in all six formats, and files that appear only when they are complete."""

import csv
import dataclasses
import io
import json
import math
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftool.atomic_files import atomic_file
from hftool.errors import HftoolError, UsageError
from hftool.generation.records import Piece
from hftool.options.output import Format, OutputOptions
from hftool.output.formats import FORMATS, csv_lines, json_array, tsv_lines
from hftool.output.view import View, escaped, line, plain
from hftool.output.writer import write
from tests.conftest import run, run_process


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A record like those of `sentiment`."""

    text: str
    label: str
    score: float | None
    scores: dict[str, float] | None


VIEW = View(
    columns=("text", "label", "score", "scores"),
    text=lambda j: line(escaped(j.label), j.score, escaped(j.text)),
)
RECORDS = [
    Labelled("I love it", "POSITIVE", 0.75, {"NEGATIVE": 0.25, "POSITIVE": 0.75}),
    Labelled('a "quoted", text\r\nof\ttwo lines \\ é大', "NEGATIVE", 0.5, {"NEGATIVE": 0.5}),
    Labelled("", "", None, None),
]


def written(
    capsys: pytest.CaptureFixture[str], events: Any, view: View = VIEW, **options: Any
) -> str:
    """Return what `write` sends to stdout."""
    write(events, view, OutputOptions(**options))
    return capsys.readouterr().out


def test_text_is_the_default_into_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    expected = (
        "POSITIVE\t0.75\tI love it\n"
        'NEGATIVE\t0.5\ta "quoted", text\\r\\nof\\ttwo lines \\\\ é大\n'
        "\t\t\n"
    )
    assert written(capsys, RECORDS) == expected
    assert written(capsys, RECORDS, format="text") == expected


def test_json_is_one_array(capsys: pytest.CaptureFixture[str]) -> None:
    expected = [dataclasses.asdict(record) for record in RECORDS]
    assert json.loads(written(capsys, RECORDS, format="json")) == expected
    assert json.loads(written(capsys, RECORDS, json=True)) == expected
    assert json.loads(written(capsys, RECORDS, json=True, format="json")) == expected
    assert json.loads(written(capsys, RECORDS[:1], format="json")) == expected[:1]


def test_jsonl_is_one_line_per_record(capsys: pytest.CaptureFixture[str]) -> None:
    out = written(capsys, RECORDS, format="jsonl")
    assert out.endswith("\n") and out.count("\n") == len(RECORDS)
    expected = [dataclasses.asdict(record) for record in RECORDS]
    assert [json.loads(each) for each in out.splitlines()] == expected


def test_csv_reads_back(capsys: pytest.CaptureFixture[str]) -> None:
    header, *rows = csv.reader(io.StringIO(written(capsys, RECORDS, format="csv"), newline=""))
    assert header == list(VIEW.columns)
    assert rows[0][:3] == ["I love it", "POSITIVE", "0.75"]
    assert json.loads(rows[0][3]) == RECORDS[0].scores
    assert rows[1][0] == RECORDS[1].text
    assert rows[2] == ["", "", "", ""]


def test_tsv_is_one_line_per_row_with_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    out = written(capsys, RECORDS, format="tsv")
    header, *rows = [each.split("\t") for each in out.removesuffix("\n").split("\n")]
    assert header == list(VIEW.columns)
    assert rows[0] == ["I love it", "POSITIVE", "0.75", '{"NEGATIVE": 0.25, "POSITIVE": 0.75}']
    assert rows[1][0] == 'a "quoted", text\\r\\nof\\ttwo lines \\\\ é大'
    assert rows[2] == ["", "", "", ""]


def test_table_has_a_header_and_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    view = View(columns=("text", "label", "score"), text=str)
    lines = written(capsys, RECORDS[:2], view, format="table").splitlines()
    assert lines[0].split() == ["text", "label", "score"]
    assert lines[1].split() == ["I", "love", "it", "POSITIVE", "0.7500"]
    assert r"text\r\nof\ttwo lines \\ é大" in " ".join(lines[2:])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("text", ""),
        ("json", "[]\n"),
        ("jsonl", ""),
        ("csv", "text,label,score,scores\n"),
        ("tsv", "text\tlabel\tscore\tscores\n"),
        ("table", ""),
    ],
)
def test_no_records(capsys: pytest.CaptureFixture[str], name: str, expected: str) -> None:
    assert written(capsys, [], format=name) == expected


def test_every_format_is_tested_here() -> None:
    assert set(get_args(Format)) == {"text", "json", "jsonl", "csv", "tsv", "table"}
    assert set(FORMATS) == set(get_args(Format)) - {"table"}


def test_streamed_texts_are_in_text_only(capsys: pytest.CaptureFixture[str]) -> None:
    events = [Piece("I "), Piece("love it"), RECORDS[0]]
    view = View(columns=("text",), text=lambda record: f"{record.text}\n")
    assert written(capsys, events, view, format="text") == "I love it\n"
    assert written(capsys, RECORDS[:1], view, format="text") == "I love it\n"
    assert json.loads(written(capsys, events, view, format="json")) == [plain(RECORDS[0])]
    assert written(capsys, events, view, format="csv") == "text\nI love it\n"


def test_table_of_many_rows_is_aligned_beyond_its_first_block(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = View(columns=("text", "label"), text=str)
    records = [Labelled(f"text {i}", "L", None, None) for i in range(1000)]
    lines = written(capsys, records, view, format="table").splitlines()
    assert len(lines) == 1001
    assert len({each.index("L") for each in lines[1:]}) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_become_null(value: float) -> None:
    record = Labelled("a", "b", value, {"x": value})
    expected = [{"text": "a", "label": "b", "score": None, "scores": {"x": None}}]
    assert json.loads("".join(json_array([record], VIEW))) == expected
    (_, row) = csv.reader(io.StringIO("".join(csv_lines([record], VIEW))))
    assert row == ["a", "b", "", '{"x": null}']


def test_plain_reaches_into_everything() -> None:
    assert plain({"a": (1, [math.nan, RECORDS[2]])}) == {
        "a": [1, [None, {"text": "", "label": "", "score": None, "scores": None}]]
    }


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
PAIR = View(columns=("text", "label"), text=str)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(TEXTS, TEXTS)))
def test_any_text_reads_back_from_csv_tsv_and_jsonl(pairs: list[tuple[str, str]]) -> None:
    records = [Labelled(text, label, None, None) for text, label in pairs]
    expected = [list(pair) for pair in pairs]
    table = io.StringIO("".join(csv_lines(records, PAIR)), newline="")
    assert list(csv.reader(table))[1:] == expected
    lines = "".join(tsv_lines(records, PAIR)).removesuffix("\n").split("\n")
    assert [[undone(cell) for cell in each.split("\t")] for each in lines][1:] == expected
    array = json.loads("".join(json_array(records, PAIR)))
    assert [[each["text"], each["label"]] for each in array] == expected


def undone(cell: str) -> str:
    """Undo the escapes of a TSV cell."""
    cell = cell[1:] if cell.startswith('\\"') else cell
    parts = cell.split("\\\\")
    for escape, character in (("\\t", "\t"), ("\\n", "\n"), ("\\r", "\r")):
        parts = [part.replace(escape, character) for part in parts]
    return "\\".join(parts)


def test_two_formats_exclude_each_other(tmp_path: Path) -> None:
    result = run("encode", "a", "--json", "--format", "csv")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: --json and --format csv exclude each other\n"
    with pytest.raises(UsageError):
        write([], VIEW, OutputOptions(json=True, format="csv", output=tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["csv", "tsv", "json", "jsonl"])
def test_the_suffix_of_the_output_chooses_the_format(name: str, tmp_path: Path) -> None:
    for arguments in (
        *(["encode", "a b"], ["decode", "1", "2"], ["vocab-dump", "--ids", "5-9"]),
        ["models", "list"],
    ):
        expected = run(*arguments, "--format", name)
        assert expected.exit_code == 0
        for suffix in (name, name.upper()):
            target = tmp_path / f"{arguments[0]}.{suffix}"
            assert run(*arguments, "-o", str(target)).exit_code == 0
            assert target.read_text() == expected.stdout
        target = tmp_path / f"asked.{name}"
        assert run(*arguments, "--format", "text", "-o", str(target)).exit_code == 0
        assert target.read_text() == run(*arguments, "--format", "text").stdout


@pytest.mark.parametrize(("suffix", "name"), [("ndjson", "jsonl"), ("tab", "tsv")])
def test_other_suffixes_of_the_same_formats(suffix: str, name: str, tmp_path: Path) -> None:
    target = tmp_path / f"out.{suffix}"
    assert run("vocab-dump", "--ids", "5-9", "-o", str(target)).exit_code == 0
    assert target.read_text() == run("vocab-dump", "--ids", "5-9", "--format", name).stdout


@pytest.mark.parametrize("suffix", ["xlsx", "csv.gz", "parquet", "ZIP"])
def test_a_suffix_that_names_another_format_is_refused(suffix: str, tmp_path: Path) -> None:
    target = tmp_path / f"out.{suffix}"
    done = run("encode", "a", "-o", str(target))
    kind = suffix.rpartition(".")[2].lower()
    assert (done.exit_code, f"does not write {kind} files" in done.stderr) == (2, True)
    assert "Hint: use another suffix (.csv, .tsv, .json, .jsonl)" in done.stderr
    assert not target.exists()
    assert run("encode", "a", "-o", str(target), "--format", "csv").exit_code == 0


def test_numbers_of_columns_are_rounded(capsys: pytest.CaptureFixture[str]) -> None:
    """With four digits in csv and tsv, and with all in JSON."""
    view = dataclasses.replace(VIEW, rounded=("score",))
    values = [0.97424, 0.99999, 1 / 3, 0.0, 3e-07, 123.456, -2.5, float("nan"), None]
    records = [Labelled("", "", value, {"a": 1 / 3}) for value in values]
    shown = ["0.9742", "1.0000", "0.3333", "0.0000", "3e-07", "123.5", "-2.5000", "", ""]
    for name in ("csv", "tsv"):
        lines = written(capsys, records, view, format=name).splitlines()[1:]
        cells = [line.split("," if name == "csv" else "\t")[2] for line in lines]
        assert cells == shown
        assert "0.3333333333333333" in lines[0]
    found = json.loads(written(capsys, records, view, format="json"))
    assert [record["score"] for record in found] == [*values[:-2], None, None]


def test_one_command_in_every_format() -> None:
    def out(name: str) -> str:
        return run("encode", "good morning", "--format", name).stdout

    ids = [12018, 5738]
    assert out("text") == "12018 5738\n"
    (record,) = json.loads(out("json"))
    assert record == json.loads(out("jsonl"))
    assert (record["ids"], record["pieces"]) == (ids, ["good", " morning"])
    rows = list(csv.DictReader(io.StringIO(out("csv"))))
    assert [int(row["id"]) for row in rows] == ids
    assert [row["piece"] for row in rows] == ["good", " morning"]
    assert [each.split("\t")[1] for each in out("tsv").splitlines()] == ["id", *map(str, ids)]
    assert all(str(token_id) in out("table") for token_id in ids)


# Files


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.txt"


def failing(error: BaseException) -> Iterator[Labelled]:
    """Yield a record, then fail."""
    yield RECORDS[0]
    raise error


def test_output_is_written_whole(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert written(capsys, RECORDS, format="jsonl", output=target) == ""
    assert [json.loads(each)["text"] for each in target.read_bytes().decode().splitlines()] == [
        record.text for record in RECORDS
    ]
    assert list(target.parent.iterdir()) == [target]


def test_output_has_the_line_breaks_as_they_are(target: Path) -> None:
    run("decode", "--output", str(target), stdin=run("encode", "a\r\nb\n").stdout)
    assert target.read_bytes() == b"a\r\nb\n\n"


@pytest.mark.parametrize("error", [HftoolError("no"), ValueError(), KeyboardInterrupt()])
@pytest.mark.parametrize("name", get_args(Format))
def test_nothing_is_left_of_a_failure(target: Path, error: BaseException, name: Format) -> None:
    with pytest.raises(type(error)):
        write(failing(error), VIEW, OutputOptions(format=name, output=target))
    assert list(target.parent.iterdir()) == []


def test_a_failure_leaves_an_existing_file(target: Path) -> None:
    target.write_text("before")
    with pytest.raises(HftoolError, match="no"):
        write(failing(HftoolError("no")), VIEW, OutputOptions(output=target))
    assert target.read_text() == "before"
    assert list(target.parent.iterdir()) == [target]


def test_file_does_not_exist_before_it_is_complete(target: Path) -> None:
    def looking() -> Iterator[Labelled]:
        yield RECORDS[0]
        assert not target.exists()

    write(looking(), VIEW, OutputOptions(output=target))
    assert target.read_text() == "POSITIVE\t0.75\tI love it\n"


def test_broken_input_leaves_no_output(target: Path) -> None:
    result = run("encode", "--lines", "-o", str(target), stdin=b"one\ntwo\n\xff\n")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: stdin: line 3, byte 1: 0xff is not UTF-8\n")
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_permissions_are_those_of_any_new_file(target: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        with atomic_file(target) as file:
            file.write("é")
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == mode
    assert target.read_bytes() == "é".encode()


def test_permissions_of_an_existing_file_stay(target: Path) -> None:
    target.touch()
    target.chmod(0o604)
    with atomic_file(target) as file:
        file.write("new")
    assert stat.S_IMODE(target.stat().st_mode) == 0o604


@pytest.mark.parametrize("there", [True, False])
def test_symbolic_link_is_followed(target: Path, there: bool) -> None:
    link = target.parent / "link"
    link.symlink_to(target.name)
    if there:
        target.write_text("before")
    with atomic_file(link) as file:
        file.write("after")
    assert link.is_symlink()
    assert target.read_text() == "after"


def test_fifo_is_written_and_stays_one(target: Path) -> None:
    os.mkfifo(target)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(target.read_text()), daemon=True)
    reader.start()
    with atomic_file(target) as file:
        file.write("through")
    reader.join(10)
    assert found == ["through"]
    assert target.is_fifo()


@pytest.mark.parametrize("place", [lambda p: p / "none" / "out", lambda p: p])
def test_place_that_cannot_be_written(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    path = place(tmp_path)
    result = run("encode", "a", "-o", str(path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: cannot write {path}: ")
    assert result.stderr.count("\n") == 1


def test_dev_stdout_is_standard_output() -> None:
    finished = run_process("encode", "good morning", "-o", "/dev/stdout")
    assert (finished.status, finished.stdout) == (0, "12018 5738\n")


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85"])
def test_a_record_of_json_lines_is_one_line_for_every_program(end: str) -> None:
    text = f"one{end}two"
    done = run("encode", text, "--format", "jsonl")
    [record] = done.stdout.splitlines()  # str.splitlines ends a line at each of these
    assert json.loads(record)["text"] == text


def test_a_column_name_is_escaped_in_tsv(tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    table.write_text(json.dumps({"text": "good", "a\tb\nc": "1"}) + "\n")
    done = run("sentiment", "-f", str(table), "--format", "tsv")
    header, row = done.stdout.splitlines()
    assert header.split("\t")[:2] == ["text", "a\\tb\\nc"]
    assert len(header.split("\t")) == len(row.split("\t"))

"""`sentiment --engine ray`: the same records as a local run, even if workers die."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow
import pyarrow.parquet
import pytest

from hftool.output.formats import csv_lines, json_lines
from hftool.output.view import View
from tests.conftest import Finished, run, run_process
from tests.tiny_models import save_classifier, save_model

TEXTS = ["good", "大好 😀", "two\nlines", 'a "quote", and a comma', "", "\u2028\x00", "tab\tbed"]
LABELS = ("BAD", "SO-SO", "GOOD")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("bert"), LABELS)


def rows(start: int, count: int) -> list[dict[str, Any]]:
    return [
        {"id": i, "text": f"{TEXTS[i % len(TEXTS)]}{i % 997 or ''}", "label": f"given {i}"}
        for i in range(start, start + count)
    ]


def write_table(file: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write a table in the format of the file's suffix."""
    if file.suffix == ".parquet":
        table = pyarrow.Table.from_pylist(list(records))
        pyarrow.parquet.write_table(table, file, row_group_size=300)
        return
    lines = csv_lines if file.suffix == ".csv" else json_lines
    view = View(columns=tuple(records[0]), text=str)
    file.write_text("".join(lines(records, view)), newline="")


def folder_of(kind: str, tmp_path: Path, sizes: Sequence[int] = (10, 4200, 1)) -> Path:
    """Make a folder of tables, one of them in a subfolder, and files that are not input."""
    folder = tmp_path / f"in-{kind}"
    (folder / "more").mkdir(parents=True)
    names = [f"a.{kind}", f"b.{kind}", f"more/c.{kind}"]
    start = 0
    for name, size in zip(names, sizes, strict=True):
        write_table(folder / name, rows(start, size))
        start += size
    (folder / "README").write_text("no table")
    (folder / f"_temporary.{kind}").write_text("half")
    return folder


def labelled(model: Path, *arguments: str, **settings: Any) -> Finished:
    """Run `sentiment` with Ray, as a process."""
    return run_process("sentiment", "-m", str(model), "--engine", "ray", *arguments, **settings)


def local(model: Path, folder: Path, *options: str) -> list[dict[str, Any]]:
    """Return the records of local runs over the files of a folder, by way of Parquet."""
    records: list[dict[str, Any]] = []
    files = sorted(path for path in folder.rglob("[!_]*.*") if path.is_file())
    for file in files:
        target = folder.parent / f"{file.name}.labels"
        arguments = ("-f", str(file), "-o", str(target), "--format", "parquet", *options)
        result = run("sentiment", "-m", str(model), *arguments)
        assert result.exit_code == 0, result.stderr
        records += pyarrow.parquet.read_table(target).to_pylist()
    return records


def assert_same(found: Path, expected: Sequence[dict[str, Any]]) -> None:
    """Compare records, in order; scores may differ a little, as the batches do."""
    parts = [pyarrow.parquet.read_table(part).to_pylist() for part in sorted(found.iterdir())]
    records = [record for part in parts for record in part]
    assert [r["text"] for r in records] == [r["text"] for r in expected]
    for one, other in zip(records, expected, strict=True):
        assert [*one] == [*other]
        assert flat(one) == pytest.approx(flat(other), abs=1e-5)


def flat(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with each of its scores in its own column."""
    scores = record.get("scores") or {}
    return {**record, **{f"score {name}": score for name, score in scores.items()}, "scores": None}


def unknown(texts: str) -> str:
    """The warning of texts whose words the tiny model does not know."""
    return (
        f"Warning: {texts} mostly words this model does not know: its labels for such texts mean"
        " little; a multilingual model (-m) knows more languages\n"
    )


@pytest.mark.slow
def test_a_folder_of_csv_on_ray_started_for_it(model: Path, tmp_path: Path) -> None:
    folder, target = folder_of("csv", tmp_path), tmp_path / "labels"
    result = labelled(model, str(folder), "-o", str(target), "--threshold", "0.6")
    expected = unknown("7 of 4,211 texts are")
    assert (result.status, result.stdout, result.stderr) == (0, "", expected)
    assert [part.name for part in sorted(target.iterdir())] == [
        *("part-000000-000000.parquet", "part-000001-000000.parquet"),
        *("part-000001-000001.parquet", "part-000002-000000.parquet"),
    ]
    labels = local(model, folder, "--threshold", "0.6")
    assert len({record["label"] for record in labels}) == 4, "with UNCERTAIN and the empty text's"
    assert_same(target, labels)
    assert not [*tmp_path.glob("*.partial"), *tmp_path.glob(".*.lock")]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["in"], "--engine ray writes a folder of files"),
        (["in", "-o", "labels", "--json"], "--engine ray writes only Parquet"),
        (["-o", "labels"], "--engine ray reads files and folders"),
        (["-f", "-", "-o", "labels"], "--engine ray reads files and folders"),
        (["in", "-f", "in/a.csv", "-o", "labels"], "the input was given twice"),
        (["in", "-o", "labels", "--summary"], "--engine ray excludes --summary"),
        (["in", "-o", "in/labels"], "-o in/labels is inside the input in"),
        (["in", "b.jsonl", "-o", "labels"], "the input has several formats: csv, jsonl"),
        (["in", "-o", "labels", "--ray-address", "ray://a:1"], "is not a cluster's address"),
        (["in", "-o", "labels", "--ray-address", "127.0.0.1:1"], "cannot join the Ray cluster at"),
        (["in", "-o", "labels", "--ray-address", "127.0.0.1:1"], "set RAY_AUTH_MODE=token"),
        (["in", "-o", "labels", "--column", "nix"], "no column 'nix'; the columns are 'text'"),
        (["in", "-o", "labels", "--input-format", "tsv"], "no tsv files in "),
        (["nowhere", "-o", "labels"], "nowhere: No such file or directory"),
        (["in", "-o", "in/.."], "in/.. exists already"),
    ],
)
def test_wrong_usage(
    arguments: list[str], error: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("text\nx\n")
    (tmp_path / "b.jsonl").write_text('{"text": "x"}\n')
    monkeypatch.chdir(tmp_path)
    result = run("sentiment", "-m", str(model), "--engine", "ray", *arguments)
    assert result.exit_code in (1, 2)
    assert error in result.stderr
    assert result.stderr.startswith("Error: ")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("labels")]


def test_an_address_goes_with_the_engine(model: Path) -> None:
    result = run("sentiment", "-m", str(model), "x", "--ray-address", "a:1")
    assert (result.exit_code, result.stderr) == (2, "Error: --ray-address goes with --engine ray\n")


def test_without_the_extra(model: Path, tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    arguments = (str(tmp_path), "-o", str(tmp_path / "labels"))
    result = labelled(model, *arguments, environment={"PYTHONPATH": path})
    assert (result.status, result.stderr) == (
        1,
        "Error: --engine ray needs the package ray, which is not installed\n"
        "Hint: pip install 'hftool-cli[ray]'\n",
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes on this machine, with one CPU each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()  # type: ignore[no-untyped-call]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_folders_on_a_cluster(kind: str, model: Path, cluster: Any, tmp_path: Path) -> None:
    folder, target = folder_of(kind, tmp_path), tmp_path / "labels"
    arguments = (str(folder), "-o", str(target), "--all-scores", "--long", "chunk")
    result = labelled(model, *arguments, "--ray-address", cluster.address)
    expected = unknown("7 of 4,211 texts are")
    assert (result.status, result.stdout, result.stderr) == (0, "", expected)
    assert_same(target, local(model, folder, "--all-scores", "--long", "chunk"))


@pytest.mark.slow
def test_the_first_file_does_not_decide_the_types(model: Path, tmp_path: Path) -> None:
    folder, target = tmp_path / "in", tmp_path / "labels"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"text": "a", "stars": 4}\n{"text": "b", "stars": 1}\n')
    (folder / "b.jsonl").write_text('{"text": "c", "stars": 4.5}\n{"city": "Oslo", "text": "d"}\n')
    result = labelled(model, str(folder), "-o", str(target))
    assert (result.status, result.stderr) == (0, "")
    parts = [pyarrow.parquet.read_table(part).to_pylist() for part in sorted(target.iterdir())]
    records = [(r["text"], r["stars"], r["city"]) for part in parts for r in part]
    assert records == [("a", 4, None), ("b", 1, None), ("c", 4.5, None), ("d", None, "Oslo")]
    (folder / "c.jsonl").write_text('{"text": "e", "stars": "five"}\n')
    result = labelled(model, str(folder), "-o", str(tmp_path / "more"))
    expected = "the column 'stars' has numbers (a.jsonl: line 1) and texts (c.jsonl: line 1)"
    assert (result.status, expected in result.stderr) == (1, True)
    times = pyarrow.array([1700000000123456789], pyarrow.timestamp("ns", "Mars/Base"))
    (tmp_path / "times").mkdir()
    source = tmp_path / "times" / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "at": times}), source)
    assert labelled(model, str(source), "-o", str(tmp_path / "out")).status == 0
    [part] = (tmp_path / "out").iterdir()
    assert pyarrow.parquet.read_table(part)["at"].equals(pyarrow.chunked_array([times]))


@pytest.mark.slow
def test_errors_of_workers_are_one_line(model: Path, cluster: Any, tmp_path: Path) -> None:
    folder = folder_of("csv", tmp_path)
    target = tmp_path / "labels"

    def error(*arguments: str) -> str:
        result = labelled(model, *arguments, "-o", str(target), "--ray-address", cluster.address)
        assert result.status == 1
        assert result.stdout == ""
        first, *hints = result.stderr.replace(str(tmp_path), "").splitlines()
        assert all(hint.startswith(("Hint: ", "Warning: labels.partial holds")) for hint in hints)
        assert not target.exists()
        shutil.rmtree(tmp_path / "labels.partial", ignore_errors=True)
        return first

    generator = save_model(tmp_path / "generator")
    assert "is not a text classifier" in error(str(folder), "-m", str(generator))
    broken = folder / "more" / "d.csv"
    broken.write_text('id,text,label\n1,x,y\n2,"never closed,z\n')
    assert "Error: /in-csv/more/d.csv: line 3: not valid CSV: " in error(str(folder))
    broken.write_text("id,body\n1,x\n")
    assert "d.csv: its columns are id, body; those of the first file are" in error(str(folder))
    broken.write_text("text,id,other\nx,1,2\n")
    assert "more/d.csv: its columns are text, id, other" in error(str(folder))


def actors(cluster: Any) -> dict[int, int]:
    """Return the processes that have a model, each with the raylet (the node) it belongs to."""
    found: dict[int, int] = {}
    for node in cluster.list_all_nodes():
        raylet = node.all_processes["raylet"][0].process.pid
        for process in psutil.Process(raylet).children(recursive=True):
            try:
                if any("MapWorker" in word for word in process.cmdline()):
                    found[process.pid] = raylet
            except psutil.Error:  # it ended just now
                continue
    return found


@pytest.mark.slow
def test_a_killed_worker_loses_and_duplicates_nothing(
    model: Path, cluster: Any, tmp_path: Path
) -> None:
    folder = folder_of("parquet", tmp_path, (30_000, 20_000, 10))
    target, partial = tmp_path / "labels", tmp_path / "labels.partial"
    command = [sys.executable, "-m", "hftool", "sentiment", "-m", str(model), "--engine", "ray"]
    command += ["--ray-address", cluster.address, str(folder), "-o", str(target)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    seen: dict[int, int] = {}
    killed = 0
    while process.poll() is None:
        now = actors(cluster)
        seen |= now
        begun = partial.exists() and any(partial.glob("part-*"))
        if not killed and begun and len({*now.values()}) == 2:
            killed = next(iter(now))
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.05)
    _, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, unknown("73 of 50,010 texts are"))
    assert killed, "the run ended before both nodes had a worker"
    assert len(seen) > 2, "no other worker replaced the one that was killed"
    assert_same(target, local(model, folder))


@pytest.mark.slow
def test_an_interrupted_run_is_resumed(model: Path, cluster: Any, tmp_path: Path) -> None:
    folder = folder_of("jsonl", tmp_path, (20_000, 20_000, 10))
    target, partial = tmp_path / "labels", tmp_path / "labels.partial"
    arguments = (str(folder), "-o", str(target), "--ray-address", cluster.address)
    command = [sys.executable, "-m", "hftool", "sentiment", "-m", str(model), "--engine", "ray"]
    process = subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True)
    while not (partial.exists() and any(partial.glob("part-*"))):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    expected = "Warning: labels.partial holds the finished records; --resume continues the run\n"
    assert (process.returncode, stderr) == (130, expected)
    done = {part: part.stat().st_mtime_ns for part in partial.glob("part-*")}
    assert "exists: it is from an interrupted run" in labelled(model, *arguments).stderr
    for option in (["--all-scores"], ["--threshold", "0.6"], [str(folder / "a.jsonl")]):
        other = labelled(model, *arguments, "--resume", *option)
        assert (other.status, "labels.partial is from a run with other input" in other.stderr) == (
            1,
            True,
        )
    assert labelled(model, *arguments, "--resume").status == 0
    assert all((target / part.name).stat().st_mtime_ns == at for part, at in done.items())
    assert_same(target, local(model, folder))


@pytest.mark.slow
def test_texts_that_fail(model: Path, cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    records = [
        {"text": "good", "pair": "x"},
        {"text": "bad", "pair": None},
        {"text": "", "pair": "y"},
    ]
    (tmp_path / "in" / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    for how, status in (("report", 1), ("skip", 0)):
        target = tmp_path / how
        options = ("--pair-column", "pair", "--on-error", how, "--ray-address", cluster.address)
        result = labelled(model, str(tmp_path / "in"), "-o", str(target), *options)
        assert result.status == status, result.stderr
        assert "1 text" in result.stderr
        [part] = target.iterdir()
        found = pyarrow.parquet.read_table(part).to_pylist()
        assert [r["text"] for r in found] == ["good", *["bad"] * (how == "report"), ""]
        if how == "report":
            assert [bool(r["error"]) for r in found] == [False, True, False]

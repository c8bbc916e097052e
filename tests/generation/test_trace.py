"""Traces of `sample`: a replayed run is the same, or hftool reports the first difference."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftool import config
from hftool.errors import HftoolError
from hftool.generation.trace import read_trace
from tests.conftest import run
from tests.tiny_models import END, save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


def traced(folder: Path, file: Path, *arguments: str) -> str:
    """Return the records of a run, as text, and write its trace."""
    done = run(
        *("sample", "abc", "-m", str(folder), "--steps", "6", "--format", "jsonl"),
        *("--trace", str(file), *arguments),
    )
    assert done.exit_code == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("arguments", [("--seed", "7"), (), ("--greedy",), ("--temp", "2")])
def test_a_replay_is_the_run_again(
    arguments: tuple[str, ...], folder: Path, tmp_path: Path
) -> None:
    first = traced(folder, tmp_path / "t", *arguments)
    for model in ((), ("-m", str(folder))):
        again = run("sample", *model, "--replay", str(tmp_path / "t"), "--format", "jsonl")
        assert (again.exit_code, again.stdout) == (0, first)
        assert again.stderr == f"all {len(first.splitlines())} steps are the same as in the trace\n"


@pytest.mark.parametrize("options", [("--dtype", "bf16"), ("--quantize", "int8")], ids=" ".join)
def test_a_replay_takes_the_precision_from_the_trace(
    options: tuple[str, str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = traced(folder, tmp_path / "t", *options)
    assert traced(folder, tmp_path / "other", "--dtype", "float32", "--seed", "1") != first
    monkeypatch.setenv("HFTOOL_MODEL", "smollm2")  # neither this nor config.toml is a contradiction
    (tmp_path / "config.toml").write_text('[sample]\ntemperature = 3.0\ndtype = "fp16"\n')
    config.load.cache_clear()
    again = run("sample", "--replay", str(tmp_path / "t"), "--format", "jsonl")
    assert (again.exit_code, again.stdout) == (0, first), again.stderr


def test_a_command_line_that_contradicts_the_trace(folder: Path, tmp_path: Path) -> None:
    traced(folder, tmp_path / "t", "--dtype", "float32", "--temp", "0.7", "--top-k", "9")
    replay = ("sample", "--replay", str(tmp_path / "t"))
    same = ("--temperature", "0.7", "--top-k", "9", "--dtype", "fp32", "--steps", "6", "-k", "2")
    assert run(*replay, *same).exit_code == 0
    other = ("--temperature", "0.5", "--dtype", "bf16", "--quantize", "int8", "--steps", "3")
    done = run(*replay, *other, "--min-p", "0.1", "--top-k", "9")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: the command line contradicts the trace: --dtype bf16 (the trace: float32),"
        " --quantize int8 (the trace: none), --steps 3 (the trace: 6), --temperature 0.5 (the"
        " trace: 0.7), --min-p 0.1 (the trace: 0.0)\n"
        "Hint: leave these options out: --replay takes them from the trace\n"
    )
    done = run(*replay, "abc", "--chat", "--no-special")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: --replay takes its prompt from the trace: leave out TEXT, --chat, --special\n"
    )


def test_a_trace_can_be_replayed_in_another_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    first = traced(Path(folder.name), tmp_path / "t")
    monkeypatch.chdir(tmp_path)
    assert run("sample", "--replay", "t", "--format", "jsonl").stdout == first


def test_a_greedy_trace(folder: Path, tmp_path: Path) -> None:
    traced(folder, tmp_path / "t", "--greedy")
    replay = ("sample", "--replay", str(tmp_path / "t"))
    assert run(*replay, "--temperature", "0", "--greedy").exit_code == 0
    assert "--seed 3 (the trace: None)" in run(*replay, "--seed", "3").stderr


def test_a_replay_ends_as_the_run_did(folder: Path, tmp_path: Path) -> None:
    forced = save_model(
        tmp_path / "model",
        generation_config={"eos_token_id": END, "forced_eos_token_id": END, "top_k": 5},
    )
    first = traced(forced, tmp_path / "t", "--seed", "2")
    assert json.loads(first.splitlines()[-1])["id"] == END
    lines = (tmp_path / "t").read_text().splitlines()
    (tmp_path / "t").write_text("\n".join(lines[:4]))  # as if left with `q` after three steps
    again = run("sample", "--replay", str(tmp_path / "t"), "--format", "jsonl")
    assert again.stdout.splitlines() == first.splitlines()[:3]


def test_a_trace_holds_what_the_records_hold(folder: Path, tmp_path: Path) -> None:
    records = [json.loads(line) for line in traced(folder, tmp_path / "t").splitlines()]
    head, *steps = map(json.loads, (tmp_path / "t").read_text("utf-8").splitlines())
    assert steps == [{"id": r["id"], "drawn": r["drawn"]} for r in records]
    assert head["settings"]["top_k"] == 50


def test_a_replay_says_at_which_step_it_differs(folder: Path, tmp_path: Path) -> None:
    records = [json.loads(line) for line in traced(folder, tmp_path / "t").splitlines()]
    lines = (tmp_path / "t").read_text("utf-8").splitlines()
    other = records[2]["id"] + 1
    lines[3] = json.dumps({"id": other, "drawn": records[2]["drawn"]})
    (tmp_path / "t").write_text("\n".join(lines), "utf-8")
    done = run("sample", "-m", str(folder), "--replay", str(tmp_path / "t"), "--format", "jsonl")
    assert done.exit_code == 1
    assert f"Error: step 3 differs: id {other} in the trace, id {records[2]['id']}" in done.stderr
    assert len(done.stdout.splitlines()) == 2
    lines[1] = json.dumps({"id": records[0]["id"], "drawn": 0.5})
    (tmp_path / "t").write_text("\n".join(lines), "utf-8")
    done = run("sample", "-m", str(folder), "--replay", str(tmp_path / "t"))
    drawn = records[0]["drawn"]
    assert f"step 1 differs: 0.5 drawn in the trace, {drawn} drawn now\n" in done.stderr


def test_a_trace_of_another_model(folder: Path, tmp_path: Path) -> None:
    traced(folder, tmp_path / "t", "--dtype", "float32")
    other = save_model(tmp_path / "other", "gpt2")
    done = run("sample", "-m", str(other), "--replay", str(tmp_path / "t"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Error: the trace comes from " in done.stderr
    assert f"a different model than {other}" in done.stderr


@given(
    st.text(max_size=40)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda c: (
            st.lists(c, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["format", "model", "fingerprint", "dtype", "ids", "settings", "id", "drawn"]
                ),
                c,
                max_size=8,
            )
        ),
    ).map(json.dumps)
)
def test_what_is_no_trace_is_an_error(text: str) -> None:
    with pytest.raises(HftoolError):
        read_trace(text)


def test_an_interrupted_run_leaves_no_half_trace(folder: Path, tmp_path: Path) -> None:
    done = run(
        *("sample", "abc", "-m", str(folder), "--trace", str(tmp_path / "t")),
        *("-o", str(tmp_path / "absent" / "o")),
    )
    assert done.exit_code == 1
    assert list(tmp_path.iterdir()) == []
